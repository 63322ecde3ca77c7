"""The file of an AnswerProbe: one npz without pickle."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlm_analysis.errors import RecordingError
from vlm_analysis.guard.schema import TEXTS, anything, different, fields, listed, number, row, text, whole
from vlm_analysis.model_info import SCHEMA as MODEL, ModelInfo
from vlm_analysis.recording.answerprobe import PROBED, AnswerProbe
from vlm_analysis.saved import Arrays, Form

_NAMES = listed(text(), 1)
_PART = row(text(), text(), whole(1), whole(2), number(0, 1))  # domain, task, prompts, answers, share of the commonest
SCHEMA = fields(
    {
        "model": MODEL,
        "prompts": text(200),
        **dict.fromkeys(("ids", "domains", "tasks", "groups"), _NAMES),
        "parts": listed(_PART, 1),
        "left_out": TEXTS,
        "set_aside": TEXTS,
        "probed": anything,
    }
)
FORM = Form(("strata-answer-probe",), 1, "probe of answers", "Probe the answers again.", RecordingError, SCHEMA)
ARRAYS = ("right", "log_loss")


def save_answer_probe(probe: AnswerProbe, path: Path) -> Path:
    """Write what `probe_answers` returned; the file appears whole or not at all. Returns the path."""
    payload = {
        "model": asdict(probe.model),
        "prompts": probe.prompts,
        "probed": list(PROBED),
        **{name: list(getattr(probe, name)) for name in ("ids", "domains", "tasks", "groups")},
        "parts": [
            [*name, int(one["n_prompts"]), int(one["n_answers"]), float(one["most_frequent"])]
            for name, one in zip(probe.parts.index, probe.parts.to_dict("records"), strict=True)
        ],
        "left_out": probe.left_out,
        "set_aside": probe.set_aside,
    }
    return FORM.save_arrays(path, payload, {name: getattr(probe, name) for name in ARRAYS})


def open_answer_probe(path: Path) -> AnswerProbe:
    """Open a probe written by `save_answer_probe`; needs neither torch nor the model.

    Raises:
        RecordingError: the file is missing, cut short, of another kind or version, or does not fit together.
    """
    return FORM.open_arrays(path, _probe_of)


def _probe_of(content: dict[str, Any], arrays: Arrays) -> AnswerProbe:
    model = ModelInfo.from_json(content["model"])
    names = {name: tuple(content[name]) for name in ("ids", "domains", "tasks", "groups")}
    _check_names(content, names)
    if arrays.more or arrays.names != {"meta", *ARRAYS}:
        raise ValueError(f"expected the arrays {' and '.join(ARRAYS)}, got {', '.join(sorted(arrays.names))[:200]}")
    shape = (len(PROBED), model.n_layers, 2, len(names["ids"]))
    right, log_loss = (arrays.get(name, np.float64, shape) for name in ARRAYS)
    if not (np.isnan(right) | (right == 0) | (right == 1)).all():
        raise ValueError("expected 0, 1 or NaN as right, got other numbers")
    if not (np.isnan(log_loss) | ((log_loss >= 0) & np.isfinite(log_loss))).all():
        raise ValueError("expected log_loss of 0 or more, or NaN, got other numbers")
    return AnswerProbe(
        model,
        content["prompts"],
        **names,
        right=right,
        log_loss=log_loss,
        parts=_parts(content["parts"]),
        left_out=content["left_out"],
        set_aside=content["set_aside"],
    )


def _check_names(content: dict[str, Any], names: dict[str, tuple[str, ...]]) -> None:
    """Raise ValueError unless each prompt has its names once, and the parts count the prompts of each task."""
    if content["probed"] != list(PROBED):
        raise ValueError(f"expected the token groups {' and '.join(PROBED)}, got {str(content['probed'])[:100]}")
    sizes = {name: len(value) for name, value in names.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"expected an id, domain, task and group for each prompt, got {sizes}")
    different(content["ids"], "ids")
    counted = Counter(zip(names["domains"], names["tasks"], strict=True))
    told = {(domain, task): n_prompts for domain, task, n_prompts, *_ in content["parts"]}
    if told != counted or len(told) < len(content["parts"]):
        raise ValueError(f"expected the prompts of each task as {str(dict(counted))[:200]}, got {str(told)[:200]}")


def _parts(rows: list[list[Any]]) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples([(one[0], one[1]) for one in rows], names=["domain", "task"])
    return pd.DataFrame([one[2:] for one in rows], columns=["n_prompts", "n_answers", "most_frequent"], index=index)
