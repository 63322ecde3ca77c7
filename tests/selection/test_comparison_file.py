"""The Comparison's file and what a Comparison refuses to be made of."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vlm_analysis import Comparison, Evaluation, PruneMask, mask_table, open_comparison, save_comparison
from vlm_analysis.errors import EvaluationError
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.selection.compared.comparison import EXAMPLES, ways_frame
from vlm_analysis.selection.strategies.many import Way

MODEL = ModelInfo("toy", "f" * 64, 8, layer_parameters=(10, 20, 30, 40, 40, 30, 20, 10), n_parameters=400)


@pytest.fixture
def small() -> Comparison:
    """Return a comparison of each layer left out on 24 prompts of two domains."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "id": [str(place) for place in range(24)],
            "domain": ["art"] * 12 + ["math"] * 12,
            "exact_match": [True] * 20 + [False] * 4,
            "answer_nll": np.linspace(0.1, 0.5, 24),
            "token_agreement": np.ones(24),
            "kl_to_dense": np.zeros(24),
            "answer": ["a"] * 24,
            "answer_source": ["given"] * 24,
            "answer_ids": [[1]] * 24,
        }
    )
    masks = tuple(PruneMask(8, (layer,), name=f"without {layer}") for layer in range(8))
    ways = [Way("one", "one", "first-k", None if place % 2 else "art", 1, 0, mask) for place, mask in enumerate(masks)]
    scores = {name: rng.random((8, 24)) for name in ("answer_nll", "token_agreement", "kl_to_dense")}
    scores["exact_match"] = (rng.random((8, 24)) < 0.7).astype(float)
    dense = Evaluation(PruneMask(8), MODEL, "p" * 64, frame)
    return Comparison(dense, masks, scores, ways_frame(ways, masks), "c" * 64, 0, {"three": "no reason"})


def rewritten(comparison: Comparison, folder: Path, parts: dict[str, bytes]) -> Path:
    """Save the comparison and put other bytes into some of its arrays' files."""
    with zipfile.ZipFile(save_comparison(comparison, folder / "whole.npz")) as stored:
        kept = {name: stored.read(name) for name in stored.namelist()} | parts
    with zipfile.ZipFile(folder / "other.npz", "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in kept.items():
            made.writestr(name, data)
    return folder / "other.npz"


def test_what_is_saved_opens_as_it_was(small: Comparison, tmp_path: Path) -> None:
    again = open_comparison(save_comparison(small, tmp_path / "c.npz"))
    assert again.masks == small.masks
    assert [mask.name for mask in again.masks] == [mask.name for mask in small.masks]
    for name, array in small.scores.items():
        np.testing.assert_array_equal(again.scores[name], array)
    pd.testing.assert_frame_equal(again.ways, small.ways)
    pd.testing.assert_frame_equal(again.dense.by_prompt, small.dense.by_prompt)
    assert (again.chosen_on, again.n_shared, again.left_out) == (small.chosen_on, 0, {"three": "no reason"})
    pd.testing.assert_frame_equal(mask_table(again), mask_table(small))


def test_a_score_that_is_not_finite_stays_so(small: Comparison, tmp_path: Path) -> None:
    broken = {**small.scores, "kl_to_dense": np.full_like(small.scores["kl_to_dense"], np.nan)}
    again = open_comparison(save_comparison(replace(small, scores=broken), tmp_path / "c.npz"))
    assert np.isnan(again.scores["kl_to_dense"]).all()
    assert mask_table(again)["kl_to_dense"].isna().all()


@pytest.mark.parametrize("cut", [0, 10, 0.5, 0.99])
def test_a_file_cut_short_is_refused(small: Comparison, tmp_path: Path, cut: float) -> None:
    path = save_comparison(small, tmp_path / "c.npz")
    data = path.read_bytes()
    path.write_bytes(data[: int(cut if cut >= 1 or cut == 0 else cut * len(data))])
    with pytest.raises(EvaluationError):
        open_comparison(path)


def test_another_npz_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in ("other.npz", "none.npz"):
        with pytest.raises(EvaluationError):
            open_comparison(tmp_path / name)


def test_scores_of_other_shapes_are_refused(small: Comparison) -> None:
    with pytest.raises(EvaluationError, match="does not fit together"):
        replace(small, masks=small.masks[:2])
    with pytest.raises(EvaluationError, match="does not fit together"):
        replace(small, ways=small.ways.assign(place=99))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: {"dense": c.evaluation(0)}, "a dense evaluation"),
        (
            lambda c: {"dense": replace(c.dense, model=replace(MODEL, n_layers=9))},
            "masks of 9 layers, got one of 8",
        ),
        (lambda c: {"masks": (PruneMask(9, (3,)), *c.masks[1:])}, "masks of 8 layers, got one of 9"),
        (lambda c: {"masks": (c.masks[1], *c.masks[1:])}, "different masks, got 1 more than once"),
        (lambda c: {"scores": {"exact_match": c.scores["exact_match"]}}, "none by answer_nll"),
        (lambda c: {"scores": {**c.scores, "choice_match": c.scores["exact_match"]}}, "some by 'choice_match'"),
        (lambda c: {"scores": {**c.scores, "other": c.scores["exact_match"]}}, "some by 'other'"),
        (lambda c: {"scores": {**c.scores, "exact_match": c.scores["exact_match"] / 2}}, "0 or 1 for each"),
        (lambda c: {"scores": {**c.scores, "exact_match": c.scores["exact_match"] * np.nan}}, "0 or 1 for each"),
        (lambda c: {"scores": {**c.scores, "answer_nll": c.scores["answer_nll"].astype("f4")}}, "got float32"),
        (lambda c: {"ways": c.ways.assign(place=-1)}, "a place in 0..7"),
        (lambda c: {"ways": c.ways.assign(place=0.0)}, "a place in 0..7"),
        (lambda c: {"ways": c.ways.assign(budget=-1)}, "a budget in 0..8"),
        (lambda c: {"ways": c.ways.assign(budget=True)}, "a budget in 0..8"),
        (lambda c: {"ways": c.ways.assign(draw="one")}, "a draw in"),
        (lambda c: {"ways": c.ways.assign(method=3)}, "text as their method"),
        (lambda c: {"ways": c.ways.assign(strategy=None)}, "text as their strategy"),
        (lambda c: {"ways": c.ways.assign(target=7)}, "text as their target"),
        (lambda c: {"ways": c.ways.iloc[:0]}, "ways with the columns"),
        (lambda c: {"ways": c.ways.drop(columns="draw")}, "ways with the columns"),
        (lambda c: {"n_shared": 25}, "shared prompts in 0..24, got 25"),
        (lambda c: {"n_shared": -1}, "shared prompts in 0..24"),
        (lambda c: {"n_shared": True}, "shared prompts in 0..24"),
        (lambda c: {"chosen_on": None}, "the fingerprint"),
        (lambda c: {"left_out": {"one": 1}}, "a reason each"),
        (lambda c: {"left_out": ["one"]}, "a reason each"),
        (lambda c: {"examples": pd.DataFrame({"domain": ["art"]})}, "examples of text"),
        (lambda c: {"examples": pd.DataFrame([["art", "q", 1, "a"]], columns=list(EXAMPLES))}, "examples of text"),
    ],
)
def test_what_does_not_fit_together_is_refused(small: Comparison, change: Callable, told: str) -> None:
    with pytest.raises(EvaluationError, match=r"does not fit together: expected .*, got .*\. Compare again\.") as error:
        replace(small, **change(small))
    assert told in str(error.value)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 24), np.float32),
        np.zeros((8, 24), ">f8"),
        np.zeros((8, 23)),
        np.zeros((24, 8)),
        np.zeros(192),
        np.zeros((8, 24), "U1"),
        np.zeros((8, 24), [("a", "<f8")]),
        np.full((8, 24), None),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_an_array_of_another_dtype_or_shape_is_refused(small: Comparison, tmp_path: Path, array: np.ndarray) -> None:
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    path = rewritten(small, tmp_path, {"kl_to_dense.npy": file.getvalue()})
    with pytest.raises(EvaluationError, match=r"expected float64 of shape \(8, 24\) in kl_to_dense, got"):
        open_comparison(path)


