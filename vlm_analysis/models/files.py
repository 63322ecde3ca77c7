"""Check the files of a checkpoint before a weight is read; errors name the defective file.

This needs no torch: a safetensors file starts with the length of a JSON header that says where each tensor ends.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlm_analysis.errors import ModelError, short
from vlm_analysis.files import opened, read_bytes
from vlm_analysis.guard.memory import JSON_COST, refuse_larger
from vlm_analysis.models.folders import other_kind

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
DOWNLOAD = "Download it again."
_LFS = b"version https://git-lfs"
_LARGEST_HEADER = 100_000_000  # bytes; the bound of safetensors itself
_BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}  # else the number in the name


def check_ordinary(folder: Path) -> None:
    """Raise ModelError where a file of a checkpoint is a pipe or a device, which would be read without end."""
    strange = [path.name for path in folder.iterdir() if path.exists() and not path.is_file() and not path.is_dir()]
    if strange:
        raise ModelError(
            f"{folder.name!r} cannot be read: expected ordinary files, got {strange[0][:80]!r}, a pipe or device. Take it out."
        )


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint, each checked to be present and complete.

    Raises:
        ModelError: there are none, the index is broken or leads out of the folder, a shard is missing, or a file is cut short.
    """
    if (folder / WEIGHTS).is_file():
        files = [folder / WEIGHTS]
    elif (folder / INDEX).is_file():
        files = _shards(folder)
    else:
        raise ModelError(_no_weights(folder))
    for path in files:
        read_header(path)
    return files


def stored_bytes(files: list[Path]) -> dict[str, int]:
    """Return the bytes of the tensors in safetensors files by the name of their type in safetensors ("BF16", "I8", …)."""
    sizes: dict[str, int] = {}
    for path in files:
        for entry in _entries(read_header(path)):
            sizes[entry["dtype"]] = sizes.get(entry["dtype"], 0) + entry["data_offsets"][1] - entry["data_offsets"][0]
    return sizes


def _no_weights(folder: Path) -> str:
    pickled = sorted(
        path.name for pattern in _PICKLED for path in folder.glob(pattern) if path.name != "training_args.bin"
    )
    if pickled:
        return (
            f"{folder.name!r} holds its weights pickled only: expected {WEIGHTS}, got {pickled[0]}. Opening a pickle can run "
            "any code, so only safetensors are read. Convert it where you trust it: load it with transformers and call "
            "save_pretrained."
        )
    if (other := other_kind(folder)) is not None:
        return other
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    surplus = f"; {others[0]} is no part of one" if others else ""
    return (
        f"{folder.name!r} has no weights: expected {WEIGHTS}, or {INDEX} with the files it names{surplus}. "
        "Download it again or save it with save_pretrained."
    )


def _shards(folder: Path) -> list[Path]:
    """Return the files that the index names, all directly in the folder."""
    where = f"The index {INDEX} of {folder.name!r} is broken"
    try:
        index = json.loads(read_bytes(folder / INDEX, _LARGEST_HEADER))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{where}: expected JSON, got {short(error)}. Download it again.") from error
    weights = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict) or not weights or not all(isinstance(name, str) for name in weights.values()):
        raise ModelError(f"{where}: expected a weight_map from weights to file names. Download it again.")
    names = sorted(set(weights.values()))
    for name in names:
        if name != Path(name).name or "\\" in name or "\0" in name or not name.endswith(".safetensors"):
            raise ModelError(
                f"{where}: expected names of safetensors files beside it, got {name[:80]!r}. Only take checkpoints from a "
                "source you trust."
            )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f"{folder.name!r} is incomplete: expected {len(names)} weight files, {missing[0]}{more} missing. "
            "Download them again."
        )
    return [folder / name for name in names]


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file, after checking the length of the file."""
    try:
        with opened(path) as file:
            if file.read(len(_LFS)) == _LFS:
                raise ModelError(
                    f"{path.name} is a pointer of Git LFS: expected weights, got the note where they are. Run 'git lfs pull' in its folder."
                )
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            refuse_larger(length, _LARGEST_HEADER, JSON_COST)
            header = json.loads(file.read(length)) if 2 <= length <= size else None
        ends = [0, *(_end(entry) for entry in _entries(header))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ModelError(f"{path.name} cannot be read as safetensors: {short(error)}. {DOWNLOAD}") from error
    if 8 + length + max(ends) > size:
        raise ModelError(
            f"{path.name} is cut short: expected {8 + length + max(ends):,} bytes, got {size:,}. {DOWNLOAD}"
        )
    return dict(header or {})


def _entries(header: Any) -> Iterator[dict[str, Any]]:
    if header is None:
        raise ValueError("its header is missing")
    return (entry for name, entry in header.items() if name != "__metadata__")


def _end(entry: dict[str, Any]) -> int:
    start, end = entry["data_offsets"]
    if not 0 <= start <= end or len(entry["shape"]) > 16 or min(entry["shape"], default=1) < 0:
        raise ValueError("a tensor has no valid position")
    bits = _BITS.get(entry["dtype"]) or int("".join(filter(str.isdigit, entry["dtype"].split("_")[0])))
    if math.prod(entry["shape"]) * bits != (end - start) * 8:
        raise ValueError("a tensor is not as large as its shape")
    return int(end)
