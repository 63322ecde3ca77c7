"""Exporting a pruned model as an ordinary transformers checkpoint, proved equal to what was evaluated.

The folder is written under a temporary name, reloaded by plain transformers, compared bit for bit, and only then renamed;
a kill or a full disk leaves no half checkpoint under the final name.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText

from vlm_analysis.errors import ExportError
from vlm_analysis.inputs import encode
from vlm_analysis.masks import PruneMask, mask_to_json
from vlm_analysis.models import LoadedModel, aligned
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts import Prompt
from vlm_analysis.prune import prune

MASK_FILE, MANIFEST_FILE = "strata-mask.json", "strata-manifest.json"
_PROCESSOR_FILES = (
    "*processor_config.json",
    "preprocessor_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "chat_template*",
    "*.tiktoken",
    "spiece.model",
)
_PROBE_SEED = 0
PART = ".part"


@dataclass(frozen=True)
class Manifest:
    """What was exported and how it was checked; written to the folder as `strata-manifest.json`.

    Attributes:
        verified: whether a fresh `from_pretrained` gave the logits of the evaluated model, bit for bit, on `probe_tokens` tokens.
        files: sha256 of every file by name.
    """

    source: str
    source_fingerprint: str
    dropped: tuple[int, ...]
    n_layers_before: int
    n_layers_after: int
    parameters_before: int
    parameters_after: int
    verified: bool
    probe_tokens: int
    transformers_version: str
    written: str
    files: dict[str, str]


def export_checkpoint(
    loaded: LoadedModel,
    mask: PruneMask,
    folder: Path,
    *,
    verify: bool = True,
    on_progress: Progress | None = None,
) -> Manifest:
    """Write the pruned model to `folder` so that plain transformers loads it, and prove that it is the evaluated one.

    Args:
        loaded: the dense model.
        mask: the layers to leave out.
        folder: a new or empty folder.
        verify: reload the written checkpoint and compare its logits with the pruned view's, bit for bit.
        on_progress: told of the stages; raising `Cancelled` in it stops the work and leaves nothing behind.

    Raises:
        ExportError: the folder is not empty or cannot be written, or the reloaded model differs.
        MaskError: the mask does not fit the model.
    """
    report = on_progress or no_progress
    folder = _checked_target(Path(folder))
    report(0, 4, "pruning")
    view = prune(loaded.model, mask)
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}{PART}")
    try:
        part.mkdir(parents=True)
        report(1, 4, "writing weights")
        view.save_pretrained(part, safe_serialization=True)
        _copy_processor(loaded, part)
        report(2, 4, "reloading to verify")
        tokens = _verify(loaded, view, part) if verify else 0
        report(3, 4, "writing the manifest")
        manifest = _write_notes(loaded, view, mask, part, tokens)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except (OSError, SafetensorError) as error:
        raise ExportError(_disk_message(folder, error)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    report(4, 4, "exported")
    return manifest


def _checked_target(folder: Path) -> Path:
    """Return the folder to write, and tidy what a killed export to it left beside it."""
    try:
        folder = folder.expanduser().absolute()
        os.fsencode(folder).decode()  # half a character or a zero byte is no name
        if "\0" in str(folder):
            raise ValueError("the name holds a zero byte")
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        for left_over in folder.parent.glob(f".{glob.escape(folder.name)}.*{PART}"):
            shutil.rmtree(left_over, ignore_errors=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise ExportError(f"{str(folder)!r} cannot be exported to: {error}. Choose another folder.") from error
    if taken:
        raise ExportError(
            f"{folder} cannot be exported to: expected a new or empty folder, got one that holds something. Choose another."
        )
    return folder


def _copy_processor(loaded: LoadedModel, target: Path) -> None:
    """Copy the source's processor files unchanged: saved anew they could name a class that plain transformers does not know."""
    source = Path(loaded.source)
    if not source.is_dir():
        from huggingface_hub import snapshot_download

        source = Path(snapshot_download(loaded.source, revision=loaded.revision, allow_patterns=list(_PROCESSOR_FILES)))
    for pattern in _PROCESSOR_FILES:
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, target / path.name)


