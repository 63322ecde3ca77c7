"""Scores on disk: what was put is there to the bit, whatever was cut short or damaged."""

from __future__ import annotations

import json
import math
import resource
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from vlm_analysis import PruneMask
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.scores import HEADER, RECORDS, TORN, ScoreStore
from vlm_analysis.files import write_atomically

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


SIZE = 50  # bytes of a record


def key(*layers: int) -> str:
    return PruneMask(19, layers).key


THREE, FIVE = key(3), key(5)


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
        edit = key(*layers)
        store.put(edit, list(rows), list(rows.values()))
        wanted.setdefault(edit, {}).update(rows)
    for found in (store, ScoreStore(19, 10, folder)):
        for edit, rows in wanted.items():
            kept = found.of(edit)
            assert kept.keys() == rows.keys()
            assert all(same(kept[row], rows[row]) for row in rows)
            assert not found.lacks(edit, list(rows))
            assert found.lacks(edit, range(10)) == (len(rows) < 10)
            assert found.n_known(edit) == len(rows)


SCORE = {"exact_match": True, "answer_nll": 0.1, "token_agreement": 1.0, "kl_to_dense": 0.2}


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_a_record_cut_short_does_not_count_and_does_not_hurt_later_ones(tmp_path: Path, cut: int) -> None:
    store = ScoreStore(16, 4, tmp_path)
    store.put(THREE, [0, 1], [SCORE, SCORE])
    data = (tmp_path / RECORDS).read_bytes()
    (tmp_path / RECORDS).write_bytes(data[:-cut])
    again = ScoreStore(16, 4, tmp_path)
    assert list(again.of(THREE)) == [0]
    again.put(THREE, [1], [SCORE])
    assert list(ScoreStore(16, 4, tmp_path).of(THREE)) == [0, 1]


def filled(folder: Path, n_rows: int) -> tuple[ScoreStore, bytes]:
    """Return a store of one edit with scores on all rows, and its file's bytes."""
    store = ScoreStore(12, n_rows, folder)
    store.put(THREE, range(n_rows), [{**SCORE, "answer_nll": float(row)} for row in range(n_rows)])
    return store, (folder / RECORDS).read_bytes()


@pytest.mark.parametrize("tail", [bytes(7), bytes(SIZE), bytes(4096), b"\xff" * SIZE * 3, b"\x07" * 100])
def test_a_torn_end_is_cut_off_and_later_ones_stand_in_its_place(tmp_path: Path, tail: bytes) -> None:
    _, data = filled(tmp_path, 4)
    (tmp_path / RECORDS).write_bytes(data[: SIZE * 2] + tail)
    again = ScoreStore(12, 4, tmp_path)
    assert list(again.of(THREE)) == [0, 1]
    assert (tmp_path / RECORDS).read_bytes() == data[: SIZE * 2]
    again.put(THREE, [2, 3], [{**SCORE, "answer_nll": 2.0}, {**SCORE, "answer_nll": 3.0}])
    assert (tmp_path / RECORDS).read_bytes() == data


