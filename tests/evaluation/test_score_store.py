"""Scores on disk: what was put is there to the bit, whatever was cut short or damaged."""

from __future__ import annotations

import json
import math
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from vlm_analysis import PruneMask
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.scores import FILE, ScoreStore
from vlm_analysis.progress import Cancelled, stoppable

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


def key(*layers: int) -> str:
    return PruneMask(19, layers).key


THREE, FIVE = key(3), key(5)


def same(one: dict, other: dict) -> bool:
    return all(
        one[key] == other[key] or (math.isnan(one[key]) and math.isnan(other[key])) for key in one.keys() | other.keys()
    )


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
            assert len(found.of(edit)) == len(rows)


SCORE = {"exact_match": True, "answer_nll": 0.1, "token_agreement": 1.0, "kl_to_dense": 0.2}


def filled(folder: Path, n_rows: int = 4) -> ScoreStore:
    """Return a store of one edit with scores on all rows."""
    store = ScoreStore(12, n_rows, folder)
    store.put(THREE, range(n_rows), [{**SCORE, "answer_nll": float(row)} for row in range(n_rows)])
    return store


def test_each_score_is_seen_by_every_store_of_the_folder(tmp_path: Path) -> None:
    one, other = ScoreStore(12, 4, tmp_path), ScoreStore(12, 4, tmp_path)
    one.put(THREE, [0, 1], [SCORE, SCORE])
    assert not other.lacks(THREE, [0, 1])
    other.put(FIVE, [2], [SCORE])
    assert list(one.of(FIVE)) == [2]
    one.put(FIVE, [2, 3], [SCORE, SCORE])
    del one, other
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


KILLED = """
import os, sys
from pathlib import Path
from vlm_analysis import PruneMask
from vlm_analysis.evaluation import scores
score = {"exact_match": True, "answer_nll": 0.1, "token_agreement": 1.0, "kl_to_dense": 0.2}
store = scores.ScoreStore(19, 4, Path(sys.argv[1]))
store.put(PruneMask(19, (3,)).key, [0, 1], [score, score])
def rows():
    for row in (2, 3):
        yield scores._row_of(PruneMask(19, (3,)).key, row, score)
        os.kill(os.getpid(), 9) if row == 3 else None
with store._change():
    store._write(rows())
"""


