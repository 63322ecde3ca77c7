"""The cost of a scan of vision tokens over evaluating each of its edits by itself, and what the sliced form saves of a prefill.

    python -m benchmarks.vision

By itself: one dense pass, and one pass for each late entry, early exit and frozen layer, in the same form; inputs are prepared once and the
dense model is not run again. The floor is the layers that a scan has to execute over those of one by one: vision tower, head and
preparation are not in it.

The prefill is that of six random layers of the shape of Qwen3-VL-2B with 576 vision tokens and 64 of text, with a cache. Dense and sliced
take turns; what counts is the ratio of their processor times in a round, of the layers alone, over the ratio of FLOPs that
`VisionScan.flops_share` says.
`python -m benchmarks.vision prefill` measures that alone.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from dataclasses import replace
from typing import Any

N_LAYERS, N_VISION, N_TEXT, ROUNDS = 6, 576, 64, 4


def scan_ratio(loaded: Any, prompts: Any, form: str) -> None:
    """Time a scan and its edits one by one, and print both."""
    from vlm_analysis import Edit, scan_vision
    from vlm_analysis.evaluation.run.evaluate import batch_for, evaluate_prepared
    from vlm_analysis.evaluation.run.prepared import prepare
    from vlm_analysis.evaluation.run.sharing import SharedRunner, ordered
    from vlm_analysis.evaluation.scan import edit_of_way, ways_of

    dense, n_layers = Edit(loaded.n_layers), loaded.n_layers
    edits = ordered(edit_of_way(n_layers, *one, form=form) for one in ways_of(n_layers))
    work, batch = prepare(loaded, prompts), batch_for(loaded)
    evaluate_prepared(work, dense, None, batch_size=batch)  # warms up
    started = time.process_time()
    base = evaluate_prepared(work, dense, None, batch_size=batch).dense_log_probs
    for edit in edits:
        evaluate_prepared(work, edit, base, batch_size=batch)
    alone_s = time.process_time() - started
    started = time.process_time()
    scan_vision(loaded, prompts, form=form)
    scan_s = time.process_time() - started
    runner = SharedRunner(loaded)
    list(runner.run([work.encoded[0]], ordered([dense, *edits])))
    floor = runner.layers_run / runner.layers_counted
    times = f"{alone_s:.1f} | {scan_s:.1f} | {scan_s / alone_s:.2f} ×"
    print(f"| {form} | {len(edits)} | {len(prompts)} | {times} | {floor:.2f} × |", flush=True)


def prefills() -> None:
    """Time the layers of the dense model and of sliced edits in turn, and print how much of the promised speed-up each reaches.

    Within a round an edit stands between two dense passes, so that what slows the machine for a while slows both; the ratio is the median
    over rounds.
    """
    import torch

    from vlm_analysis import Edit, VisionScan, apply_edit, early_exit, freeze, late_entry
    from vlm_analysis.evaluation.run.shapes import attention_of
    from vlm_analysis.models.layers import layer_info, layer_parameters

    model, inputs = wide_model()
    info = replace(layer_info(model), layer_parameters=layer_parameters(model))
    about = dict(zip(("attention_size", "kv_parameters"), attention_of(model), strict=True))
    scan = VisionScan(info, "", None, n_vision=N_VISION, n_text=N_TEXT, **about)  # type: ignore[arg-type]
    how = {"form": "sliced"}
    edits = {
        "early exit at 2": early_exit(N_LAYERS, 2, **how),  # type: ignore[arg-type]
        "early exit at 4": early_exit(N_LAYERS, 4, **how),  # type: ignore[arg-type]
        "late entry at 3": late_entry(N_LAYERS, 3, **how),  # type: ignore[arg-type]
        "frozen 2-5": freeze(N_LAYERS, range(2, N_LAYERS), **how),  # type: ignore[arg-type]
    }
    dense = apply_edit(model, Edit(N_LAYERS))
    print(
        f"\n{N_LAYERS} layers of Qwen3-VL-2B, {N_VISION} vision tokens and {N_TEXT} of text; {torch.get_num_threads()} threads"
    )
    print("\n| edit, sliced | dense, ms | edited, ms | times as fast | promised by FLOPs | reached |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for name, edit in edits.items():
        view, ratios, times = apply_edit(model, edit), [], []
        for turn in range(ROUNDS + 1):
            before, edited, after = (layers_s(one, inputs) for one in (dense, view, dense))
            if turn:  # the first round warms up
                ratios.append((before + after) / 2 / edited)
                times.append(((before + after) / 2, edited))
        speed, promised = statistics.median(ratios), 1 / scan.flops_share(edit)
        dense_ms, edited_ms = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
        print(
            f"| {name} | {dense_ms:.0f} | {edited_ms:.0f} | {speed:.2f} × | {promised:.2f} × | {speed / promised:.2f} |",
            flush=True,
        )


def layers_s(model: Any, inputs: dict[str, Any]) -> float:
    """Return the seconds of processor time that the layers of a prefill with a cache take: vision tower and head are left out."""
    import torch

    from vlm_analysis.models.layers import find_decoder_layers

    layers, spent, start = find_decoder_layers(model), [0.0], [0.0]

    def begin(*_: Any) -> None:
        start[0] = time.process_time()

    def end(*_: Any) -> None:
        spent[0] += time.process_time() - start[0]

    hooks = [
        hook for layer in layers for hook in (layer.register_forward_pre_hook(begin), layer.register_forward_hook(end))
    ]
    with torch.inference_mode():
        model(**inputs, use_cache=True, logits_to_keep=1)
    for hook in hooks:
        hook.remove()
    return spent[0]


def wide_model() -> tuple[Any, dict[str, Any]]:
    """Return a model of the bundled one's class with random layers as wide as those of 2B, and a prompt with noise for a picture."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    from vlm_analysis.models.source import BUNDLED_FOLDER

    config = AutoConfig.from_pretrained(BUNDLED_FOLDER)
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 2048, 6144, N_LAYERS
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 16, 8, 128
    text.rope_parameters = text.rope_parameters | {"mrope_section": [24, 20, 20]}
    config.vision_config.out_hidden_size, config.vision_config.num_position_embeddings = 2048, 2304
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config).eval()
    side = 2 * int(N_VISION**0.5)  # patches; four of them make a token
    vision = config.vision_config
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    ids = torch.tensor([[config.vision_start_token_id, *[config.image_token_id] * N_VISION, *[70] * (N_TEXT - 1)]])
    return model, {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == config.image_token_id).long(),
        "pixel_values": torch.randn(side * side, patch),
        "image_grid_thw": torch.tensor([[1, side, side]]),
    }


def main(part: str = "") -> None:
    from vlm_analysis import load_model, open_prompts

    if part == "prefill":
        prefills()
        return
    loaded = load_model()
    prompts = open_prompts("math") + open_prompts("general")
    print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}; processor time\n")
    print("| form | edits | prompts | by itself, s | scan, s | ratio | floor |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for form in ("masked", "sliced"):
        scan_ratio(loaded, prompts, form)
    prefills()


if __name__ == "__main__":
    main(*sys.argv[1:])
