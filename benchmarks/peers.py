"""Strata beside what a researcher would write or run without it, on the bundled model: recording, many masks, and another harness.

    python -m benchmarks.peers              # all three, some seven minutes of processor time on one thread
    python -m benchmarks.peers recording    # or: masks, harness

**Recording**: the usual script, written here, loops over prompts, keeps the states of `output_hidden_states=True`, and takes the cosine
of consecutive ones. **Masks**: for each mask a copy of the model without its layers, and a fresh full pass of each prompt. **Harness**: an
exported edit in lm-evaluation-harness (`lm_eval`, model type `hf-multimodal`), which must give Strata's exact match prompt by prompt; it
runs where `lm_eval` is importable. Times are processor time of one thread, so that other work on the machine changes them less; each way
runs in a process of its own, from the loaded model to its numbers, and its memory is what it adds to the resident size at its peak.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.record import peak_kib, prompts_for

COUNTS = (20, 200, 2000)  # prompts to record
MASKS, ASKED = (10, 100, 500), 20  # masks to evaluate, and on how many prompts
MOST_DROPPED = 6
HARNESS_DROPS = (5, 9)
INSTALL = "lm_eval is not importable here: install requirements-slow.txt (pip install lm_eval==0.4.13)."
# Without torchvision, transformers builds no processor with a video part; the harness gets Strata's, which is the model's own without it.
HARNESS = """
import sys, transformers
from importlib.util import find_spec
if find_spec("torchvision") is None:
    from vlm_analysis.models.processors import load_processor
    def built(where, **_):
        return load_processor(where, transformers.AutoConfig.from_pretrained(where), {})
    transformers.AutoProcessor.from_pretrained = built
from lm_eval.__main__ import cli_evaluate
sys.exit(cli_evaluate())
"""


def chat(prompt: Any) -> list[dict[str, Any]]:
    """Return a prompt as messages of a chat template."""
    images: list[dict[str, Any]] = [{"type": "image"} for _ in prompt.load_images()]
    return [{"role": "user", "content": [*images, {"type": "text", "text": prompt.question}]}]


def prepared(loaded: Any, prompt: Any) -> Any:
    """Return the inputs of a prompt as a script makes them: template, then processor."""
    text = loaded.processor.apply_chat_template(chat(prompt), add_generation_prompt=True)
    return loaded.processor(text=[text], images=list(prompt.load_images()), return_tensors="pt")


# --- recording ------------------------------------------------------------------------------------------------------


def usual_recording(loaded: Any, prompts: Sequence[Any]) -> list[float]:
    """Return the mean cosine of each layer's neighbouring states, as scripts compute it: all states first, then the numbers."""
    import torch

    kept = []
    with torch.no_grad():
        for prompt in prompts:
            kept.append(loaded.model(**prepared(loaded, prompt), output_hidden_states=True).hidden_states)
    means = []
    for layer in range(loaded.n_layers):
        pairs = [(states[layer], states[layer + 1]) for states in kept]
        each = [torch.nn.functional.cosine_similarity(one, two, dim=-1).mean().item() for one, two in pairs]
        means.append(sum(each) / len(each))
    return means


def strata_recording(loaded: Any, prompts: Sequence[Any], *, full: bool) -> list[float]:
    from vlm_analysis import record

    return record(loaded, prompts, full=full, folder=Path(tempfile.mkdtemp())).layer_similarity().tolist()


RECORDINGS: dict[str, Callable[[Any, Any], list[float]]] = {
    "usual script": usual_recording,
    "record, cosines and spans": lambda loaded, prompts: strata_recording(loaded, prompts, full=False),
    "record, all measures": lambda loaded, prompts: strata_recording(loaded, prompts, full=True),
}


def one_recording(way: str, count: int) -> dict[str, Any]:
    """Return the seconds of processor time, the MiB added at the peak, and the numbers of one way; call it in a fresh process."""
    from vlm_analysis import load_model

    loaded, prompts = load_model(), prompts_for("pocket-vl", count)
    assert prompts.fingerprint  # pictures and hashes belong to the caller
    RECORDINGS[way](loaded, prompts[:1])
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, begun = peak_kib(), time.process_time()
    numbers = RECORDINGS[way](loaded, prompts)
    return {"s": time.process_time() - begun, "mib": (peak_kib() - before) / 1024, "numbers": numbers}


