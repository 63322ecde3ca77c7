"""What the strip draws, as JSON values: a row for each domain and for measured damage, the edit, and the layers that stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.narrow import NOUNS, SMALL, Narrow
from vlm_analysis.edits.kinds.vision import Vision
from vlm_analysis.figures.scales import DAMAGE, SCALES, Scale
from vlm_analysis.model_info import Locks, ModelInfo
from vlm_analysis.ui.common.held import vision_of
from vlm_analysis.words import counted

COSINE = SCALES["cosine"]
DAMAGE_ROW = "measured damage"


def strip_rows(values: np.ndarray, names: Sequence[str], damage: np.ndarray | None = None) -> dict[str, Any]:
    """Return rows and scales.

    Args:
        values: (n_domains, n_layers) cosines; NaN where a domain has no token of the group.
        names: (n_domains,) any text.
        damage: (n_layers,) in nats; NaN where it was not measured. None where none was.
    """
    kinds = [_kind("domain", values, names, COSINE, digits=3, missing="no tokens")]
    if damage is not None:
        kinds.append(_kind("damage", damage[None], [DAMAGE_ROW], DAMAGE, digits=None, missing="not measured"))
    return {
        "rows": [row for rows, _ in kinds for row in rows],
        "scales": [scale for _, scale in kinds],
        "count": values.shape[1],
    }


def _kind(
    kind: str, values: np.ndarray, names: Sequence[str], scale: Scale, *, digits: int | None, missing: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of one kind, and what their colours mean on the fixed scale and fitted to these values."""
    from vlm_analysis.figures.shades import palette, shades

    there = values[np.isfinite(values)]
    ends = (float(there.min()), float(there.max())) if there.size else None
    fixed, fitted = shades(values, scale), shades(values, scale, ends)
    rows = [
        {
            "key": f"{kind}:{name}",
            "name": name,
            "kind": kind,
            "digits": digits,
            "values": [format(value, scale.form) if np.isfinite(value) else None for value in line.tolist()],
            "fixed": fixed[place].tolist(),
            "fitted": fitted[place].tolist(),
        }
        for place, (name, line) in enumerate(zip(names, values, strict=True))
    ]
    told = {
        "kind": kind,
        "unit": scale.unit,
        "missing": missing,
        "palette": palette(scale),
        "fixed": [scale.ticks[end] for end in scale.ends],
        "fitted": ["", ""] if ends is None else [format(end, scale.form) for end in ends],
    }
    return rows, told


def edit_row(edit: Edit, locks: Locks, vision_locked: Mapping[int, str] = MappingProxyType({})) -> dict[str, Any]:
    """Return what the edit does to each layer and which layers stay, with the reasons; layer numbers are text, as in JSON.

    Of narrow layers `narrow_row` tells. `vision_locked` are the layers that vision tokens cannot skip, with the reasons.
    """
    gone, skipped = set(edit.gone), vision_of(edit)
    changed: dict[int, list[str]] = {}
    for change in edit.changes:
        for layer in () if isinstance(change, Vision | Narrow) else set(change.layers) - gone:
            changed.setdefault(layer, []).append(change.words())
    return {
        "dropped": list(edit.dropped),
        "own": sorted(locks.own),
        "absent": list(skipped.absent),
        "frozen": list(skipped.frozen),
        "vision_locked": {str(layer): reason for layer, reason in sorted(vision_locked.items())},
        "changed": {str(layer): "; ".join(words) for layer, words in sorted(changed.items())},
        "locked": {str(layer): reason for layer, reason in sorted(locks.locked.items())},
        "protected": {str(layer): reason for layer, reason in sorted(locks.protected.items())},
    }


def narrow_row(narrow: Narrow, model: ModelInfo) -> dict[str, dict[str, Any]]:
    """Return by layer what is left of one that is narrow: in words, as a share of its parameters for its cell, and how many are saved."""
    saved, parts = narrow.saved_by_layer(model), {name: dict(getattr(narrow, name)) for name in NOUNS}
    row = {}
    for layer in narrow.layers:
        whole = model.layer_parameters[layer] if layer < len(model.layer_parameters) else 0
        left = 1 - saved[layer] / whole if whole and layer in saved else None
        words = _width_words(parts, layer, model)
        if narrow.form != SMALL:
            words += ", the others are zeroed and save nothing"
        elif left is not None:
            words += f", {left:.0%} of its parameters"
        mark = "zeroed" if narrow.form != SMALL else "~" if left is None else f"{left:.0%}"
        row[str(layer)] = {"words": f"narrow: {words}", "mark": mark, "saved": int(saved.get(layer, 0))}
    return row


def _width_words(parts: Mapping[str, Mapping[int, Sequence[int]]], layer: int, model: ModelInfo) -> str:
    """Return "keeps 200 of 256 MLP neurons and 1 of 2 attention groups"."""
    told = []
    for name, noun in NOUNS.items():
        if layer in parts[name]:
            of = f" of {getattr(model.widths[layer], name):,}" if model.widths else ""
            n = len(parts[name][layer])
            told.append(f"{n:,}{of} {noun}s" if of else counted(n, noun))
    return f"keeps {' and '.join(told)}"
