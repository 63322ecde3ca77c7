"""The cost of a sweep over evaluating each mask by itself, and how near it comes to the lower bound.

    python -m benchmarks.sweep           # Pocket-VL, and a random-weight model of Qwen3-VL-2B's shape
    python -m benchmarks.sweep --small   # without the large shape

By itself: one dense pass, and one pass per mask with logits at answer positions; inputs are prepared once and the dense model is not run
again. Layers executed are compared with those that each mask alone would execute. The floor is the time of the layers of all distinct
starts of masks (the nodes of their trie), each run once, and of one pass of the vision tower, without the head and the preparation of a
pass: "within" as these took in the sweep itself, "beside" at a layer's mean time in dense passes just before and after it. Between those
the machine changes its speed, which "beside" does not see. Times are means of some rounds in turn.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.record import large_shape, load, prompts_for

PROMPTS = {"pocket-vl": 90, "2b-shape": 12}
CRITERIA, BUDGETS = 10, 10
ROUNDS = {"pocket-vl": (7, 3), "2b-shape": (1, 1)}  # of leaving out each layer, of 100 masks
PASSES = 3


def leave_one_out(n_layers: int) -> list[Any]:
    from vlm_analysis import PruneMask

    return [PruneMask(n_layers, (layer,)) for layer in range(n_layers)]


def criteria_and_budgets(n_layers: int) -> list[Any]:
    """Return ten random drop orders cut at ten budgets: rankings of ten unrelated criteria."""
    import numpy as np

    from vlm_analysis import PruneMask

    orders = [np.random.default_rng(seed).permutation(range(1, n_layers - 1)) for seed in range(CRITERIA)]
    budgets = sorted(set(np.linspace(1, max(BUDGETS, n_layers // 2), BUDGETS).round().astype(int).tolist()))
    return [
        PruneMask(n_layers, tuple(int(layer) for layer in order[:budget])) for order in orders for budget in budgets
    ]


def compare(name: str, what_masks: str, loaded: Any, masks: Sequence[Any], n_prompts: int, n_rounds: int) -> None:
    """Time both ways on the same prepared prompts, and check that they agree."""
    from vlm_analysis import PruneMask
    from vlm_analysis.evaluation.run.evaluate import evaluate_prepared, evaluation_of
    from vlm_analysis.evaluation.run.prepared import prepare
    from vlm_analysis.evaluation.run.sharing import SharedRunner, ordered
    from vlm_analysis.evaluation.run.sweep import open_scores, sweep_prepared

    work = prepare(loaded, prompts_for(name, n_prompts))
    batch = 32 if name == "pocket-vl" else 1
    plan = ordered([PruneMask(loaded.n_layers), *masks])
    runner = SharedRunner(loaded)
    list(runner.run([work.encoded[0]], plan))
    nodes = len({mask.kept[:length] for mask in plan for length in range(1, len(mask.kept) + 1)})

    def alone() -> list[Any]:
        dense = evaluate_prepared(work, PruneMask(loaded.n_layers), None, batch_size=batch).dense_log_probs
        return [evaluate_prepared(work, mask, dense, batch_size=batch) for mask in masks]

    def swept() -> list[Any]:
        store = open_scores(work, batch)
        sweep_prepared(work, masks, None, store=store, batch_size=batch)
        return [evaluation_of(work, mask, store.of(mask.key)) for mask in masks]

    def passes() -> list[Any]:
        return [evaluate_prepared(work, PruneMask(loaded.n_layers), None, batch_size=batch) for _ in range(PASSES)]

    swept()  # warms up, and tries out what this model lets share
    seconds, parts = defaultdict[str, float](float), defaultdict[str, float](float)
    for _ in range(n_rounds):
        results = {}
        for what, run in (("alone", alone), ("before", passes), ("swept", swept), ("after", passes)):
            gc.collect()  # each part pays for its own garbage
            started = time.perf_counter()
            with clock(loaded.model, parts, what):
                results[what] = run()
            seconds[what] += (time.perf_counter() - started) / n_rounds
        pairs = zip(results["swept"], results["alone"], strict=True)
        assert all(one.by_prompt.equals(other.by_prompt) for one, other in pairs)
    n_batches = len(list(work.batches(batch)))
    assert parts["swept layers run"] == n_rounds * nodes * n_batches  # each start once
    within = (parts["swept layers"] + parts["swept vision"]) / n_rounds
    layers, n_layers, vision = (
        parts["before" + part] + parts["after" + part] for part in (" layers", " layers run", " vision")
    )
    beside = nodes * n_batches * layers / n_layers + vision / (2 * PASSES * n_rounds)
    print(
        f"| {name} | {what_masks} | {len(masks)} | {n_prompts} | {seconds['alone']:.1f} | {seconds['swept']:.1f} | "
        f"{seconds['swept'] / seconds['alone']:.2f} × | {within / seconds['alone']:.2f} × | {seconds['swept'] / within:.2f} × | "
        f"{seconds['swept'] / beside:.2f} × | {runner.layers_run} of {runner.layers_counted} | {nodes} |",
        flush=True,
    )


@contextmanager
def clock(model: Any, parts: dict[str, float], what: str) -> Iterator[None]:
    """Add to `parts` the seconds of the decoder layers that run and of the vision tower, and how often a layer runs."""
    from vlm_analysis.models.layers import find_decoder_layers

    def timed(forward: Any, name: str) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            output = forward(*args, **kwargs)
            parts[name] += time.perf_counter() - started
            parts[f"{name} run"] += 1
            return output

        return run

    kinds = {type(find_decoder_layers(model)[0]): f"{what} layers", type(model.model.visual): f"{what} vision"}
    forwards = {kind: kind.forward for kind in kinds}
    for kind, name in kinds.items():
        kind.forward = timed(forwards[kind], name)
    try:
        yield
    finally:
        for kind, forward in forwards.items():
            kind.forward = forward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "2b-shape"
        if not small:
            large_shape(folder)
        print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}; equal to the last bit\n")
        print(
            "| model | masks | number | prompts | by itself, s | sweep, s | ratio | floor | over it, within | over it, beside "
            "| layers executed | least |"
        )
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
        for name in ["pocket-vl"] if small else list(PROMPTS):
            loaded = load(name, folder)
            compare(name, "each layer left out", loaded, leave_one_out(loaded.n_layers), PROMPTS[name], ROUNDS[name][0])
            many = PROMPTS[name] if name == "pocket-vl" else 1
            compare(
                name, "10 criteria × 10 budgets", loaded, criteria_and_budgets(loaded.n_layers), many, ROUNDS[name][1]
            )


if __name__ == "__main__":
    main()
