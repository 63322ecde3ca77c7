"""The kinds of folder that a model is given as: a checkpoint, the Hub's cache of one, an adapter, and those that are none.

For a folder that is no checkpoint the message says what it is, and the way out. This needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlm_analysis.errors import ModelError

CONFIG, ADAPTER = "config.json", "adapter_config.json"
_WHOLE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_HUB = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")
_MOST_LISTED = 5


@dataclass(frozen=True)
class Folder:
    """A folder that holds a checkpoint or an adapter.

    Attributes:
        path: of its files.
        name: name on screen: the Hub's id in the Hub's cache, else the folder's name.
        revision: the commit in the Hub's cache, else None.
        is_adapter: whether it holds an adapter without a whole model.
    """

    path: Path
    name: str
    revision: str | None = None
    is_adapter: bool = False


def open_folder(path: Path) -> Folder:
    """Return a folder as what it is: that of the Hub's cache is its snapshot.

    Raises:
        ModelError: it holds neither a checkpoint nor an adapter, or both.
    """
    if _HUB.fullmatch(path.name) and (path / "snapshots").is_dir():
        return open_folder(_snapshot(path))
    hub = _HUB.fullmatch(path.parent.parent.name) if path.parent.name == "snapshots" else None
    name, revision = (f"{hub['owner']}/{hub['name']}", path.name) if hub else (path.name, None)
    if not (path / ADAPTER).is_file():
        if not (path / CONFIG).is_file():
            raise ModelError(other_kind(path) or _of_nothing(path))
        return Folder(path, name, revision)
    if any((path / file).is_file() for file in _WHOLE_WEIGHTS):
        raise ModelError(
            f"{name!r} can be read in two ways: expected whole weights or an adapter, got both, and nothing says whether the adapter "
            f"is merged into these weights already. Take {ADAPTER} and the adapter's weights out to load the weights as they are, or "
            "move both into a folder of their own and name this folder in base_model_name_or_path to load them together."
        )
    return Folder(path, name, revision, is_adapter=True)


def _snapshot(path: Path) -> Path:
    """Return the snapshot of a model's folder in the Hub's cache: that of the branch main, or else the only one."""
    found = sorted(one for one in (path / "snapshots").iterdir() if one.is_dir())
    main = path / "refs" / "main"
    named = path / "snapshots" / main.read_text("utf-8", errors="replace").strip()[:80] if main.is_file() else None
    if named in found or len(found) == 1:
        return named if named in found else found[0]
    names = ", ".join(f"snapshots/{one.name}" for one in found[:_MOST_LISTED]) or "none"
    raise ModelError(
        f"{path.name!r} is a folder of the Hub's cache: expected one snapshot or one that refs/main names, got {names}. "
        "Choose the folder of a snapshot, or load the model by its Hub id."
    )


def other_kind(path: Path) -> str | None:
    """Return what a folder without configuration or weights is, and what to do; None where nothing tells."""
    return next((text for kind in _KINDS if (text := kind(path)) is not None), None)


def _named(path: Path, pattern: str) -> list[str]:
    return sorted(one.name for one in path.glob(pattern))


def _of_gguf(path: Path) -> str | None:
    files = _named(path, "*.gguf")
    if not files:
        return None
    return (
        f"{path.name!r} holds GGUF files for llama.cpp: expected a checkpoint of transformers, got {files[0]!r}. "
        "Choose the checkpoint that they were made from."
    )


def _of_trainer(path: Path) -> str | None:
    inner = [one for one in path.glob("*/") if (one / CONFIG).is_file() or (one / ADAPTER).is_file()]
    if not inner:
        return None
    numbered = [one for one in inner if re.fullmatch(r"checkpoint-\d+", one.name)]
    numbered.sort(key=lambda one: int(one.name.split("-")[1]))
    if numbered:
        return (
            f"{path.name!r} is a trainer's output folder: expected one checkpoint, got {len(numbered)}, the last of them "
            f"{numbered[-1].name!r}. Choose {str(numbered[-1])!r}."
        )
    names = ", ".join(repr(one.name) for one in sorted(inner)[:_MOST_LISTED])
    return f"{path.name!r} holds folders of models: expected one model, got {names}. Choose one of these folders."


def _of_pipeline(path: Path) -> str | None:
    if not (path / "model_index.json").is_file():
        return None
    return f"{path.name!r} is a pipeline of diffusers: expected a vision-language model of transformers. Choose another model."


def _of_original(path: Path) -> str | None:
    files = [
        *_named(path, "consolidated*"),
        *_named(path, "*.nemo"),
        *_named(path, "*.onnx"),
        *_named(path, "*.tflite"),
    ]
    if not files:
        return None
    return (
        f"{path.name!r} is in another form: expected {CONFIG} and safetensors as save_pretrained writes them, got {files[0]!r}. "
        "Choose the version of this model that was converted for transformers."
    )


def _of_nothing(path: Path) -> str:
    files = sorted(one.name for one in path.iterdir())
    got = ", ".join(repr(name) for name in files[:_MOST_LISTED]) + (" and more" if len(files) > _MOST_LISTED else "")
    return (
        f"{path.name!r} is no model: expected {CONFIG} and safetensors as save_pretrained writes them, got "
        f"{got or 'an empty folder'}. Choose the folder that holds {CONFIG}."
    )


_KINDS: tuple[Callable[[Path], str | None], ...] = (_of_gguf, _of_trainer, _of_pipeline, _of_original)
