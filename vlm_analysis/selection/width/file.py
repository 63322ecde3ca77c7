"""The file of WidthScores: one npz without pickle."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vlm_analysis.errors import EditError
from vlm_analysis.evaluation.pivots import MOST_WINDOW, SIDES
from vlm_analysis.guard.schema import TEXTS, fields, maybe, one_of, row, text, whole
from vlm_analysis.model_info import SCHEMA as MODEL, ModelInfo
from vlm_analysis.saved import Arrays, Form
from vlm_analysis.selection.width.scores import HOWS, UNITS, VALUES, WidthScores

MOST_UNITS = 20_000_000  # of a kind in a file; the largest open model has 7 million MLP neurons
_PLAIN = ("how", "window", "sides", "seed", "set_aside")
SCHEMA = fields(
    {
        "model": MODEL,
        "prompts": text(200),
        "how": one_of(*HOWS),
        "window": whole(1, MOST_WINDOW),
        "sides": one_of(*SIDES),
        "seed": maybe(whole()),
        "answers": row(whole(), whole(), whole()),
        "tokens": row(whole(), whole()),
        "set_aside": TEXTS,
    }
)
FORM = Form(("strata-width",), 1, "file of width scores", "Score the width again.", EditError, SCHEMA)


def save_width_scores(scores: WidthScores, path: Path) -> Path:
    """Write the scores; the file appears whole or not at all. Returns the path."""
    payload = {
        "model": asdict(scores.model),
        "prompts": scores.prompts,
        "answers": list(scores.answers),
        "tokens": list(scores.tokens),
        **{name: getattr(scores, name) for name in _PLAIN},
    }
    arrays = {unit: np.concatenate(getattr(scores, unit), axis=1).astype(np.float64) for unit in UNITS}
    return FORM.save_arrays(path, payload, {**arrays, "cmds": scores.cmds, "sens": scores.sens})


def open_width_scores(path: Path) -> WidthScores:
    """Open scores written by `save_width_scores`; needs neither torch nor the model.

    Raises:
        EditError: the file is missing, cut short, of another kind or version, or does not fit together.
    """
    return FORM.open_arrays(path, _scores_of)


def _scores_of(content: dict[str, Any], arrays: Arrays) -> WidthScores:
    model = ModelInfo.from_json(content["model"])
    n_layers = model.n_layers
    if arrays.more or arrays.names != {"meta", "cmds", "sens", *UNITS}:
        raise ValueError(
            f"expected the arrays {', '.join(UNITS)}, cmds and sens, got {', '.join(sorted(arrays.names))[:200]}"
        )
    if len(model.widths) != n_layers or len(model.layer_parameters) != n_layers:
        raise ValueError(f"expected the widths and parameters of {n_layers} layers, got {len(model.widths)}")
    units: dict[str, Any] = {}
    for unit in UNITS:
        ends = np.cumsum([0, *(getattr(width, unit) for width in model.widths)]).tolist()
        if ends[-1] > MOST_UNITS:
            raise ValueError(f"expected at most {MOST_UNITS:,} {unit}, got {ends[-1]:,}")
        values = arrays.get(unit, np.float64, (len(VALUES), ends[-1]))
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise ValueError(f"expected numbers from 0 on in {unit}, got others")
        units[unit] = tuple(values[:, start:end] for start, end in pairwise(ends))
    by_layer: dict[str, Any] = {name: arrays.get(name, np.float64, (n_layers,)) for name in ("cmds", "sens")}
    for name, values in by_layer.items():
        if np.isinf(values).any() or (values < 0).any():
            raise ValueError(f"expected numbers from 0 on in {name}, got others")
    return WidthScores(
        model,
        content["prompts"],
        answers=(content["answers"][0], content["answers"][1], content["answers"][2]),
        tokens=(content["tokens"][0], content["tokens"][1]),
        **units,
        **by_layer,
        **{name: content[name] for name in _PLAIN},
    )
