"""The file of an unfinished fine-tuning, from which it goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlm_analysis.errors import EditError
from vlm_analysis.files import advice_for, read_bytes, write_atomically

FILE = "tuning.safetensors"
MOST_BYTES = 64 << 30
MOST_HEADER = 100 << 20


@dataclass(frozen=True)
class Kept:
    """Where a fine-tuning was.

    Attributes:
        about: step, curve and the like, as JSON values.
        tensors: by "now/NAME", "best/NAME", "first/NAME" and "second/NAME" the factors, the best so far, and AdamW's two means.
    """

    about: dict[str, Any]
    tensors: dict[str, torch.Tensor]


def keep(folder: Path, key: str, kept: Kept) -> None:
    """Write the file, whole or not at all; `key` names the work that it is of.

    Raises:
        EditError: the folder cannot be written.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in kept.tensors.items()}
    content = save(tensors, {"key": key, "about": json.dumps(kept.about)})
    try:
        write_atomically(folder / FILE, lambda part: part.write_bytes(content))
    except OSError as error:
        raise EditError(
            f"The fine-tuning cannot be kept: expected a folder to write in, got {error.strerror or error} at {folder}. "
            f"{advice_for(error)}. What was kept before stays."
        ) from error


def open_kept(folder: Path, key: str, shapes: Mapping[str, tuple[int, ...]]) -> Kept | None:
    """Return what the file holds; None where there is none, it is damaged, or of other work.

    Args:
        folder: of the file.
        key: as it was written.
        shapes: of the tensors that it must hold; "best/" tensors are all there or none is.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        path = folder / FILE
        content = read_bytes(path, min(path.stat().st_size, MOST_BYTES))
        length = int.from_bytes(content[:8], "little")
        said = json.loads(content[8 : 8 + min(length, MOST_HEADER)])["__metadata__"]
        tensors = load(content)
        about = json.loads(said["about"])
        if said["key"] != key or not isinstance(about, dict):
            return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError):
        return None
    fits = {name: tuple(tensor.shape) for name, tensor in tensors.items()} in (
        dict(shapes),
        {name: shape for name, shape in shapes.items() if not name.startswith("best/")},
    )
    is_whole = fits and all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in tensors.values())
    return Kept(about, tensors) if is_whole else None