def recording() -> None:
    """Print both ways at each number of prompts, where they agree, and where the usual one is of something else."""
    print("\n| prompts | way | processor, s | over the usual | peak above, MiB | share of the usual |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |", flush=True)
    found: dict[str, dict[str, Any]] = {}
    for count in COUNTS:
        found = {way: fresh("--recording", way, str(count)) for way in RECORDINGS}
        usual = found["usual script"]
        for way, one in found.items():
            ratios = f"{one['s'] / usual['s']:.2f} × | {one['mib']:,.0f} | {one['mib'] / usual['mib']:.2f}"
            print(f"| {count} | {way} | {one['s']:.1f} | {ratios} |", flush=True)
    numbers = zip(*(one["numbers"] for one in found.values()), strict=True)
    print_agreement([max(abs(one - usual) for one in others) for usual, *others in numbers])


def print_agreement(away: Sequence[float]) -> None:
    """Print by how much the numbers of a layer differ, layers where they are the same apart from those where they are not."""
    same = {layer: one for layer, one in enumerate(away) if one < 1e-5}
    other = {layer: one for layer, one in enumerate(away) if one >= 1e-5}
    print(f"\nBoth agree in layers {', '.join(map(str, same))}: at most {max(same.values()):.1e} apart.")
    for layer, one in other.items():
        print(
            f"Layer {layer}: {one:.4f} apart, as the usual script's states are not the input and output of the layer there."
        )


# --- many masks -----------------------------------------------------------------------------------------------------


def masks_of(loaded: Any, count: int) -> list[Any]:
    """Return different masks of drawn layers, none of which stays."""
    import numpy as np

    from vlm_analysis import PruneMask

    rng, made = np.random.default_rng(0), {}
    free = [layer for layer in range(loaded.n_layers) if layer not in {*loaded.protected_layers, *loaded.locked_layers}]
    while len(made) < count:
        mask = PruneMask(loaded.n_layers, rng.choice(free, rng.integers(1, MOST_DROPPED + 1), replace=False).tolist())
        made[mask.key] = mask
    return list(made.values())


def cut_copy(loaded: Any, dropped: Sequence[int]) -> Any:
    """Return a copy of the model without some layers, as a script cuts it."""
    import torch

    model = copy.deepcopy(loaded.model)
    text = model.model.language_model
    kept: list[Any] = [layer for number, layer in enumerate(text.layers) if number not in dropped]
    for number, layer in enumerate(kept):
        layer.self_attn.layer_idx = number
    text.layers = torch.nn.ModuleList(kept)
    model.config.text_config.num_hidden_layers = len(kept)
    return model


def one_at_a_time(loaded: Any, prompts: Sequence[Any], masks: Sequence[Any]) -> list[list[tuple[bool, float]]]:
    """Return for each mask and prompt whether all argmaxes are the answer's tokens, and their mean NLL, by a full pass each."""
    import torch

    end = loaded.model.generation_config.eos_token_id
    end = end[0] if isinstance(end, list) else end
    scores = []
    with torch.no_grad():
        for mask in masks:
            model = cut_copy(loaded, mask.dropped)
            row = []
            for prompt in prompts:
                inputs = dict(prepared(loaded, prompt))
                answer = torch.tensor([[*loaded.processor.tokenizer(prompt.answer)["input_ids"], end]])
                asked = inputs["input_ids"].shape[1]
                for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
                    if name in inputs:
                        more = answer if name == "input_ids" else torch.full_like(answer, name == "attention_mask")
                        inputs[name] = torch.cat([inputs[name], more.to(inputs[name].dtype)], dim=1)
                logits = model(**inputs, use_cache=False).logits[0, asked - 1 : -1]
                nll = torch.nn.functional.cross_entropy(logits, answer[0]).item()
                row.append((bool((logits.argmax(-1) == answer[0]).all()), nll))
            scores.append(row)
    return scores


def in_a_sweep(loaded: Any, prompts: Any, masks: Sequence[Any]) -> list[list[tuple[bool, float]]]:
    from vlm_analysis import sweep

    tables = [one.by_prompt for one in sweep(loaded, prompts, masks)]
    return [[*zip(table["exact_match"].tolist(), table["answer_nll"].tolist(), strict=True)] for table in tables]


WAYS: dict[str, Callable[[Any, Any, Any], list[list[tuple[bool, float]]]]] = {
    "one at a time": one_at_a_time,
    "sweep": in_a_sweep,
}


def one_evaluating(way: str, count: int) -> dict[str, Any]:
    """Return the seconds of processor time and the scores of one way; call it in a fresh process."""
    from vlm_analysis import load_model

    loaded, prompts = load_model(), prompts_for("pocket-vl", ASKED)
    masks = masks_of(loaded, count)
    WAYS[way](loaded, prompts[:1], masks[:1])
    begun = time.process_time()
    numbers = WAYS[way](loaded, prompts, masks)
    return {"s": time.process_time() - begun, "numbers": numbers}


