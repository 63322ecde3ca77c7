"""The proof of an export: a fresh process loads the written folder with plain transformers, and both models answer the same prompt.

Logits and greedy answer must be equal to the last bit. On a CPU this needs equal alignment of the weights in memory (`models.aligned`)
and equal numbers of threads; the fresh process uses the same device, precision, attention and threads.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vlm_analysis.assets import IMPORT_ROOT
from vlm_analysis.errors import ExportError
from vlm_analysis.export.reload import OUT_OF_MEMORY, outputs
from vlm_analysis.models.decoding import decode
from vlm_analysis.models.inputs import encode, pad_token
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.offload import is_offloaded
from vlm_analysis.progress import Progress
from vlm_analysis.prompts.prompts import Prompt

MAX_NEW_TOKENS = 16
_PROBE_SEED = 0
_LOOK_EVERY_S = 0.1
_LOG_TAIL = 600  # characters


@dataclass(frozen=True)
class Proof:
    """The outputs that were compared and are equal.

    Attributes:
        probe_tokens, vocabulary: shape of the compared logits of the test prompt.
        generated_answer, reloaded_answer: the greedy answer of the evaluated model and of the fresh process.
        generated_tokens: number of its tokens, at most `MAX_NEW_TOKENS`.
        versions: of python, torch and transformers in the fresh process.
    """

    probe_tokens: int
    vocabulary: int
    generated_answer: str
    reloaded_answer: str
    generated_tokens: int
    versions: dict[str, str]


def probe_prompt() -> Prompt:
    """Return the fixed prompt that exports are compared on: an image of noise."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(_PROBE_SEED).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Prompt((Image.fromarray(pixels),), "describe the picture.", id="probe")


def prove(loaded: LoadedModel, view: Any, folder: Path, progress: Progress) -> Proof:
    """Compare the evaluated view with the folder, loaded in a fresh process.

    While that process runs, this one still holds the dense model: both need memory, on the same device.

    Args:
        loaded: the dense model.
        view: the pruned view that was evaluated.
        folder: the checkpoint as written; files for the exchange are written beside it and removed.
        progress: called several times a second; an exception in it ends the process.

    Raises:
        ExportError: the fresh process failed, or logits or answer differ.
    """
    inputs = encode(loaded, probe_prompt()).tensors
    how = {"max_new_tokens": MAX_NEW_TOKENS, "pad_token": pad_token(loaded)}
    logits, tokens = (tensor.cpu() for tensor in outputs(view, inputs, **how))
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=folder.stem + "-", suffix=folder.suffix) as name:
        task, answer = Path(name) / "task.safetensors", Path(name) / "answer.safetensors"
        settings = json.dumps(how | _surroundings(loaded, view))
        save_file({key: value.cpu().contiguous() for key, value in inputs.items()}, task, metadata={"how": settings})
        _run(folder, task, answer, progress)
        with safe_open(answer, framework="pt") as file:
            reloaded_logits, reloaded_tokens, versions = (
                file.get_tensor("logits"),
                file.get_tensor("tokens"),
                dict(file.metadata()),
            )
    _check("logits", reloaded_logits, logits)
    _check("generated answer", reloaded_tokens, tokens)
    return Proof(
        probe_tokens=logits.shape[1],
        vocabulary=logits.shape[2],
        generated_answer=decode(loaded, tokens.tolist()),
        reloaded_answer=decode(loaded, reloaded_tokens.tolist()),
        generated_tokens=len(tokens),
        versions=versions,
    )


def _surroundings(loaded: LoadedModel, view: Any) -> dict[str, Any]:
    spread = getattr(view, "hf_device_map", None) if is_offloaded(view) or len(loaded.places) > 1 else None
    return {
        "device_map": spread,
        "device": str(loaded.device),
        "dtype": loaded.dtype,
        "attention": _attention(loaded.model.config),
        "threads": torch.get_num_threads(),
        "matmul": torch.get_float32_matmul_precision(),
    }


def _attention(config: Any) -> dict[str, Any]:
    """Return the attention implementation by part of the model; parts can differ where one does not support it."""
    parts = {name: getattr(config, name, None) for name in config.sub_configs}
    return {"": config._attn_implementation} | {
        name: part._attn_implementation for name, part in parts.items() if part is not None
    }


def _check(what: str, reloaded: torch.Tensor, expected: torch.Tensor) -> None:
    if reloaded.shape != expected.shape or reloaded.dtype != expected.dtype or not torch.equal(reloaded, expected):
        raise ExportError(
            f"The exported checkpoint is not the evaluated model: its {what} differ in a fresh process. "
            "Nothing was written. Please report it."
        )


def _run(folder: Path, task: Path, answer: Path, progress: Progress) -> None:
    """Run the fresh process to its end, without a time limit; it is killed when `progress` raises."""
    log = task.with_name("log")
    paths = [str(IMPORT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-P", "-m", "vlm_analysis.export.reload", str(folder), str(task), str(answer)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None:
                progress(2, 4, "loading it in a fresh process to compare")
                try:
                    process.wait(_LOOK_EVERY_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
    if process.returncode:
        raise ExportError(_failure(process.returncode, log.read_text("utf-8", errors="replace")))


def _failure(code: int, log: str) -> str:
    what = "The exported checkpoint could not be checked: expected a fresh process to load it"
    if code in (OUT_OF_MEMORY, -signal.SIGKILL):
        return (
            f"{what}, got no memory for it beside the loaded model. Nothing was written. Free memory and try again, or export "
            "without the check: `verify=False` in the library."
        )
    ended = f"signal {-code}" if code < 0 else f"status {code}"
    tail = " ".join(log.split("\n  ")[-1].split())[-_LOG_TAIL:] or "it said nothing"
    return f"{what}, got its end with {ended}. Nothing was written. Please report its last words: {tail}"
