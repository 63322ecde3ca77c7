"""What a bug report needs: versions, devices, memory, and the items of the workspace, each opened once."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass, field
from importlib import metadata

from vlm_analysis.errors import StrataError
from vlm_analysis.workbench.stories import open_saved
from vlm_analysis.workbench.workspace import KINDS, Item, Workspace

PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "safetensors",
    "numpy",
    "pandas",
    "pyarrow",
    "pillow",
    "plotly",
    "streamlit",
)


@dataclass(frozen=True)
class Checkup:
    """The result of `check_up`.

    Attributes:
        versions: of Python, Strata and the packages it uses; "not installed" where one is missing.
        devices: the devices that can hold a model, with their free memory in bytes.
        disk_bytes: free on the disk of the workspace.
        root: the workspace's folder.
        counts: number of saved items of each kind.
        damaged: one message for each item that cannot be opened.
    """

    versions: dict[str, str]
    devices: dict[str, int]
    disk_bytes: int
    root: str
    counts: dict[str, int] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()


def check_up(shelf: Workspace) -> Checkup:
    """Return the versions, devices and memory, and open every saved item once."""
    items = {kind: shelf.items(kind) for kind in KINDS}
    reasons = [(item, _why_damaged(shelf, item)) for each in items.values() for item in each]
    damaged = [f"{item.kind}: {item.name} ({item.id}): {reason}" for item, reason in reasons if reason]
    existing = next(folder for folder in (shelf.root, *shelf.root.parents) if folder.exists())
    return Checkup(
        _versions(),
        _devices(),
        shutil.disk_usage(existing).free,
        str(shelf.root),
        {kind: len(each) for kind, each in items.items()},
        (*shelf.problems(), *damaged),
    )


def _versions() -> dict[str, str]:
    from vlm_analysis import __version__

    versions = {"python": platform.python_version(), "strata": __version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _devices() -> dict[str, int]:
    try:
        import torch
    except ImportError:
        return {}
    from vlm_analysis.models.memory import free_bytes

    devices = {f"cpu, {torch.get_num_threads()} threads": free_bytes("cpu")}
    for number in range(torch.cuda.device_count()):
        devices[f"cuda:{number}, {torch.cuda.get_device_name(number)}"] = free_bytes(f"cuda:{number}")
    return devices


def _why_damaged(shelf: Workspace, item: Item) -> str:
    try:
        open_saved(shelf, item)
    except StrataError as error:
        return str(error)
    return ""
