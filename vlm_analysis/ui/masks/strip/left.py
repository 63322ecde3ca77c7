"""What a mask leaves of the model's parameters, bytes and time, as JSON values: the strip adds them up for the mask at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.narrow import Narrow
from vlm_analysis.edits.kinds.vision import Vision
from vlm_analysis.evaluation.cost import WIDTHS, Cost, speedup
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.ui.common.held import NO_VISION, WHOLE, fits_editor, narrow_key, narrow_of, tower_of, vision_of

BY_LAYERS = "expected by each layer's measured time"
BY_PARAMETERS = "expected by parameters: nothing timed yet"
UNTIMED = "measure it: Evaluate, Cost"
UNCOUNTED = "record again to count them"
UNSIZED = "quantised: see Evaluate, Cost"


def key_of(edit: Edit, width: str = "") -> str:
    """Return the layers that an edit drops, those in which vision tokens are absent or frozen, the key of the width that the editor
    holds, and the layers of the vision encoder that are dropped, as the strip writes them.

    >>> key_of(Edit(8, (Vision(absent=(6, 7)),)))
    '|6,7|||'
    """
    skipped = vision_of(edit)
    *parts, there = (
        ",".join(map(str, one)) for one in (edit.dropped, skipped.absent, skipped.frozen, tower_of(edit).dropped)
    )
    return "|".join([*parts, width, there])


def costs_of(
    model: ModelInfo,
    costs: Sequence[Cost] = (),
    layer_share: np.ndarray | None = None,
    *,
    quantised: bool = False,
    vision: Vision = NO_VISION,
    narrow: Narrow = WHOLE,
) -> dict[str, Any]:
    """Return what each layer costs.

    Args:
        model: the dense model.
        costs: measured for its masks, newest first.
        layer_share: (n_layers,) each layer's share of the time of a pass, where no Cost tells it.
        quantised: whether the bytes of a parameter are not known.
        vision: in which form vision tokens skip layers; times of others are left out.
        narrow: the width that the editor holds; times of others are left out.
    """
    is_counted = len(model.layer_parameters) == model.n_layers and model.n_parameters > 0
    shares, shared = None, ""
    if costs:
        shares, shared = costs[0].layer_shares[0].tolist(), BY_LAYERS
    elif layer_share is not None:
        shares, shared = np.asarray(layer_share, np.float64).tolist(), BY_LAYERS
    elif is_counted:
        shares, shared = [number / model.n_parameters for number in model.layer_parameters], BY_PARAMETERS
    return {
        "parameters": list(model.layer_parameters) if is_counted else None,
        "tower": [] if model.tower is None else list(model.tower.layer_parameters),
        "total": model.n_parameters,
        "width": None if quantised else WIDTHS.get(model.dtype),
        "shares": shares,
        "tower_shares": costs[0].encoder_shares.tolist() if costs else [],
        "shared": shared,
        "timed": {
            key_of(cost.edit, narrow_key(width, model.n_layers)): _timed(cost)
            for cost in reversed(costs)
            for width in dict.fromkeys((WHOLE, narrow))
            if _is_alike(cost.edit, vision, width)
        },
        "untimed": UNTIMED,
        "uncounted": UNCOUNTED,
        "unsized": UNSIZED,
    }


def _is_alike(edit: Edit, vision: Vision, narrow: Narrow) -> bool:
    """Return whether the editor could hold this edit with vision tokens in this form, beside this width."""
    skipped, left = vision_of(edit), narrow.without(edit.gone)
    if not fits_editor(edit) or narrow_of(edit) != (WHOLE if left.is_empty else left):
        return False
    return bool(skipped.is_empty or (skipped.form, skipped.deepstack) == (vision.form, vision.deepstack))


def _timed(cost: Cost) -> tuple[str, str]:
    """Return the time of a prompt's pass over the dense model's, and how it was measured."""
    faster, low, high = speedup(cost, "prefill")
    return f"{1 / faster:.2f}", f"measured: 90 % interval {1 / high:.2f} to {1 / low:.2f}"
