"""Module paths of version 0.1 that are no more: importing one says which line to write instead.

Nothing but messages: no old name works under its old path. Modules that became packages keep their name; their `__init__` asks
`old_names` for what they held.
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
"""By module of version 0.1, the names of it that are public now; of `PRIVATE` ones there is none."""
OLD = dict.fromkeys(PRIVATE, ()) | PUBLIC

NEW_NAMES = {"prune": "apply_edit"}
"""What is called differently now."""


def message(module: str, names: Sequence[str] = ()) -> str:
    """Return what to write instead of an import from a module of version 0.1.

    >>> message("evaluate")
    'vlm_analysis.evaluate has moved. Write: from vlm_analysis import evaluate'
    """
    public = [NEW_NAMES.get(name, name) for name in names or OLD[module]]
    if not public:
        return f"{PACKAGE}.{module} is private and has moved. What is public is imported from {PACKAGE} itself."
    return f"{PACKAGE}.{module} has moved. Write: from {PACKAGE} import {', '.join(public)}"


class _Finder:
    """Finds nothing; stands last among Python's finders, so that it is asked only for modules that are not there."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        module = name.removeprefix(f"{PACKAGE}.")
        if module != name and module in OLD:
            raise ImportError(message(module), name=name)
        return None


def watch() -> None:
    """Let imports of old paths say what to write instead."""
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