@settings(max_examples=60)
@given(st.integers(0, SIZE * 4 * 8 - 1))
def test_any_flipped_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, bit: int) -> None:
    folder = tmp_path_factory.mktemp("scores")
    _, data = filled(folder, 4)
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    (folder / RECORDS).write_bytes(flipped)
    if bit // 8 < SIZE:  # nothing whole stands before it
        with pytest.raises(EvaluationError, match="broken record 0 before whole ones"):
            ScoreStore(12, 4, folder)
    else:
        assert list(ScoreStore(12, 4, folder).of(THREE)) == list(range(bit // 8 // SIZE))


def test_a_broken_record_before_many_whole_ones_is_damage(tmp_path: Path) -> None:
    _, data = filled(tmp_path, TORN + 3)
    (tmp_path / RECORDS).write_bytes(data[:SIZE] + bytes(SIZE) + data[2 * SIZE :])
    with pytest.raises(EvaluationError, match=r"damaged: expected .*, got a broken record 1 before whole ones"):
        ScoreStore(12, TORN + 3, tmp_path)
    assert len((tmp_path / RECORDS).read_bytes()) == len(data)


@pytest.mark.parametrize("n_zeros", [1, 44, SIZE, 4096])
def test_zeros_in_front_are_damage_and_empty_nothing(tmp_path: Path, n_zeros: int) -> None:
    _, data = filled(tmp_path, 4)
    (tmp_path / RECORDS).write_bytes(bytes(n_zeros) + data)
    with pytest.raises(EvaluationError, match=r"damaged: expected .*, got .* Delete the folder and measure again"):
        ScoreStore(12, 4, tmp_path)
    assert (tmp_path / RECORDS).read_bytes() == bytes(n_zeros) + data


def test_bytes_put_between_records_are_damage(tmp_path: Path) -> None:
    _, data = filled(tmp_path, 4)
    (tmp_path / RECORDS).write_bytes(data[: 2 * SIZE] + bytes(7) + data[2 * SIZE :])
    with pytest.raises(EvaluationError, match="records that do not follow each other from byte 100 on"):
        ScoreStore(12, 4, tmp_path)


def test_two_stores_of_one_folder_take_in_what_the_other_appends(tmp_path: Path) -> None:
    one, other = ScoreStore(12, 4, tmp_path), ScoreStore(12, 4, tmp_path)
    one.put(THREE, [0, 1], [SCORE, SCORE])
    assert other.lacks(THREE, [0])
    other.put(FIVE, [2], [SCORE])
    assert list(other.of(THREE)) == [0, 1]
    one.refresh()
    assert list(one.of(FIVE)) == [2]
    one.put(FIVE, [2, 3], [SCORE, SCORE])  # row 2 is there alike
    assert (tmp_path / RECORDS).stat().st_size == 4 * SIZE
    assert {path.name for path in tmp_path.iterdir()} == {HEADER, RECORDS}


def test_what_another_killed_in_the_middle_of_a_record_is_cut_off_by_the_next_to_append(tmp_path: Path) -> None:
    store, data = filled(tmp_path, 4)
    with (tmp_path / RECORDS).open("ab") as file:
        file.write(data[: SIZE + 10])
    store.put(FIVE, [1], [SCORE])
    again = ScoreStore(12, 4, tmp_path)
    assert (list(again.of(THREE)), list(again.of(FIVE))) == ([0, 1, 2, 3], [1])
    assert (tmp_path / RECORDS).stat().st_size == 6 * SIZE


def test_a_file_that_was_cut_under_a_store_is_damage(tmp_path: Path) -> None:
    store, data = filled(tmp_path, 4)
    (tmp_path / RECORDS).write_bytes(data[:SIZE])
    with pytest.raises(EvaluationError, match="got 50 bytes of records where 200 were written"):
        store.put(FIVE, [1], [SCORE])


def test_a_folder_that_was_removed_is_told_as_that_and_not_as_a_full_disk(tmp_path: Path) -> None:
    store, _ = filled(tmp_path / "scores", 4)
    shutil.rmtree(tmp_path / "scores")
    with pytest.raises(EvaluationError, match="removed files of it meanwhile: start again") as told:
        store.put(FIVE, [1], [SCORE])
    assert "space" not in str(told.value)


@pytest.mark.parametrize(("place", "value"), [(16, 4), (20, 0), (20, 2), (21, 2)])
def test_a_record_that_cannot_be_is_no_record_whatever_its_checksum(tmp_path: Path, place: int, value: int) -> None:
    _, data = filled(tmp_path, 4)
    last = bytearray(data[-SIZE:-4])
    last[place] = value  # a row beyond the prompts, a state that no store writes
    (tmp_path / RECORDS).write_bytes(data[:-SIZE] + last + zlib.crc32(last).to_bytes(4, "little"))
    assert list(ScoreStore(12, 4, tmp_path).of(THREE)) == [0, 1, 2]
    assert (tmp_path / RECORDS).read_bytes() == data[:-SIZE]


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
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(data) + SIZE + 4, hard))  # room for a record and a bit
    try:
        with pytest.raises(EvaluationError, match=r"cannot be written .* File too large"):
            store.put(FIVE, [0, 1], [SCORE, SCORE])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / RECORDS).read_bytes() == data
    assert store.n_known(FIVE) == 0
    store.put(FIVE, [0, 1], [SCORE, SCORE])
    assert list(ScoreStore(12, 4, tmp_path).of(FIVE)) == [0, 1]


