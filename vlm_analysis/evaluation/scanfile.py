"""The file of a VisionScan: one npz without pickle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.kinds.vision import FORMS
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.scan import DENSE, MEANS, VisionScan, ways_of
from vlm_analysis.guard.schema import TEXTS, anything, fields, flag, listed, number, one_of, row, text, whole
from vlm_analysis.model_info import SCHEMA as MODEL, ModelInfo
from vlm_analysis.saved import Arrays, Form

_COUNTS = {"n_vision": number(0), "n_text": number(0), "attention_size": whole(), "kv_parameters": whole()}
SCHEMA = fields(
    {
        "model": MODEL,
        "prompts": text(200),
        "form": one_of(*FORMS),
        "deepstack": flag,
        "ways": listed(row(text(40), anything), 1, 100_000),
        "ids": listed(anything, 1),
        "domains": listed(text(), 1),
        "set_aside": TEXTS,
        **_COUNTS,
    }
)
FORM = Form(("strata-scan",), 1, "scan of vision tokens", "Scan again.", EvaluationError, SCHEMA)
_OPTIONAL = "token_agreement"


def save_scan(scan: VisionScan, path: Path) -> Path:
    """Write the scan; the file appears whole or not at all. Returns the path.

    Raises:
        EvaluationError: its ways are not all of the same prompts.
    """
    ways = list(dict.fromkeys(zip(scan.by_prompt["way"], scan.by_prompt["layer"], strict=True)))
    dense = scan.by_prompt[: len(scan.by_prompt) // len(ways)]
    if list(scan.by_prompt["id"]) != list(dense["id"]) * len(ways):
        raise EvaluationError(
            "The scan cannot be saved: expected each way on the same prompts in their order, got others. Scan again."
        )
    names = [name for name in (*MEANS, _OPTIONAL) if name in scan.by_prompt]
    shape = (len(ways), len(dense))
    arrays = {name: scan.by_prompt[name].to_numpy(np.float64).reshape(shape) for name in names}
    payload = {
        "model": asdict(scan.model),
        "prompts": scan.prompts,
        "ways": [[way, int(layer)] for way, layer in ways],
        "ids": list(dense["id"]),
        "domains": list(dense["domain"]),
        "form": scan.form,
        "deepstack": scan.deepstack,
        "set_aside": scan.set_aside,
        **{name: getattr(scan, name) for name in _COUNTS},
    }
    return FORM.save_arrays(path, payload, arrays)


def open_scan(path: Path) -> VisionScan:
    """Open a scan written by `save_scan`; needs neither torch nor the model.

    Raises:
        EvaluationError: the file is missing, cut short, of another kind or version, or does not fit together.
    """
    return FORM.open_arrays(path, _scan_of)


def _scan_of(content: dict[str, Any], arrays: Arrays) -> VisionScan:
    model, ids, domains = ModelInfo.from_json(content["model"]), content["ids"], content["domains"]
    ways = [tuple(one) for one in content["ways"]]
    _check_ways(ways, model.n_layers)
    if len(ids) != len(domains):
        raise ValueError(f"expected a domain for each of {len(ids)} prompts, got {len(domains)}")
    if arrays.more or not arrays.names <= {"meta", *MEANS, _OPTIONAL}:
        raise ValueError(
            f"expected arrays among {', '.join((*MEANS, _OPTIONAL))}, got {', '.join(sorted(arrays.names))[:200]}"
        )
    names = [name for name in (*MEANS, _OPTIONAL) if name in MEANS or name in arrays.names]
    shape = (len(ways), len(ids))
    rows = pd.DataFrame(
        {
            "way": [way for way, _ in ways for _ in ids],
            "layer": [layer for _, layer in ways for _ in ids],
            "id": ids * len(ways),
            "domain": domains * len(ways),
            **{name: arrays.get(name, np.float64, shape).reshape(-1) for name in names},
        }
    )
    right = rows["exact_match"]
    if not right.isin([0, 1]).all():
        raise ValueError("expected 0 or 1 as exact_match, got other numbers")
    counts = {name: content[name] for name in _COUNTS}
    return VisionScan(
        model,
        content["prompts"],
        rows.assign(exact_match=right.astype(bool)),
        content["form"],
        content["deepstack"],
        set_aside=content["set_aside"],
        **counts,
    )


def _check_ways(ways: list[Any], n_layers: int) -> None:
    """Raise ValueError unless the ways are different ones of this many layers, the dense model first."""
    known = {(DENSE, -1), *ways_of(n_layers)}
    wrong = next((one for one in ways if not is_whole(one[1]) or one not in known), None)
    if wrong is not None or len(set(ways)) < len(ways) or ways[0] != (DENSE, -1):
        raise ValueError(
            f"expected different ways in {n_layers} layers, the dense model first, got {str(wrong or ways)[:200]}"
        )