@torch.inference_mode()
def _verify(loaded: LoadedModel, view: Any, folder: Path) -> int:
    """Return how many tokens were compared; raises ExportError where one logit differs in one bit."""
    reloaded = AutoModelForImageTextToText.from_pretrained(
        folder,
        dtype=loaded.model.dtype,
        use_safetensors=True,
        local_files_only=True,
        attn_implementation=_attention(loaded.model),
    )
    reloaded = aligned(reloaded.to(loaded.device).eval())
    inputs = encode(loaded, probe_prompt()).tensors
    expected = view(**inputs, use_cache=False).logits
    got = reloaded(**inputs, use_cache=False).logits
    if expected.shape != got.shape or not torch.equal(expected, got):
        raise ExportError(
            "The exported checkpoint is not the evaluated model: its logits differ after reloading. Nothing was written. Please report it."
        )
    return int(expected.shape[1])


def _attention(model: Any) -> str:
    return str(model.config._attn_implementation)


def probe_prompt() -> Prompt:
    """Return the fixed prompt that exports are compared on: noise, so that no pixel is trivial."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(_PROBE_SEED).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Prompt((Image.fromarray(pixels),), "describe the picture.", id="probe")


def _write_notes(loaded: LoadedModel, view: Any, mask: PruneMask, folder: Path, probe_tokens: int) -> Manifest:
    (folder / MASK_FILE).write_text(mask_to_json(mask), "utf-8")
    (folder / "README.md").write_text(_model_card(loaded, mask), "utf-8")
    manifest = Manifest(
        source=loaded.name,
        source_fingerprint=loaded.fingerprint,
        dropped=mask.dropped,
        n_layers_before=mask.n_layers,
        n_layers_after=len(mask.kept),
        parameters_before=loaded.n_parameters,
        parameters_after=_n_saved_parameters(view),
        verified=probe_tokens > 0,
        probe_tokens=probe_tokens,
        transformers_version=transformers.__version__,
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        files=dict(_hashes(sorted(folder.iterdir()))),
    )
    (folder / MANIFEST_FILE).write_text(json.dumps(asdict(manifest), indent=2) + "\n", "utf-8")
    return manifest


def _n_saved_parameters(view: Any) -> int:
    """Return how many parameters are saved: a view may share a weight of which it saves a part."""
    state = view.state_dict()
    return sum(state[name].numel() for name, _ in view.named_parameters())


def _hashes(paths: Iterable[Path]) -> Iterable[tuple[str, str]]:
    for path in paths:
        with path.open("rb") as file:
            yield path.name, hashlib.file_digest(file, "sha256").hexdigest()


def _model_card(loaded: LoadedModel, mask: PruneMask) -> str:
    name = " ".join(mask.name.replace("`", "'").split())
    notes = "".join(f"    {line}\n" for line in mask.notes.splitlines())  # indented: shown as text, never as markdown
    return (
        f"# {loaded.n_layers - mask.budget} of {mask.n_layers} decoder layers of a vision-language model\n\n"
        f"Made by Strata. Dropped layers, counted from 0: {', '.join(map(str, mask.dropped)) or 'none'}. "
        f"The weights of the kept layers are unchanged; nothing was trained afterwards.\n\n"
        f"- Source: `{loaded.name.replace('`', chr(39))}`, fingerprint `{loaded.fingerprint[:16]}`\n"
        f"- Mask: `{MASK_FILE}`{f', `{name}`' if name else ''}\n"
        f"- How it was checked: `{MANIFEST_FILE}`\n" + (f"\nNotes:\n\n{notes}" if notes else "")
    )


def _disk_message(folder: Path, error: OSError | SafetensorError) -> str:
    full = getattr(error, "errno", None) == errno.ENOSPC or f"os error {errno.ENOSPC}" in str(error)
    reason = "the disk is full" if full else getattr(error, "strerror", None) or str(error)
    advice = "Free some space or choose another folder" if full else "Choose another folder"
    return f"{folder} cannot be written: {reason}. {advice}; nothing half-written is left."
