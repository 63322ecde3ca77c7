"""What was loaded and opened last, to be offered again: models with their options, and folders or files of prompts.

    <root>/recent.json

All projects share it. It is a convenience: where it cannot be read or written, nothing is offered, and nothing else is affected.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from vlm_analysis.errors import WorkspaceError
from vlm_analysis.guard.schema import fields, flag, listed, maybe, text, whole
from vlm_analysis.saved import Form
from vlm_analysis.workbench.workspace import Workspace

MOST = 8
FILE = "recent.json"
_OPTIONS = {
    "revision": maybe(text(1000)),
    "device": text(40),
    "dtype": text(40),
    "max_vision_tokens": maybe(whole()),
    "trust_remote_code": flag,
    "device_map": maybe(text(40)),
    "max_memory": maybe(text(400)),
}
_MODEL = fields({"source": text(4096, 1), "name": text(1000), "options": fields({}, _OPTIONS)})
FORM = Form(
    ("recent",),
    1,
    "list of recent models and folders",
    "Delete it; nothing else is lost.",
    WorkspaceError,
    fields({"models": listed(_MODEL, most=MOST), "folders": listed(text(4096, 1), most=MOST)}),
)


@dataclass(frozen=True)
class RecentModel:
    """A model that was loaded: its name, and the arguments of `load_model`."""

    source: str
    name: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)


def recent_models(shelf: Workspace) -> list[RecentModel]:
    """Return the last 8 models that were loaded, the last one first; empty where the list cannot be read."""
    return _read(shelf)[0]


def recent_folders(shelf: Workspace) -> list[str]:
    """Return the last 8 folders or files of prompts that were opened, the last one first; empty where the list cannot be read."""
    return _read(shelf)[1]


def note_model(shelf: Workspace, model: RecentModel) -> None:
    """Put a model that was loaded first in the list, in place of the same source before."""
    models, folders = _read(shelf)
    _write(shelf, [model, *(one for one in models if one.source != model.source)], folders)


def note_folder(shelf: Workspace, path: str) -> None:
    """Put a folder or file of prompts that was opened first in the list."""
    models, folders = _read(shelf)
    _write(shelf, models, [path, *(one for one in folders if one != path)])


def _read(shelf: Workspace) -> tuple[list[RecentModel], list[str]]:
    def made(content: dict[str, Any]) -> tuple[list[RecentModel], list[str]]:
        known = [{key: one[key] for key in ("source", "name", "options")} for one in content["models"]]
        options = [{key: value for key, value in one["options"].items() if key in _OPTIONS} for one in known]
        return [RecentModel(**one | {"options": some}) for one, some in zip(known, options, strict=True)], content[
            "folders"
        ]

    with suppress(WorkspaceError, OSError):
        return FORM.open(shelf.base / FILE, made)
    return [], []


def _write(shelf: Workspace, models: list[RecentModel], folders: list[str]) -> None:
    payload = {"models": [asdict(one) for one in models[:MOST]], "folders": folders[:MOST]}
    with suppress(OSError):
        FORM.save(shelf.base / FILE, payload)
