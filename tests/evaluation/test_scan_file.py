"""The file of a scan: it opens as it was saved, and what does not fit together is refused in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vlm_analysis import Edit, VisionScan, late_entry, open_scan, save_scan
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.scan import DENSE, MEANS, ways_of
from vlm_analysis.evaluation.scanfile import FORM
from vlm_analysis.evaluation.scanparts import KeptScores
from vlm_analysis.model_info import ModelInfo

MODEL = ModelInfo("m", "f" * 64, 3, layer_parameters=(10, 10, 10), n_parameters=50)


def scan() -> VisionScan:
    numbers = np.random.default_rng(0)
    rows = [
        {"way": way, "layer": layer, "id": name, "domain": name[0], **{one: numbers.random() for one in MEANS}}
        for way, layer in [(DENSE, -1), *ways_of(3)]
        for name in ("a1", "a2", "b1")
    ]
    frame = pd.DataFrame(rows).assign(exact_match=[bool(number) for number in numbers.integers(2, size=30)])
    frame.loc[4, "kl_to_dense"] = np.nan
    counts = {"n_vision": 6.5, "n_text": 4.0, "attention_size": 3, "kv_parameters": 2}
    return VisionScan(MODEL, "p", frame, "sliced", False, set_aside={"c1": "it is odd"}, **counts)  # type: ignore[arg-type]


def test_it_opens_as_it_was_saved(tmp_path: Path) -> None:
    made = scan()
    found = open_scan(save_scan(made, tmp_path / "scan.npz"))
    pd.testing.assert_frame_equal(found.by_prompt, made.by_prompt[["way", "layer", "id", "domain", *MEANS]])
    assert (found.model, found.prompts, found.form, found.deepstack) == (MODEL, "p", "sliced", False)
    assert (found.n_vision, found.n_text, found.attention_size, found.kv_parameters) == (6.5, 4.0, 3, 2)
    assert found.set_aside == made.set_aside


def test_ways_of_other_prompts_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="each way on the same prompts"):
        save_scan(replace(scan(), by_prompt=scan().by_prompt[:-1]), tmp_path / "scan.npz")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ways": [["dense", -1], ["late", 1]]}, "expected different ways in 3 layers"),
        ({"ways": [["late entry", 1], ["dense", -1]]}, "the dense model first"),
        ({"ways": [["dense", -1], ["frozen", 3]]}, "expected different ways"),
        ({"ids": ["a1"]}, "a domain for each of 1 prompts"),
        ({"form": "quick"}, "masked"),
        ({"n_vision": -1}, "n_vision"),
        ({"ways": [["dense", -1]]}, "shape"),
    ],
)
def test_a_file_that_does_not_fit_together_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = save_scan(scan(), tmp_path / "scan.npz")
    payload, arrays = FORM.open_arrays(
        path,
        lambda content, found: (content, {name: found.get(name, None, (10, 3)) for name in found.names - {"meta"}}),
    )
    FORM.save_arrays(path, payload | change, arrays)
    with pytest.raises(EvaluationError, match=said):
        open_scan(path)


def test_scores_of_a_batch_are_kept_for_this_scan_and_these_rows_alone(tmp_path: Path) -> None:
    plan = [Edit(3), late_entry(3, 1)]
    scores = {
        edit.key: {row: {"exact_match": row == 4, "answer_nll": float("nan") if row == 4 else 0.1} for row in (4, 2)}
        for edit in plan
    }
    KeptScores(tmp_path, {"model": "m"}, plan).keep([4, 2], scores)
    again = KeptScores(tmp_path, {"model": "m"}, plan).of([4, 2])
    assert again is not None
    assert str(again) == str(scores)
    assert KeptScores(tmp_path, {"model": "m"}, plan).of([2, 4]) is None
    assert KeptScores(tmp_path, {"model": "n"}, plan).of([4, 2]) is None
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    assert KeptScores(tmp_path, {"model": "m"}, plan).of([4, 2]) is None