def test_a_bomb_is_refused_before_it_is_unpacked(small: Comparison, tmp_path: Path) -> None:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (8, 1 << 20)})
    path = rewritten(small, tmp_path, {"kl_to_dense.npy": file.getvalue() + bytes(8 << 23)})
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(EvaluationError, match=r"got float64 of shape \(8, 1048576\)"):
            open_comparison(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_header_without_its_numbers_is_refused(small: Comparison, tmp_path: Path) -> None:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (8, 24)})
    for data in (file.getvalue(), b"", b"\x93NUMPY\x03\x00", b"\x93NUMPY\x01\x00\xff\xff"):
        with pytest.raises(EvaluationError):
            open_comparison(rewritten(small, tmp_path, {"kl_to_dense.npy": data}))


def test_a_file_that_unpacks_to_too_much_or_holds_more_is_refused(
    small: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EvaluationError, match="expected arrays among meta"):
        open_comparison(rewritten(small, tmp_path, {"extra.npy": b"more"}))
    path = save_comparison(small, tmp_path / "c.npz")
    for bound in ("MAX_BYTES", "MAX_TEXT"):
        with monkeypatch.context() as patched:
            patched.setattr(f"vlm_analysis.saved.{bound}", 1000)
            with pytest.raises(EvaluationError, match=r"expected at most 0 MB when unpacked, got"):
                open_comparison(path)


@pytest.mark.parametrize(
    "change",
    [
        {"ways": [["m", None, "s", None, 1, 0, 1.5]]},
        {"ways": [["m", None, "s", None, "1", 0, 0]]},
        {"ways": [["m", None, "s", None, 1, 0, 1 << 70]]},
        {"ways": [["m", [], "s", None, 1, 0, 0]]},
        {"ways": [1]},
        {"ways": []},
        {"n_shared": 0.5},
        {"n_shared": "0"},
        {"left_out": {"one": 1}},
        {"left_out": None},
        {"masks": []},
        {"masks": {}},
        {"chosen_on": None},
        {"dense": 1},
    ],
    ids=str,
)
def test_a_file_that_tells_other_things_is_refused(small: Comparison, tmp_path: Path, change: dict) -> None:
    with np.load(save_comparison(small, tmp_path / "c.npz")) as stored:
        told = json.loads(stored["meta"].tobytes())
    file = io.BytesIO()
    np.lib.format.write_array(file, np.frombuffer(json.dumps(told | change).encode(), np.uint8))
    with pytest.raises(EvaluationError):
        open_comparison(rewritten(small, tmp_path, {"meta.npy": file.getvalue()}))
