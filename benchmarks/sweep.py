"""What a sweep costs over evaluating each mask by itself, and how many decoder layers it runs of those counted.

    python -m benchmarks.sweep           # Pocket-VL, and a random-weight model of Qwen3-VL-2B's shape
    python -m benchmarks.sweep --small   # without the large shape

By itself: one dense pass, and one pass a mask with logits at answer positions; inputs are prepared once and the dense model is never run
again. Layers executed are counted against those each mask alone would execute; the least that could be executed are the different starts
of all masks (the nodes of their trie). The vision tower, which a sweep runs once a batch, comes on top of what the layers save.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import large_shape, load, prompts_for

PROMPTS = {"pocket-vl": 90, "2b-shape": 1}
CRITERIA, BUDGETS = 10, 10


def leave_one_out(n_layers: int) -> list[Any]:
    from vlm_analysis.masks import PruneMask

    return [PruneMask(n_layers, (layer,)) for layer in range(n_layers)]


def criteria_and_budgets(n_layers: int) -> list[Any]:
    """Return ten random drop orders cut at ten budgets: rankings of ten criteria that agree in nothing."""
    import numpy as np

    from vlm_analysis.masks import PruneMask

    orders = [np.random.default_rng(seed).permutation(range(1, n_layers - 1)) for seed in range(CRITERIA)]
    budgets = sorted({max(1, round((step + 1) * n_layers / 2 / BUDGETS)) for step in range(BUDGETS)})
    return [
        PruneMask(n_layers, tuple(int(layer) for layer in order[:budget])) for order in orders for budget in budgets
    ]


def compare(name: str, what: str, loaded: Any, masks: Sequence[Any]) -> None:
    """Time both ways on the same prepared prompts, and check that they agree."""
    from vlm_analysis.evaluate import evaluate_prepared, prepare
    from vlm_analysis.masks import PruneMask
    from vlm_analysis.sweep import SharedRunner, sweep_prepared

    work = prepare(loaded, prompts_for(name, PROMPTS[name]))
    batch = 32 if name == "pocket-vl" else 1
    evaluate_prepared(work, PruneMask(loaded.n_layers), None, batch_size=batch)  # warms up
    started = time.perf_counter()
    dense = evaluate_prepared(work, PruneMask(loaded.n_layers), None, batch_size=batch).dense_log_probs
    alone = [evaluate_prepared(work, mask, dense, batch_size=batch) for mask in masks]
    alone_s = time.perf_counter() - started
    started = time.perf_counter()
    swept = list(sweep_prepared(work, masks, None, batch_size=batch))
    swept_s = time.perf_counter() - started
    assert all(one.by_prompt.equals(other.by_prompt) for one, other in zip(swept, alone, strict=True))
    plan = [PruneMask(loaded.n_layers), *(mask for _, mask in sorted({mask.kept: mask for mask in masks}.items()))]
    runner = SharedRunner(loaded, plan, 1 << 30)
    list(runner.run([work.encoded[0]]))
    nodes = {mask.kept[:length] for mask in plan for length in range(1, len(mask.kept) + 1)}
    print(
        f"| {name} | {what} | {len(masks)} | {alone_s:.1f} | {swept_s:.1f} | {swept_s / alone_s:.2f} × | "
        f"{runner.layers_run} of {runner.layers_counted} | {len(nodes)} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "2b-shape"
        if not small:
            large_shape(folder)
        print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}; equal to the last bit\n")
        print("| model | masks | number | by itself, s | sweep, s | ratio | layers executed | least |")
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
        for name in ["pocket-vl"] if small else list(PROMPTS):
            loaded = load(name, folder)
            compare(name, "each layer left out", loaded, leave_one_out(loaded.n_layers))
            if name == "pocket-vl":
                compare(name, "10 criteria × 10 budgets", loaded, criteria_and_budgets(loaded.n_layers))


if __name__ == "__main__":
    main()
