"""Paths of the files that come with Strata: beside the package in a checkout, inside it when installed."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
IMPORT_ROOT = PACKAGE.parent
"""The folder that `vlm_analysis` is imported from; a fresh process needs it on its path."""

BUNDLED_MODELS = {"pocket-vl": "Pocket-VL", "pocket-vl-steps": "Pocket-VL Steps"}
"""The folders of the bundled models, the first of which is loaded where none is named, and their names in a sentence."""


def asset(*parts: str) -> Path:
    """Return the path of a bundled file or folder: the model, the prompt packs, the icon.

    >>> asset("packs", "math", "prompts.jsonl").exists()
    True
    """
    installed = PACKAGE / "_assets"
    return (installed if installed.is_dir() else IMPORT_ROOT / "assets").joinpath(*parts)


def dashboard() -> Path:
    """Return the folder of `app.py`, `pages/` and `.streamlit/`, from which the dashboard is run."""
    installed = PACKAGE / "dashboard"
    return installed if installed.is_dir() else IMPORT_ROOT
