"""Module paths of version 0.1 that were removed: importing one raises an error with the line to write instead.

No old name works under its old path. Modules that became packages keep their name; their `__init__` uses `old_names` for the
names they held.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = "vlm_analysis"

PRIVATE = [
    "archives",
    "attention",
    "card",
    "checkpoint_files",
    "choices",
    "decoding",
    "details",
    "fit",
    "images",
    "inputs",
    "interrupt",
    "jobs",
    "latency",
    "layer_config",
    "layers",
    "matching",
    "memory",
    "processors",
    "prompt_checks",
    "prompt_sources",
    "proof",
    "reload",
    "report",
    "row_store",
    "score_store",
    "shared_runs",
    "similarity",
    "sources",
    "stored",
    "streams",
    "tables",
    "token_maps",
    "wording",
    "workspace",
]
PUBLIC: dict[str, tuple[str, ...]] = {
    "compared": ("mask_table", "regimes"),
    "comparison": ("Comparison", "open_comparison", "save_comparison"),
    "cost": ("measure_cost", "measure_costs"),
    "costs": ("Cost", "open_cost", "save_cost", "speedup"),
    "dialects": ("mask_to_csv", "mask_to_mergekit", "open_dialect"),
    "evaluate": ("evaluate",),
    "evaluation": ("Evaluation", "open_evaluation", "retention", "retention_interval", "save_evaluation"),
    "export": ("export_checkpoint",),
    "halves": ("split_in_halves",),
    "masks": (
        "Objective",
        "PruneMask",
        "STRATEGIES",
        "Share",
        "beam",
        "evolve",
        "greedy",
        "make_mask",
        "many_masks",
        "open_mask",
        "random_masks",
        "save_mask",
    ),
    "measures": ("MEASURES",),
    "models": ("LoadedModel", "load_model"),
    "pipeline": ("compare", "compare_masks"),
    "prompts": ("Prompt", "PromptSet", "open_prompts", "write_prompts"),
    "prune": ("prune",),
    "rank": ("CRITERIA", "Damage", "LayerScores", "read_damage", "score_layers"),
    "record": ("record",),
    "recording": ("Recording", "open_recording", "save_recording"),
    "respond": ("stream_both",),
    "story": ("Story",),
    "sweep": ("sweep",),
}
"""The names of each module of version 0.1 that are public now; modules in `PRIVATE` have none."""
OLD = dict.fromkeys(PRIVATE, ()) | PUBLIC

NEW_NAMES = {"prune": "apply_edit"}
"""Public names that changed."""


def message(module: str, names: Sequence[str] = ()) -> str:
    """Return the error message for an import from a module of version 0.1.

    >>> message("evaluate")
    'vlm_analysis.evaluate has moved. Write: from vlm_analysis import evaluate'
    """
    public = [NEW_NAMES.get(name, name) for name in names or OLD[module]]
    if not public:
        return f"{PACKAGE}.{module} is private and has moved. What is public is imported from {PACKAGE} itself."
    return f"{PACKAGE}.{module} has moved. Write: from {PACKAGE} import {', '.join(public)}"


class _Finder:
    """Finds nothing; the last of Python's finders, called only for modules that no other finds."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        module = name.removeprefix(f"{PACKAGE}.")
        if module != name and module in OLD:
            raise ImportError(message(module), name=name)
        return None


def watch() -> None:
    """Make imports of old paths raise an error with the line to write instead."""
    if _Finder not in sys.meta_path:
        sys.meta_path.append(_Finder)


def old_names(package: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package that has the name of a module of version 0.1."""
    module = package.removeprefix(f"{PACKAGE}.")

    def attribute(name: str) -> Any:
        if name in OLD[module]:
            raise ImportError(message(module, [name]), name=package)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return attribute
