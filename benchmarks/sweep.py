"""The cost of a sweep over evaluating each mask by itself, and how near it comes to the lower bound.

    python -m benchmarks.sweep           # Pocket-VL, and a random-weight model of Qwen3-VL-2B's shape
    python -m benchmarks.sweep --small   # without the large shape

By itself: one dense pass, and one pass per mask with logits at answer positions; inputs are prepared once and the dense model is not run
again. Layers executed are compared with those that each mask alone would execute. The floor is the time of the distinct prefixes of all
masks (the nodes of their trie, at the mean time of a layer in a dense pass) and of one pass of the vision tower, measured in the same
run on the same prompts, without the head and the preparation of a pass.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import large_shape, load, prompts_for

PROMPTS = {"pocket-vl": 90, "2b-shape": 12}
CRITERIA, BUDGETS = 10, 10
ROUNDS = 3


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


def compare(name: str, what: str, loaded: Any, masks: Sequence[Any], n_prompts: int) -> None:
    """Time both ways on the same prepared prompts, and check that they agree."""
    from vlm_analysis import PruneMask
    from vlm_analysis.evaluation.run.evaluate import evaluate_prepared, evaluation_of
    from vlm_analysis.evaluation.run.prepared import prepare
    from vlm_analysis.evaluation.run.sharing import SharedRunner, ordered
    from vlm_analysis.evaluation.run.sweep import open_scores, sweep_prepared

    work = prepare(loaded, prompts_for(name, n_prompts))
    batch = 32 if name == "pocket-vl" else 1
    evaluate_prepared(work, PruneMask(loaded.n_layers), None, batch_size=batch)  # warms up
    plan = ordered([PruneMask(loaded.n_layers), *masks])
    runner = SharedRunner(loaded)
    list(runner.run([work.encoded[0]], plan))
    nodes = len({mask.kept[:length] for mask in plan for length in range(1, len(mask.kept) + 1)})
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        dense = evaluate_prepared(work, PruneMask(loaded.n_layers), None, batch_size=batch).dense_log_probs
        alone = [evaluate_prepared(work, mask, dense, batch_size=batch) for mask in masks]
        alone_s = time.perf_counter() - started
        started = time.perf_counter()
        store = open_scores(work, batch)
        sweep_prepared(work, masks, None, store=store, batch_size=batch)
        swept = [evaluation_of(work, mask, store.of(mask.key)) for mask in masks]
        swept_s = time.perf_counter() - started
        assert all(one.by_prompt.equals(other.by_prompt) for one, other in zip(swept, alone, strict=True))
        layer_s, vision_s = parts(work, batch)
        floor_s = nodes * layer_s + vision_s
        rounds.append((alone_s, swept_s, swept_s / alone_s, floor_s / alone_s, swept_s / floor_s))
    alone_s, swept_s, ratio, floor, over = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(
        f"| {name} | {what} | {len(masks)} | {n_prompts} | {alone_s:.1f} | {swept_s:.1f} | {ratio:.2f} × | "
        f"{floor:.2f} × | {over:.2f} × | {runner.layers_run} of {runner.layers_counted} | {nodes} |",
        flush=True,
    )


def parts(work: Any, batch: int) -> tuple[float, float]:
    """Return the seconds of one decoder layer and of the vision tower over all prompts: medians of a few dense passes."""
    import torch

    from vlm_analysis.evaluation.run.prepared import answer_logits
    from vlm_analysis.models.inputs import batches
    from vlm_analysis.models.layers import find_decoder_layers

    model, seconds = work.loaded.model, {"layers": 0.0, "vision": 0.0}
    starts: list[float] = []
    modules = [(layer, "layers") for layer in find_decoder_layers(model)] + [(model.model.visual, "vision")]

    def ended(what: str) -> Any:
        def note(*_: Any) -> None:
            seconds[what] += time.perf_counter() - starts.pop()

        return note

    handles = [module.register_forward_pre_hook(lambda *_: starts.append(time.perf_counter())) for module, _ in modules]
    handles += [module.register_forward_hook(ended(what)) for module, what in modules]
    rounds = []
    for _ in range(ROUNDS):
        seconds.update(layers=0.0, vision=0.0)
        with torch.inference_mode():
            for indices in batches(work.encoded, batch):
                answer_logits(work.loaded, model, [work.encoded[index] for index in indices])
        rounds.append((seconds["layers"] / work.loaded.n_layers, seconds["vision"]))
    for handle in handles:
        handle.remove()
    layer_s, vision_s = (statistics.median(column) for column in zip(*rounds, strict=True))
    return layer_s, vision_s


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
            "| model | masks | number | prompts | by itself, s | sweep, s | ratio | floor | over the floor | layers executed | least |"
        )
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
        for name in ["pocket-vl"] if small else list(PROMPTS):
            loaded = load(name, folder)
            compare(name, "each layer left out", loaded, leave_one_out(loaded.n_layers), PROMPTS[name])
            many = PROMPTS[name] if name == "pocket-vl" else 1
            compare(name, "10 criteria × 10 budgets", loaded, criteria_and_budgets(loaded.n_layers), many)


if __name__ == "__main__":
    main()