def many_masks() -> None:
    """Print both ways at each number of masks, and how far their scores are apart."""
    print(f"\n{ASKED} prompts; each mask drops 1 to {MOST_DROPPED} of the layers that may go.\n")
    print("| masks | one at a time, s | sweep, s | times as fast | equal exact matches | NLL apart, at most |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for count in MASKS:
        alone, swept = (fresh("--evaluating", way, str(count)) for way in WAYS)
        pairs = [
            pair for rows in zip(alone["numbers"], swept["numbers"], strict=True) for pair in zip(*rows, strict=True)
        ]
        same = sum(one[0] == two[0] for one, two in pairs)
        apart = max(abs(one[1] - two[1]) for one, two in pairs)
        times = f"{alone['s']:.1f} | {swept['s']:.1f} | {alone['s'] / swept['s']:.1f} ×"
        print(f"| {count} | {times} | {same} of {len(pairs)} | {apart:.1e} |", flush=True)


# --- another harness ------------------------------------------------------------------------------------------------


def harness() -> None:
    """Print whether the harness scores an exported edit as Strata does, prompt by prompt, and the processor time of both."""
    if find_spec("lm_eval") is None:
        print(f"\n{INSTALL}")
        return
    from vlm_analysis import PruneMask, evaluate, export_checkpoint, export_task, load_model, open_prompts

    loaded, prompts = load_model(), open_prompts("general-report") + open_prompts("math-report")
    mask = PruneMask(loaded.n_layers, HARNESS_DROPS)
    with tempfile.TemporaryDirectory() as scratch:
        pruned = Path(scratch) / "pruned"
        export_checkpoint(loaded, mask, pruned)
        evaluate(loaded, prompts[:2], mask)  # warms up
        begun = time.process_time()
        table = evaluate(loaded, prompts, mask).by_prompt
        own_s = time.process_time() - begun
        task = export_task(prompts, Path(scratch) / "task", edited=str(pruned), dtype="float32")
        begun = sum(os.times()[2:4])  # of processes that have ended
        theirs = run_harness(task.commands[2], Path(scratch))
        harness_s = sum(os.times()[2:4]) - begun
    ours = dict(zip(table["id"].tolist(), table["exact_match"].tolist(), strict=True))
    same = sum(bool(theirs[name]) == right for name, right in ours.items())
    means = [sum(scores.values()) / len(scores) for scores in (ours, theirs)]
    print(f"\nWithout layers {HARNESS_DROPS}: exact match {means[0]:.3f} in Strata, {means[1]:.3f} in lm_eval.")
    print(f"Equal prompt by prompt: {same} of {len(ours)}.")
    print(
        f"Processor time: lm_eval {harness_s:.0f} s, its start among them, evaluate {own_s:.1f} s: {harness_s / own_s:.0f} ×."
    )
    assert same == len(ours) == len(theirs)


def run_harness(line: str, scratch: Path) -> dict[str, float]:
    """Run a line of an exported task, and return the exact match of each prompt by its id."""
    _, folder, _, _, *words = shlex.split(line)
    environment = os.environ | {"HF_HOME": str(scratch / "hub"), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parents[1]), *sys.path[1:]])
    command = [sys.executable, "-c", HARNESS, *words, "--device", "cpu"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"lm_eval failed:\n{done.stderr[-3000:]}")
    (samples,) = Path(folder, words[words.index("--output_path") + 1]).rglob("samples_*.jsonl")
    rows = [json.loads(row) for row in samples.read_text("utf-8").splitlines()]
    return {row["doc"]["id"]: row["exact_match"] for row in rows}


def fresh(*arguments: str) -> dict[str, Any]:
    """Run one way in a process of its own, on one thread; returns what it found."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", __spec__.name, *arguments]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


PARTS = {"recording": recording, "masks": many_masks, "harness": harness}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all without any")
    parser.add_argument("--recording", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--evaluating", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for asked, one in ((arguments.recording, one_recording), (arguments.evaluating, one_evaluating)):
        if asked:
            print(json.dumps(one(asked[0], int(asked[1]))))
            return
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"expected {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, one thread, load {os.getloadavg()[0]:.1f}"
    )
    for name, part in PARTS.items():
        if not arguments.parts or name in arguments.parts:
            part()


if __name__ == "__main__":
    main()