def test_a_hundred_thousand_records_of_a_thousand_edits_open_again(tmp_path: Path) -> None:
    store = ScoreStore(12, 100, tmp_path)
    for number in range(1000):
        store.put(
            key(*np.flatnonzero([number >> layer & 1 for layer in range(12)]).tolist()), range(100), [SCORE] * 100
        )
    again = ScoreStore(12, 100, tmp_path)
    assert again.n_known(key(0, 1)) == again.n_known(key(9, 8, 7)) == 100


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


def test_columns_stand_in_the_order_of_the_edits_with_nan_where_nothing_is_known() -> None:
    store = ScoreStore(16, 3)
    store.put(THREE, [0, 2], [SCORE, {**SCORE, "answer_nll": 0.5}])
    found = store.column("answer_nll", [FIVE, THREE], 2)
    np.testing.assert_array_equal(found, [[np.nan, np.nan], [0.1, np.nan]])


OLD = np.dtype(
    [("mask", "u1", (2,)), ("row", "<u4"), ("known", "u1"), ("exact_match", "u1")]
    + [(name, "<f8") for name in ("answer_nll", "token_agreement", "kl_to_dense")]
    + [("crc32", "<u4")]
)


def of_version_0_1(folder: Path, n_rows: int = 3) -> list[tuple[int, ...]]:
    """Write a folder as version 0.1 did, of 12 layers with scores of two masks on all rows, and return the masks."""
    masks = [(3,), (4, 11)]
    records = np.zeros(len(masks) * n_rows, OLD)
    for place, (layers, row) in enumerate((layers, row) for layers in masks for row in range(n_rows)):
        flags = np.zeros(12, bool)
        flags[list(layers)] = True
        records[place] = (np.packbits(flags), row, 1, row % 2, len(layers) + row / 8, 1.0, math.nan, 0)
    for record in records:
        record["crc32"] = zlib.crc32(record.tobytes()[:-4])
    folder.mkdir(exist_ok=True)
    (folder / "header.json").write_text(
        json.dumps({"version": 2, "rows": n_rows, "layers": 12, "model": "a"}, sort_keys=True)
    )
    (folder / "scores.bin").write_bytes(records.tobytes())
    return masks


def assert_taken_over(folder: Path, masks: list[tuple[int, ...]]) -> None:
    for _ in range(2):  # taken over, and opened as it is now
        store = ScoreStore(12, 3, folder, {"model": "a"})
        for layers in masks:
            found = store.of(PruneMask(12, layers).key)
            assert [(score["exact_match"], score["answer_nll"]) for score in found.values()] == [
                (bool(row % 2), len(layers) + row / 8) for row in range(3)
            ]
            assert all(math.isnan(score["kl_to_dense"]) for score in found.values())
    assert {path.name for path in folder.iterdir()} == {HEADER, RECORDS}


def test_scores_of_version_0_1_are_taken_over(tmp_path: Path) -> None:
    assert_taken_over(tmp_path, of_version_0_1(tmp_path))


def test_a_torn_end_of_version_0_1_is_left_out(tmp_path: Path) -> None:
    masks = of_version_0_1(tmp_path)
    with (tmp_path / "scores.bin").open("ab") as file:
        file.write(b"\x01" * 20)
    assert_taken_over(tmp_path, masks)


@pytest.mark.parametrize("last", ["records.bin", "header.json"])
def test_taking_over_goes_on_after_a_kill(tmp_path: Path, last: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends right after a file was written; the next one finds all scores."""
    masks = of_version_0_1(tmp_path)

    def kill_after(path: Path, write: Callable[[Path], object]) -> Path:
        write_atomically(path, write)
        if path.name == last:
            raise KeyboardInterrupt
        return path

    with monkeypatch.context() as patch:
        patch.setattr("vlm_analysis.evaluation.scores.write_atomically", kill_after)
        with pytest.raises(KeyboardInterrupt):
            ScoreStore(12, 3, tmp_path, {"model": "a"})
    assert_taken_over(tmp_path, masks)


def test_scores_of_version_0_1_of_another_model_are_refused_and_left_as_they_are(tmp_path: Path) -> None:
    of_version_0_1(tmp_path)
    with pytest.raises(EvaluationError, match="another model"):
        ScoreStore(12, 3, tmp_path, {"model": "b"})
    assert {path.name for path in tmp_path.iterdir()} == {"header.json", "scores.bin"}
