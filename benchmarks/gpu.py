"""What Strata does on a GPU, in one run of some minutes: agreement with the CPU, recording, a sweep, vision tokens that skip layers, a
short tuning, cost, and peak memory.

    bash benchmarks/gpu.sh                  # on a GPU: a random-weight model of Qwen3-VL-2B's shape, in bfloat16
    python -m benchmarks.gpu --tiny         # anywhere: the same steps on Pocket-VL, to see that they run

Ratios are of ways that take turns in this run. Random weights say nothing about answers; they cost what trained ones do.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.record import large_shape, prompts_for, ways
from benchmarks.sweep import leave_one_out

ROUNDS = 3


def seconds(call: Callable[[], object], device: Any) -> float:
    """Return how long a call takes, with all that it started on the device."""
    import torch

    sync = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    sync()
    started = time.perf_counter()
    call()
    sync()
    return time.perf_counter() - started


def in_turn(calls: dict[str, Callable[[], object]], device: Any) -> dict[str, float]:
    """Return the median seconds of calls that take turns; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(ROUNDS + 1):
        for name, call in calls.items():
            spent = seconds(call, device)
            if turn:
                times[name].append(spent)
    return {name: statistics.median(column) for name, column in times.items()}


def agreement(source: Any, name: str, device: str) -> None:
    """Print how far a recording and the dense answer NLL on the device are from those of the CPU, in both precisions."""
    import numpy as np

    from vlm_analysis import evaluate, load_model, record

    prompts = prompts_for(name, 2)
    for dtype in ("float32", "bfloat16"):
        here, there = (load_model(source, dtype=dtype, device=one) for one in ("cpu", device))
        rows = [record(one, prompts).layer_similarity() for one in (here, there)]
        nll = [evaluate(one, prompts).by_prompt["answer_nll"].to_numpy() for one in (here, there)]
        apart = [float(np.nanmax(np.abs(one - two))) for one, two in (rows, nll)]
        row(
            f"{device} against the CPU, {dtype}",
            f"similarity {apart[0]:.1e}, answer NLL {apart[1]:.1e} nats apart at most",
        )


def recording(loaded: Any, name: str, n_prompts: int) -> None:
    times = in_turn(ways(loaded, prompts_for(name, n_prompts)), loaded.device)
    bare = times["bare forward pass"]
    for way, spent in times.items():
        row(f"record: {way}", f"{spent / n_prompts * 1e3:.1f} ms a prompt, {spent / bare:.2f} × the bare pass")


def sweeping(loaded: Any, name: str, n_prompts: int) -> None:
    from vlm_analysis import evaluate, sweep

    prompts, masks = prompts_for(name, n_prompts), leave_one_out(loaded.n_layers)[1:-1]
    dense = evaluate(loaded, prompts)
    calls: dict[str, Callable[[], object]] = {
        "one by one": lambda: [evaluate(loaded, prompts, mask, reference=dense) for mask in masks],
        "sweep": lambda: list(sweep(loaded, prompts, masks, reference=dense)),
    }
    times = in_turn(calls, loaded.device)
    ratio = times["sweep"] / times["one by one"]
    row(f"sweep of {len(masks)} masks on {n_prompts} prompts", f"{times['sweep']:.2f} s, {ratio:.2f} × one by one")


def skipping(loaded: Any, name: str) -> None:
    """Print the prefill of sliced vision edits over the dense one, beside what their FLOPs promise."""
    from vlm_analysis import early_exit, freeze, measure_costs, speedup

    half = loaded.n_layers // 2
    edits = [
        early_exit(loaded.n_layers, half, form="sliced"),
        freeze(loaded.n_layers, range(half, loaded.n_layers), form="sliced"),
    ]
    for cost in measure_costs(loaded, prompts_for(name, 2), edits, rounds=ROUNDS, new_tokens=8):
        value, low, high = speedup(cost, "prefill")
        promised = cost.prefill_flops[0] / cost.prefill_flops[1] if cost.prefill_flops else float("nan")
        row(
            f"prefill: {cost.edit.words()}",
            f"{value:.2f} × ({low:.2f} to {high:.2f}) as fast; its FLOPs promise {promised:.2f} ×",
        )


def costs(loaded: Any, name: str) -> None:
    from vlm_analysis import PruneMask, measure_costs, speedup

    quarter = PruneMask(loaded.n_layers, range(2, 2 + loaded.n_layers // 4))
    for cost in measure_costs(loaded, prompts_for(name, 2), [quarter], rounds=ROUNDS, new_tokens=16):
        for phase in ("prefill", "decode"):
            value, low, high = speedup(cost, phase)
            expected = 1 / cost.expected_share(phase)
            speed = f"{value:.2f} × ({low:.2f} to {high:.2f}) as fast; expected {expected:.2f} ×"
            row(f"{phase} without a quarter of the layers", speed)


def tuning(loaded: Any, name: str) -> None:
    from vlm_analysis import PruneMask, finetune

    edit, prompts = PruneMask(loaded.n_layers, [loaded.n_layers // 2]), prompts_for(name, 16)
    how: dict[str, Any] = {"most_steps": 4, "batch_size": 4}
    spent = seconds(lambda: finetune(loaded, edit, prompts, "small", **how), loaded.device)
    row("tuning, 4 steps of 4 prompts with its checks", f"{spent:.1f} s")


def compiled(loaded: Any, name: str) -> None:
    """Print a bare pass compiled by torch over the plain one, compiling not counted."""
    import torch

    from vlm_analysis.models.inputs import answer_tokens, collate, encode, pad_token

    prompt = prompts_for(name, 1)[0]
    batch = collate([encode(loaded, prompt, answer_tokens(loaded, prompt.answer))], pad_token(loaded))
    decoder = torch.compile(loaded.model)

    def run(model: Any) -> Callable[[], object]:
        def call() -> None:
            with torch.inference_mode():
                model(**batch, use_cache=False, logits_to_keep=1)

        return call

    times = in_turn({"plain": run(loaded.model), "compiled": run(decoder)}, loaded.device)
    row("bare pass with torch.compile", f"{times['compiled'] / times['plain']:.2f} × the plain one")


def row(what: str, value: str) -> None:
    print(f"| {what} | {value} |", flush=True)


def peak_mib(device: Any) -> float:
    """Return the most memory so far: of the GPU what torch took, else of the process."""
    import resource

    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="Pocket-VL in place of the 2B shape")
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    arguments = parser.parse_args()
    import torch

    from vlm_analysis import load_model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.cuda.get_device_name() if device == "cuda" else "no GPU"
    name = "pocket-vl" if arguments.tiny else "2b-shape"
    print(
        f"{time.strftime('%Y-%m-%d')}, {kind}, torch {torch.__version__}, {name}\n\n| what | measured |\n| --- | --- |"
    )
    with tempfile.TemporaryDirectory() as folder:
        source: Any = "pocket-vl" if arguments.tiny else large_shape(Path(folder) / "model")
        agreement(source, name, device)
        loaded = load_model(source, dtype="bfloat16" if device == "cuda" else "float32", device=device)
        n_prompts = 4 if arguments.tiny else 16
        for part in (recording, sweeping):
            part(loaded, name, n_prompts)
        for last in (skipping, costs, tuning, *([compiled] if arguments.compile else [])):
            last(loaded, name)
        row("peak memory", f"{peak_mib(loaded.device):,.0f} MiB")


if __name__ == "__main__":
    main()
