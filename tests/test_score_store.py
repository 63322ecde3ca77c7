"""Scores on disk: what was put is there to the bit, whatever was cut short or damaged."""

from __future__ import annotations

import math
import resource
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.scores import HEADER, RECORDS, TORN, ScoreStore

numbers = st.floats(allow_nan=True, allow_infinity=True)
scores = st.fixed_dictionaries(
    {
        "exact_match": st.booleans(),
        "answer_nll": numbers,
        "token_agreement": numbers,
        "kl_to_dense": numbers,
    }
)
puts = st.lists(
    st.tuples(st.frozensets(st.integers(0, 18), max_size=5), st.dictionaries(st.integers(0, 9), scores, min_size=1)),
    max_size=8,
)


def same(one: dict, other: dict) -> bool:
    return all(
        one[key] == other[key] or (math.isnan(one[key]) and math.isnan(other[key])) for key in one.keys() | other.keys()
    )


@settings(max_examples=60)
@given(puts)
def test_what_was_put_is_there_again(tmp_path_factory: pytest.TempPathFactory, given: list) -> None:
    folder = tmp_path_factory.mktemp("scores")
    store, wanted = ScoreStore(19, 10, folder), {}
    for layers, rows in given:
        dropped = tuple(sorted(layers))
        store.put(dropped, list(rows), list(rows.values()))
        wanted.setdefault(dropped, {}).update(rows)
    for found in (store, ScoreStore(19, 10, folder)):
        for dropped, rows in wanted.items():
            kept = found.of(dropped)
            assert kept.keys() == rows.keys()
            assert all(same(kept[row], rows[row]) for row in rows)
            assert not found.lacks(dropped, list(rows))
            assert found.lacks(dropped, range(10)) == (len(rows) < 10)
            assert found.n_known(dropped) == len(rows)


SCORE = {"exact_match": True, "answer_nll": 0.1, "token_agreement": 1.0, "kl_to_dense": 0.2}


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_a_record_cut_short_does_not_count_and_does_not_hurt_later_ones(tmp_path: Path, cut: int) -> None:
    store = ScoreStore(16, 4, tmp_path)
    store.put((3,), [0, 1], [SCORE, SCORE])
    data = (tmp_path / RECORDS).read_bytes()
    (tmp_path / RECORDS).write_bytes(data[:-cut])
    again = ScoreStore(16, 4, tmp_path)
    assert list(again.of((3,))) == [0]
    again.put((3,), [1], [SCORE])
    assert list(ScoreStore(16, 4, tmp_path).of((3,))) == [0, 1]


def filled(folder: Path, n_rows: int) -> tuple[ScoreStore, bytes]:
    """Return a store of one mask with scores on all rows, and its file's bytes."""
    store = ScoreStore(12, n_rows, folder)
    store.put((3,), range(n_rows), [{**SCORE, "answer_nll": float(row)} for row in range(n_rows)])
    return store, (folder / RECORDS).read_bytes()


@pytest.mark.parametrize("tail", [bytes(7), bytes(36), bytes(4096), b"\xff" * 36 * 3, b"\x07" * 100])
def test_a_torn_end_is_cut_off_and_later_ones_stand_in_its_place(tmp_path: Path, tail: bytes) -> None:
    _, data = filled(tmp_path, 4)
    (tmp_path / RECORDS).write_bytes(data[: 36 * 2] + tail)
    again = ScoreStore(12, 4, tmp_path)
    assert list(again.of((3,))) == [0, 1]
    assert (tmp_path / RECORDS).read_bytes() == data[: 36 * 2]
    again.put((3,), [2, 3], [{**SCORE, "answer_nll": 2.0}, {**SCORE, "answer_nll": 3.0}])
    assert (tmp_path / RECORDS).read_bytes() == data


