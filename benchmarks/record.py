"""The cost of recording over a bare forward pass of the same prompts, and how its memory grows with their number.

    python -m benchmarks.record            # times, on Pocket-VL and on a random-weight model of Qwen3-VL-2B's shape
    python -m benchmarks.record --memory   # peak memory at 20, 200 and 2000 prompts (Pocket-VL), 1 and 4 (large shape)
    python -m benchmarks.record --small    # without the large shape

The bare pass returns one logit (`logits_to_keep=1`). The usual way keeps every hidden state (`output_hidden_states`) and takes cosines
of neighbours afterwards. Both prepare inputs as recording does. The ways take turns; ratios are of their best rounds.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODELS = {"pocket-vl": (90, 5), "2b-shape": (2, 3)}  # prompts and rounds
MEMORY = {"pocket-vl": (20, 200, 2000), "2b-shape": (1, 4)}


LARGE = (  # Qwen3-VL-2B's shape, with the vocabulary of the bundled model
    {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16}
    | {"num_key_value_heads": 8, "head_dim": 128, "mrope_section": [24, 20, 20]},
    {"hidden_size": 1024, "depth": 24, "num_heads": 16, "intermediate_size": 4096, "out_hidden_size": 2048}
    | {"deepstack_visual_indexes": [5, 11, 17]},
)


def large_shape(folder: Path) -> Path:
    """Save a random-weight model of Qwen3-VL-2B's shape (vocabulary of the bundled model) with the bundled processor."""
    return random_model(folder, *LARGE, "bfloat16")


def random_model(folder: Path, text: dict[str, Any], vision: dict[str, Any], dtype: str, **how: Any) -> Path:
    """Save a model of random weights, the bundled one in other sizes, with the bundled processor.

    `text` and `vision` are values of the configuration of decoder and vision encoder; `how` goes to `save_pretrained`.
    """
    import json
    import shutil

    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    from vlm_analysis.models.source import BUNDLED_FOLDER

    shutil.copytree(BUNDLED_FOLDER, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    sizes = {name: value for name, value in text.items() if name != "mrope_section"}
    rope = config["text_config"].get("rope_parameters", {}) | {"mrope_section": text["mrope_section"]}
    config["text_config"] |= {**sizes, "rope_parameters": rope}
    config["vision_config"] |= vision
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    made = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder), dtype=getattr(torch, dtype))
    made.save_pretrained(folder, **how)
    return folder


def load(name: str, folder: Path) -> Any:
    from vlm_analysis import load_model

    return load_model() if name == "pocket-vl" else load_model(folder, dtype="float32")


def prompts_for(name: str, count: int) -> Any:
    """Return bundled prompts with new ids; for the large shape their images are scaled up to 256 vision tokens."""
    from PIL import Image

    from vlm_analysis import Prompt, PromptSet, open_prompts

    packs = [*open_prompts("general"), *open_prompts("math")]
    sampled = []
    for number in range(count):
        prompt = packs[number % len(packs)]
        images = prompt.load_images()
        if name != "pocket-vl":
            images = tuple(image.resize((1024, 1024), Image.Resampling.NEAREST) for image in images)
        sampled.append(Prompt(images, prompt.question, prompt.domain, str(number), prompt.answer))
    return PromptSet(sampled)


def ways(loaded: Any, prompts: Any) -> dict[str, Callable[[], object]]:
    """Return the ways to compare, by name: each call prepares the inputs and runs every prompt once."""
    import torch

    from vlm_analysis import record
    from vlm_analysis.models.inputs import answer_tokens, collate, encode, pad_token

    def passes(use: Callable[[Any], object], **options: Any) -> None:
        with torch.inference_mode():
            for prompt in prompts:
                batch = collate([encode(loaded, prompt, answer_tokens(loaded, prompt.answer))], pad_token(loaded))
                use(loaded.model(**batch, use_cache=False, logits_to_keep=1, **options))

    def neighbours(output: Any) -> list[float]:
        states = [state.float() for state in output.hidden_states]
        return [
            float(torch.nn.functional.cosine_similarity(one, two, dim=-1).mean())
            for one, two in itertools.pairwise(states)
        ]

    return {
        "bare forward pass": lambda: passes(lambda output: None),
        "usual way, all states kept": lambda: passes(neighbours, output_hidden_states=True),
        "cosine of all groups and spans": lambda: record(loaded, prompts, full=False),
        "everything but attention maps": lambda: record(loaded, prompts),
        "everything": lambda: record(loaded, prompts, attention=True, token_maps=True),
    }


def time_model(name: str, folder: Path) -> None:
    count, rounds = MODELS[name]
    loaded, prompts = load(name, folder), prompts_for(name, count)
    calls = ways(loaded, prompts)
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds + 1):  # the first round warms up, and counts only if it is the best
        for way, call in calls.items():
            gc.collect()
            started = time.perf_counter()
            call()
            best[way] = min(best[way], time.perf_counter() - started)
    bare = best["bare forward pass"]
    print(
        f"\n{name}: {loaded.n_parameters / 1e6:,.1f} M parameters, {count} prompts, best of {rounds + 1} rounds in turn\n"
    )
    print("| way | s | over the bare pass |\n| --- | ---: | ---: |")
    for way, seconds in best.items():
        print(f"| {way} | {seconds:.2f} | {seconds / bare:.2f} × |", flush=True)


def peak_memory(name: str, count: int, folder: Path) -> None:
    """Print the memory that recording adds to a process that has loaded the model and recorded one prompt."""
    from vlm_analysis import record

    loaded = load(name, folder)
    prompts = prompts_for(name, count)  # images and hashes belong to the caller, so they are in memory before
    assert prompts.fingerprint
    record(loaded, prompts[:1])
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = peak_kib()
    record(loaded, prompts, folder=Path(tempfile.mkdtemp(dir=folder.parent)))
    after = peak_kib()
    print(f"| {name} | {count} | {before / 1024:,.0f} | {(after - before) / 1024:,.0f} |", flush=True)


def peak_kib() -> int:
    """Return the largest resident size of this process, in KiB; getrusage would include that of the parent process."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "PROMPTS", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        peak_memory(arguments.one[0], int(arguments.one[1]), Path(arguments.one[2]))
        return
    names = ["pocket-vl"] if arguments.small else list(MODELS)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "2b-shape"
        if "2b-shape" in names:
            large_shape(folder)
        print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}")
        if not arguments.memory:
            for name in names:
                time_model(name, folder)
            return
        print(
            "\n| model | prompts | resident before, MiB | peak above it, MiB |\n| --- | ---: | ---: | ---: |",
            flush=True,
        )
        for name in names:
            for count in MEMORY[name]:
                subprocess.run(
                    [sys.executable, "-m", __spec__.name, "--one", name, str(count), str(folder)], check=True
                )


if __name__ == "__main__":
    main()