def test_of_a_write_cut_short_by_a_kill_nothing_is_there_and_what_was_before_is(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    again = ScoreStore(19, 4, tmp_path)
    assert list(again.of(THREE)) == [0, 1]
    again.put(THREE, [2], [SCORE])
    assert list(ScoreStore(19, 4, tmp_path).of(THREE)) == [0, 1, 2]


def test_who_waits_for_another_writer_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_analysis.evaluation.scores.BUSY_S", 0.01)
    one, other = ScoreStore(12, 4, tmp_path), ScoreStore(12, 4, tmp_path)
    looks = []

    def check() -> None:
        looks.append(1)
        if len(looks) == 3:
            raise Cancelled

    with one._change(), stoppable(check), pytest.raises(Cancelled):
        other.put(THREE, [0], [SCORE])
    other.put(THREE, [1], [SCORE])
    assert list(one.of(THREE)) == [1]


@given(st.data())
def test_any_changed_bit_is_noticed_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("scores")
    whole = filled(folder, 40).of(THREE)
    content = bytearray((folder / FILE).read_bytes())
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    content[bit // 8] ^= 1 << bit % 8
    (folder / FILE).write_bytes(content)
    with suppress(EvaluationError):
        kept = ScoreStore(12, 40, folder).of(THREE)
        assert all(same(kept[row], whole[row]) for row in kept)


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough for its header" * 20, bytes(8192), b"\x07" * 100]
)
def test_a_file_of_something_else_is_damage_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(EvaluationError, match=r"damaged: expected .*, got .* Delete the folder and measure again"):
        ScoreStore(12, 4, tmp_path)
    assert (tmp_path / FILE).read_bytes() == content


def test_numbers_changed_behind_its_back_are_damage(tmp_path: Path) -> None:
    filled(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as base:
        base.execute("UPDATE scores SET answer_nll = 0.5 WHERE row = 2")
    with pytest.raises(EvaluationError, match="got other numbers of row 2"):
        ScoreStore(12, 4, tmp_path)


def test_tables_of_another_program_are_damage(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as base:
        base.execute("CREATE TABLE games (name TEXT)")
    with pytest.raises(EvaluationError, match=r"damaged: .* got other tables"):
        ScoreStore(12, 4, tmp_path)


def test_a_folder_that_was_removed_is_told_as_that_and_not_as_a_full_disk(tmp_path: Path) -> None:
    store = filled(tmp_path / "scores")
    shutil.rmtree(tmp_path / "scores")
    with pytest.raises(EvaluationError, match="removed files of it meanwhile: start again") as told:
        store.put(FIVE, [1], [SCORE])
    assert "space" not in str(told.value)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    store = filled(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(EvaluationError, match=r"cannot be written .* Free some space"):
            store.put(FIVE, range(4), [SCORE] * 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(store.of(THREE)) == [0, 1, 2, 3]
    store.put(FIVE, [0, 1], [SCORE, SCORE])
    again = ScoreStore(12, 4, tmp_path)
    assert (list(again.of(THREE)), list(again.of(FIVE))) == ([0, 1, 2, 3], [0, 1])


@pytest.mark.slow
def test_a_hundred_thousand_records_of_a_thousand_edits_open_again(tmp_path: Path) -> None:
    store = ScoreStore(12, 100, tmp_path)
    for number in range(1000):
        store.put(
            key(*np.flatnonzero([number >> layer & 1 for layer in range(12)]).tolist()), range(100), [SCORE] * 100
        )
    again = ScoreStore(12, 100, tmp_path)
    assert len(again.of(key(0, 1))) == len(again.of(key(9, 8, 7))) == 100


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
    (tmp_path / FILE).mkdir()
    with pytest.raises(EvaluationError, match="got a folder, pipe or device"):
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
        del store
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_scores_of_version_0_1_are_taken_over(tmp_path: Path) -> None:
    assert_taken_over(tmp_path, of_version_0_1(tmp_path))


def test_a_torn_end_of_version_0_1_is_left_out(tmp_path: Path) -> None:
    masks = of_version_0_1(tmp_path)
    with (tmp_path / "scores.bin").open("ab") as file:
        file.write(b"\x01" * 20)
    assert_taken_over(tmp_path, masks)


def test_records_of_version_0_1_that_are_not_as_they_were_written_are_refused_and_left(tmp_path: Path) -> None:
    of_version_0_1(tmp_path)
    data = bytes(44) + (tmp_path / "scores.bin").read_bytes()
    (tmp_path / "scores.bin").write_bytes(data)
    with pytest.raises(EvaluationError, match=r"damaged: .* got others in scores\.bin"):
        ScoreStore(12, 3, tmp_path, {"model": "a"})
    assert (tmp_path / "scores.bin").read_bytes() == data


def test_who_comes_while_another_takes_a_folder_over_finds_its_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks, read = of_version_0_1(tmp_path), Path.read_text

    def late(path: Path, *args: str) -> str:
        if path.name == "header.json":
            monkeypatch.setattr(Path, "read_text", read)
            ScoreStore(12, 3, tmp_path, {"model": "a"})
        return read(path, *args)

    monkeypatch.setattr(Path, "read_text", late)
    assert_taken_over(tmp_path, masks)


@pytest.mark.parametrize(
    ("code", "advice"), [(sqlite3.SQLITE_FULL, "Free some space"), (sqlite3.SQLITE_IOERR_FSTAT, "Start again")]
)
def test_only_a_full_disk_is_told_as_one(tmp_path: Path, code: int, advice: str) -> None:
    store = filled(tmp_path)
    error = sqlite3.OperationalError("no luck")
    error.sqlite_errorcode = code
    with pytest.raises(EvaluationError, match=advice) as told, store._explained():
        raise error
    assert ("space" in str(told.value)) == (code == sqlite3.SQLITE_FULL)


@pytest.mark.parametrize("killed_in", ["_write", "_check"])
def test_taking_over_goes_on_after_a_kill(tmp_path: Path, killed_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends before the rows are there, or before the old files are gone; the next one finds all scores."""
    masks = of_version_0_1(tmp_path)

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ScoreStore, killed_in, kill)
        with pytest.raises(KeyboardInterrupt):
            ScoreStore(12, 3, tmp_path, {"model": "a"})
    assert_taken_over(tmp_path, masks)


@pytest.mark.parametrize("header", [b"", b"\xff\xfe{", b"{", b"[]", b"[" * 100_000, None])
def test_a_header_of_version_0_1_that_cannot_be_read_is_refused_and_left(tmp_path: Path, header: bytes | None) -> None:
    of_version_0_1(tmp_path)
    (tmp_path / "header.json").unlink()
    if header is None:
        (tmp_path / "header.json").mkdir()
    else:
        (tmp_path / "header.json").write_bytes(header)
    with pytest.raises(EvaluationError, match=r"delete this one|Delete the folder and measure again"):
        ScoreStore(12, 3, tmp_path, {"model": "a"})
    assert (tmp_path / "scores.bin").exists()
    assert not (tmp_path / FILE).exists()


def test_scores_of_version_0_1_of_another_model_are_refused_and_left_as_they_are(tmp_path: Path) -> None:
    of_version_0_1(tmp_path)
    with pytest.raises(EvaluationError, match="another model"):
        ScoreStore(12, 3, tmp_path, {"model": "b"})
    assert {path.name for path in tmp_path.iterdir()} == {"header.json", "scores.bin"}
