"""What dropping layers saves: the dense model against three budgets, in weights, prefill time and decoding speed.

    python -m benchmarks.cost           # Pocket-VL
    python -m benchmarks.cost --large   # and a random-weight model of Qwen3-VL-2B's shape

Models take turns on every prompt; a ratio is the median of the ratios of the rounds, with a 90 % bootstrap interval over rounds. The
expected ratio is computed from the dropped layers' shares of the dense time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import large_shape, load, prompts_for

PROMPTS = {"pocket-vl": 8, "2b-shape": 1}
WORK = {"pocket-vl": (7, 32), "2b-shape": (3, 16)}  # rounds and new tokens
SHARES = (0.125, 0.25, 0.5)


def spread_masks(n_layers: int) -> list[Any]:
    """Return masks of an eighth, a quarter and half of the layers, spread evenly over those between the first and the last."""
    import numpy as np

    from vlm_analysis import PruneMask

    budgets = [max(1, round(share * n_layers)) for share in SHARES]
    return [
        PruneMask(n_layers, tuple(np.linspace(2, n_layers - 2, budget).round().astype(int).tolist()))
        for budget in budgets
    ]


def compare(name: str, folder: Path) -> None:
    """Print one row for the dense model and one for each mask."""
    import numpy as np

    from vlm_analysis import measure_costs, speedup

    loaded, prompts, (rounds, new_tokens) = load(name, folder), prompts_for(name, PROMPTS[name]), WORK[name]
    costs = measure_costs(loaded, prompts, spread_masks(loaded.n_layers), rounds=rounds, new_tokens=new_tokens)
    for index, cost in enumerate([costs[0], *costs]):
        which = min(index, 1)
        row = [name, str(cost.edit.budget if index else 0), f"{cost.n_parameters[which] / 1e6:,.2f}"]
        row += [f"{cost.n_bytes[which] / 2**20:,.1f}", f"{np.median(cost.prefill_ms[which]):.4g}"]
        row.append(f"{np.median(cost.tokens_per_s[which]):.4g}")
        for phase in ("prefill", "decode"):
            value, low, high = speedup(cost, phase)
            ratio = f"{value:.2f} × ({low:.2f} to {high:.2f}); {1 / cost.expected_share(phase):.2f} ×"
            row.append(ratio if index else "1; 1")
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    large = parser.parse_args().large
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "2b-shape"
        if large:
            large_shape(folder)
        print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}\n")
        head = ["model", "layers dropped", "parameters, M", "weights, MiB", "prefill, ms", "tokens/s"]
        head += ["prefill, times as fast; expected", "decode, times as fast; expected"]
        print(f"| {' | '.join(head)} |\n| --- |{' ---: |' * (len(head) - 1)}", flush=True)
        for name in list(PROMPTS) if large else ["pocket-vl"]:
            compare(name, folder)


if __name__ == "__main__":
    main()
