"""What the command line says of masks: the tool whose file was opened, and dropped layers that should stay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vlm_analysis.cli.base import warn
from vlm_analysis.errors import short

if TYPE_CHECKING:
    from vlm_analysis.edits.edit import Edit
    from vlm_analysis.model_info import ModelInfo


def tool_words(edit: Edit, path: Path) -> str:
    """Return what a file was read as, such as "optipfair's list"; "" for a file of Strata's own."""
    from vlm_analysis.edits.foreign.lists import FLAGS
    from vlm_analysis.saved import kind_in

    tool = edit.provenance.get("opened_from")
    if tool is None or kind_in(path):
        return ""
    return "a CSV of layers" if tool == "CSV" else f"{tool}'s {'list' if tool in FLAGS.values() else 'file'}"


def tell_locks(edit: Edit, model: ModelInfo) -> None:
    """Warn in one line of dropped layers that should stay, with the reasons."""
    from vlm_analysis.words import layers as layer_words

    of_reason: dict[str, list[int]] = {}
    for layer, reason in model.locks.reasons.items():
        if layer in edit.gone:
            of_reason.setdefault(reason, []).append(layer)
    if of_reason:
        told = "; ".join(f"{layer_words(layers)} ({short(reason)})" for reason, layers in of_reason.items())
        warn(f"Layers that should stay are dropped: {told}")