@settings(max_examples=60)
@given(st.integers(0, 36 * 4 * 8 - 1))
def test_any_flipped_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, bit: int) -> None:
    folder = tmp_path_factory.mktemp("scores")
    _, data = filled(folder, 4)
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    (folder / RECORDS).write_bytes(flipped)
    assert list(ScoreStore(12, 4, folder).of((3,))) == list(range(bit // 8 // 36))


def test_a_broken_record_before_many_whole_ones_is_damage(tmp_path: Path) -> None:
    _, data = filled(tmp_path, TORN + 3)
    (tmp_path / RECORDS).write_bytes(data[:36] + bytes(36) + data[72:])
    with pytest.raises(EvaluationError, match=r"damaged: expected .*, got a broken record 1 before whole ones"):
        ScoreStore(12, TORN + 3, tmp_path)
    assert len((tmp_path / RECORDS).read_bytes()) == len(data)


@pytest.mark.parametrize(("place", "value"), [(1, 0x41), (2, 4), (6, 0), (6, 2), (7, 2)])
def test_a_record_that_cannot_be_is_no_record_whatever_its_checksum(tmp_path: Path, place: int, value: int) -> None:
    _, data = filled(tmp_path, 4)
    last = bytearray(data[-36:-4])
    last[place] = value  # a layer beyond the model, a row beyond the prompts, a state that no store writes
    (tmp_path / RECORDS).write_bytes(data[:-36] + last + zlib.crc32(last).to_bytes(4, "little"))
    assert list(ScoreStore(12, 4, tmp_path).of((3,))) == [0, 1, 2]
    assert (tmp_path / RECORDS).read_bytes() == data[:-36]


def test_records_without_a_header_are_not_taken_over(tmp_path: Path) -> None:
    filled(tmp_path, 4)
    (tmp_path / HEADER).unlink()
    with pytest.raises(EvaluationError, match=r"damaged: expected .*, got records without header\.json"):
        ScoreStore(12, 4, tmp_path, {"model": "another"})
    assert not (tmp_path / HEADER).exists()


@pytest.mark.parametrize("header", [b"", b"\xff\xfe{", b"{", b"[]", b"[" * 100_000, None])
def test_a_header_that_cannot_be_read_is_damage(tmp_path: Path, header: bytes | None) -> None:
    filled(tmp_path, 4)
    (tmp_path / HEADER).unlink()
    if header is None:
        (tmp_path / HEADER).mkdir()
    else:
        (tmp_path / HEADER).write_bytes(header)
    with pytest.raises(
        EvaluationError, match=r"are damaged: expected .*, got .*\. Delete the folder and measure again\."
    ):
        ScoreStore(12, 4, tmp_path)


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    store, data = filled(tmp_path, 4)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(data) + 40, hard))  # room for a record and a bit
    try:
        with pytest.raises(EvaluationError, match=r"cannot be written .* File too large"):
            store.put((5,), [0, 1], [SCORE, SCORE])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / RECORDS).read_bytes() == data
    assert store.n_known((5,)) == 0
    store.put((5,), [0, 1], [SCORE, SCORE])
    assert list(ScoreStore(12, 4, tmp_path).of((5,))) == [0, 1]


def test_a_hundred_thousand_records_of_a_thousand_masks_open_again(tmp_path: Path) -> None:
    store = ScoreStore(12, 100, tmp_path)
    for number in range(1000):
        dropped = tuple(np.flatnonzero([number >> layer & 1 for layer in range(12)]).tolist())
        store.put(dropped, range(100), [SCORE] * 100)
    again = ScoreStore(12, 100, tmp_path)
    assert again.n_known((0, 1)) == again.n_known((9, 8, 7)[::-1]) == 100


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    ScoreStore(16, 4, tmp_path, {"model": "a"})
    for layers, rows, belongs in ((16, 4, {"model": "b"}), (16, 5, {"model": "a"}), (12, 4, {"model": "a"})):
        with pytest.raises(EvaluationError, match="another model"):
            ScoreStore(layers, rows, tmp_path, belongs)
    ScoreStore(16, 4, tmp_path, {"model": "a"})


def test_a_folder_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EvaluationError, match=r"cannot be written .*Not a directory") as told:
        ScoreStore(16, 4, tmp_path / "file" / "below")
    assert "space" not in str(told.value)
    ScoreStore(16, 4, tmp_path)
    (tmp_path / RECORDS).mkdir()
    with pytest.raises(EvaluationError, match="Is a directory"):
        ScoreStore(16, 4, tmp_path)


def test_columns_stand_in_the_order_of_the_masks_with_nan_where_nothing_is_known() -> None:
    store = ScoreStore(16, 3)
    store.put((3,), [0, 2], [SCORE, {**SCORE, "answer_nll": 0.5}])
    found = store.column("answer_nll", [(5,), (3,)], 2)
    np.testing.assert_array_equal(found, [[np.nan, np.nan], [0.1, np.nan]])
