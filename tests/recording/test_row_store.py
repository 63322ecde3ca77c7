"""Rows on disk: what was measured stays when the work is cancelled, killed or the disk is full, and only the rest is run again."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles import made_recording

from vlm_analysis import (
    MEASURES,
    Cancelled,
    LoadedModel,
    PromptSet,
    Recording,
    load_model,
    open_recording,
    record,
    save_recording,
)
from vlm_analysis.errors import RecordingError
from vlm_analysis.recording.measures import empty_rows
from vlm_analysis.recording.recording import Activations
from vlm_analysis.recording.rows import HEADER, ROWS, SUMS, RowStore


def rows_of(first: int, count: int) -> np.ndarray:
    rows = empty_rows(count, 3)
    rows["key"] = [f"{first + place:032x}".encode() for place in range(count)]
    rows["cosine"] = np.arange(first, first + count)[:, None, None]
    return rows


def sums_of(value: float) -> dict[str, Activations]:
    return {"math": Activations(np.full((2, 3, 4), float(value)), np.full(3, float(value)), 1)}


def keys_of(rows: np.ndarray) -> list[str]:
    return [key.decode() for key in rows["key"]]


class TestStore:
    def test_what_was_appended_is_there_when_opened_again(self, tmp_path: Path) -> None:
        store = RowStore(tmp_path / "rows", {"model": "m"}, 3)
        store.append(rows_of(0, 2), sums_of(1))
        store.append(rows_of(2, 1), sums_of(2))
        again = RowStore(tmp_path / "rows", {"model": "m"}, 3)
        assert again.keys == frozenset(keys_of(rows_of(0, 3)))
        assert again.activations["math"].n_prompts == 2
        np.testing.assert_array_equal(again.activations["math"].sums, np.full((2, 3, 4), 3.0))
        order = keys_of(rows_of(0, 3))[::-1]
        np.testing.assert_array_equal(again.assembled(order)["cosine"][:, 0, 0], [2, 1, 0])

    def test_a_folder_of_a_version_with_fewer_measures_goes_on_without_the_new_ones(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as before:
            fewer = {name: row for name, row in MEASURES.items() if name != "update"}
            before.setattr("vlm_analysis.recording.measures.MEASURES", fewer)
            RowStore(tmp_path, {"model": "m"}, 3).append(rows_of(0, 2), sums_of(1))
        store, later = RowStore(tmp_path, {"model": "m"}, 3), rows_of(2, 2)
        later["update"] = 7.0
        store.append(later[:1], {})
        again = RowStore(tmp_path, {"model": "m"}, 3)
        assert again.lacks == store.lacks == ("update",)
        known = replace(made_recording([("math", [0.5, 0.5, 0.5])]), rows=later[1:])
        found = again.assembled(keys_of(rows_of(0, 4)), known)
        assert found.dtype == later.dtype
        np.testing.assert_array_equal(found["cosine"][:, 0, 0], [0, 1, 2, 3])
        assert np.isnan(found["update"]).all()
        for header in (
            "",
            "[" * 9999,
            '{"rows": "[]", "belongs": {"model": "m"}}',
            '{"rows": 3, "belongs": {"model": "m"}}',
        ):
            (tmp_path / HEADER).write_text(header)
            with pytest.raises(RecordingError, match="another version of Strata"):
                RowStore(tmp_path, {"model": "m"}, 3)

    def test_a_batch_cut_short_is_forgotten_and_written_over(self, tmp_path: Path) -> None:
        store = RowStore(tmp_path, {}, 3)
        store.append(rows_of(0, 2), sums_of(1))
        with (tmp_path / ROWS).open("ab") as file:
            file.write(rows_of(2, 1).tobytes()[:100])
        again = RowStore(tmp_path, {}, 3)
        assert len(again.keys) == 2
        again.append(rows_of(5, 2), {})
        found = RowStore(tmp_path, {}, 3).assembled(keys_of(rows_of(5, 2)))
        np.testing.assert_array_equal(found["cosine"][:, 0, 0], [5, 6])

    def test_rows_known_from_elsewhere_are_joined_in(self, tmp_path: Path) -> None:
        known = made_recording([("a", [0.1, 0.2, 0.3]), ("a", [0.4, 0.5, 0.6])])
        known.rows["key"] = [b"x", b"y"]
        store = RowStore(tmp_path, {}, 3)
        store.append(rows_of(0, 1), {})
        found = store.assembled(["y", f"{0:032x}", "x"], known)
        np.testing.assert_array_equal(found["cosine"][:, 0, 4], [0.4, 0, 0.1])

    @pytest.mark.parametrize("change", [{"belongs": {"model": "other"}}, {"n_layers": 4}])
    def test_rows_of_something_else_are_refused(self, tmp_path: Path, change: dict[str, Any]) -> None:
        RowStore(tmp_path, {"model": "m"}, 3)
        with pytest.raises(RecordingError, match="another model, other settings or another version"):
            RowStore(tmp_path, **({"belongs": {"model": "m"}, "n_layers": 3} | change))

    # numpy lets go of the open file without closing it when the zip inside cannot be read.
    @pytest.mark.filterwarnings("ignore:.*FileIO:pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.filterwarnings("ignore:.*unclosed file:ResourceWarning")
    @pytest.mark.parametrize("name", [SUMS, ROWS])
    def test_a_damaged_store_says_what_to_do(self, tmp_path: Path, name: str) -> None:
        RowStore(tmp_path, {}, 3).append(rows_of(0, 2), sums_of(1))
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:50])
        with pytest.raises(RecordingError, match="Delete the folder and record again"):
            RowStore(tmp_path, {}, 3)

    def test_a_row_of_another_prompt_is_refused(self, tmp_path: Path) -> None:
        store = RowStore(tmp_path, {}, 3)
        store.append(rows_of(0, 3), sums_of(1))
        size = rows_of(0, 1).itemsize
        with (tmp_path / ROWS).open("r+b") as file:
            file.seek(size)
            file.write(rows_of(7, 1).tobytes())
        with pytest.raises(RecordingError, match=r"expected the row of prompt '0+1', got that of '0+7'.* record again"):
            store.assembled(keys_of(rows_of(0, 3)))

    def test_two_rows_of_one_prompt_are_damage(self, tmp_path: Path) -> None:
        RowStore(tmp_path, {}, 3).append(np.concatenate([rows_of(0, 2), rows_of(1, 1)]), sums_of(1))
        with pytest.raises(RecordingError, match="expected the rows of 3 prompts, got those of 2"):
            RowStore(tmp_path, {}, 3)

    def test_rows_cut_while_they_are_used_are_an_error_and_no_signal(self, tmp_path: Path) -> None:
        store = RowStore(tmp_path, {}, 3)
        store.append(rows_of(0, 3), sums_of(1))
        (tmp_path / ROWS).write_bytes((tmp_path / ROWS).read_bytes()[:-5])
        with pytest.raises(RecordingError, match=r"expected the row of prompt '0+2', got \d+ bytes"):
            store.assembled(keys_of(rows_of(0, 3)))
        with pytest.raises(RecordingError, match="expected 3 rows, got 2"):
            RowStore(tmp_path, {}, 3)

    def test_a_disk_that_is_full_is_reported_and_loses_nothing(self, tmp_path: Path) -> None:
        RowStore(tmp_path, {}, 3).append(rows_of(0, 2), sums_of(1))
        np.save(tmp_path / "more.npy", rows_of(2, 4))
        code = (
            "import resource, signal, numpy\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "from pathlib import Path\n"
            "from vlm_analysis.errors import RecordingError\n"
            "from vlm_analysis.recording.rows import RowStore\n"
            f"folder = Path({str(tmp_path)!r})\n"
            "more, store = numpy.load(folder / 'more.npy'), RowStore(folder, {}, 3)\n"
            f"limit = (folder / {ROWS!r}).stat().st_size + 50\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
            "try: store.append(more, {})\n"
            "except RecordingError as error: print(error)\n"
        )
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
        assert "cannot be written" in done.stdout, done.stderr
        assert len(RowStore(tmp_path, {}, 3).keys) == 2
        assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def assert_same_numbers(one: Recording, other: Recording, atol: float = 0) -> None:
    assert one.keys == other.keys
    for name in MEASURES:
        np.testing.assert_allclose(one.rows[name], other.rows[name], atol=atol, rtol=0, err_msg=name)


class TestRecordingInParts:
    def test_a_cancelled_recording_is_taken_up_where_it_stopped(
        self, loaded: LoadedModel, few: PromptSet, tmp_path: Path
    ) -> None:
        def stop(done: int, total: int, message: str) -> None:
            if done == 4:
                raise Cancelled

        with pytest.raises(Cancelled):
            record(loaded, few, folder=tmp_path, on_progress=stop)
        calls: list[int] = []
        taken_up = record(loaded, few, folder=tmp_path, on_progress=lambda done, total, message: calls.append(done))
        assert calls[0] == 4
        belongs = {"model": loaded.fingerprint, "settings": taken_up.settings}
        assert len(RowStore(tmp_path, belongs, 16, n_tower=loaded.info.n_tower).keys) == 6
        whole = record(loaded, few)
        assert_same_numbers(taken_up, whole)
        for domain, part in whole.activations.items():
            np.testing.assert_allclose(taken_up.activations[domain].sums, part.sums, rtol=1e-12)

    @pytest.mark.slow  # tests/test_owned.py kills one beside another
    def test_a_killed_recording_is_taken_up_too(self, loaded: LoadedModel, packs: PromptSet, tmp_path: Path) -> None:
        code = (
            "import os, sys\n"
            "from pathlib import Path\n"
            "from vlm_analysis.models.load import load_model\n"
            "from vlm_analysis.prompts.opening import open_prompts\n"
            "from vlm_analysis.recording.record import record\n"
            "packs = (open_prompts('math') + open_prompts('general'))[40:60]\n"
            "import vlm_analysis.recording.record\n"
            "vlm_analysis.recording.record.FLUSH_S = 0\n"
            "def die(done, total, message):\n"
            "    if done == 9: os.kill(os.getpid(), 9)\n"
            f"record(load_model(), packs, folder=Path({str(tmp_path)!r}), on_progress=die)\n"
        )
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=False)
        assert done.returncode == -9, done.stderr
        calls: list[int] = []
        chosen = packs[40:60]
        taken_up = record(loaded, chosen, folder=tmp_path, on_progress=lambda done, total, message: calls.append(done))
        assert calls[0] == 9
        assert_same_numbers(taken_up, record(loaded, chosen), atol=1e-6)

    def test_adding_prompts_runs_only_the_new_ones(self, loaded: LoadedModel, few: PromptSet, tmp_path: Path) -> None:
        path = save_recording(record(loaded, few[1:5], token_maps=True), tmp_path / "first.npz")
        calls: list[int] = []
        more = record(
            loaded,
            few,
            known=open_recording(path),
            token_maps=True,
            on_progress=lambda done, total, message: calls.append(done),
        )
        assert calls[0] == 4
        whole = record(loaded, few)
        assert_same_numbers(more, whole)
        np.testing.assert_allclose(more.cross_modal_distance(), whole.cross_modal_distance(), rtol=1e-12)
        again = open_recording(save_recording(more, tmp_path / "more.npz"))
        assert [again.token_map(place).cosine.shape[1] for place in range(6)] == again.rows["token_counts"][
            :, 2:5:2
        ].sum(axis=1).tolist()

    def test_equal_prompts_keep_two_rows_when_taken_up_or_extended(
        self, loaded: LoadedModel, few: PromptSet, tmp_path: Path
    ) -> None:
        def stop(done: int, total: int, message: str) -> None:
            if done == 2:
                raise Cancelled

        twice = PromptSet(replace(prompt, id=None) for prompt in (few[0], few[1], few[0]))
        with pytest.raises(Cancelled):
            record(loaded, twice, folder=tmp_path, on_progress=stop)
        taken_up, whole = record(loaded, twice, folder=tmp_path), record(loaded, twice)
        extended = record(loaded, twice, known=record(loaded, few[:2]))
        for found in (taken_up, extended):
            assert_same_numbers(found, whole)
            assert found.activations["math"].n_prompts == 3
        np.testing.assert_array_equal(whole.rows["cosine"][0], whole.rows["cosine"][2])

    def test_what_cannot_be_extended_is_refused_with_the_reason(self, loaded: LoadedModel, few: PromptSet) -> None:
        known = record(loaded, few[:2])
        with pytest.raises(RecordingError, match="differs in batch_size"):
            record(loaded, few, known=known, batch_size=2)
        with pytest.raises(RecordingError, match="1 of its 2 prompts are not among those to record"):
            record(loaded, few[1:], known=known)
        with pytest.raises(RecordingError, match="differs in max_vision_tokens"):
            record(load_model(max_vision_tokens=9), few, known=known)

    def test_prompts_known_and_stored_too_are_refused_as_they_would_count_twice(
        self, loaded: LoadedModel, few: PromptSet, tmp_path: Path
    ) -> None:
        known = record(loaded, few[:2])
        record(loaded, few[1:4], folder=tmp_path)
        with pytest.raises(RecordingError, match="1 prompts are in the earlier recording"):
            record(loaded, few, known=known, folder=tmp_path)

    def test_a_temporary_folder_goes_with_its_recording(
        self, loaded: LoadedModel, few: PromptSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        made = record(loaded, few[:1], token_maps=True)
        assert made.maps is not None
        assert made.maps.exists()
        del made
        assert not list(tmp_path.iterdir())
        made = record(loaded, few[:1])
        assert not list(tmp_path.iterdir())  # rows lie in a file without a name
        assert np.isfinite(made.rows["cosine"][0, :, 4]).all()

    def test_a_recording_keeps_its_rows_when_its_folder_is_cut_and_deleted(
        self, loaded: LoadedModel, few: PromptSet, tmp_path: Path
    ) -> None:
        made = record(loaded, few[:2], folder=tmp_path / "rows")
        before = made.rows.tobytes()
        for path in (tmp_path / "rows").iterdir():
            path.write_bytes(b"")
        shutil.rmtree(tmp_path / "rows")
        assert made.rows.tobytes() == before

    def test_maps_that_another_recorded_are_copied_as_it_may_delete_them(
        self, loaded: LoadedModel, few: PromptSet, tmp_path: Path
    ) -> None:
        first = record(loaded, few[:2], token_maps=True, folder=tmp_path / "rows")
        second = record(loaded, few[:2], token_maps=True, folder=tmp_path / "rows")
        wanted = first.token_map(1).cosine
        shutil.rmtree(tmp_path / "rows")
        np.testing.assert_array_equal(second.token_map(1).cosine, wanted)

    def test_a_folder_that_others_delete_while_it_is_made_is_begun_again(
        self, loaded: LoadedModel, few: PromptSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`mkdir` finds it made by another process, and then deleted."""
        make, refused, told = Path.mkdir, [FileExistsError(17, "File exists")], list[str]()

        def mkdir(path: Path, *args: Any, **options: Any) -> None:
            if path == tmp_path / "rows" and refused:
                raise refused.pop()
            make(path, *args, **options)

        monkeypatch.setattr(Path, "mkdir", mkdir)
        made = record(loaded, few, folder=tmp_path / "rows", on_progress=lambda _, __, words: told.append(words))
        assert made.n_prompts == len(few)
        assert "starting again: the folder was deleted" in told

    def test_a_folder_deleted_at_work_is_begun_again(
        self, loaded: LoadedModel, few: PromptSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("vlm_analysis.recording.record.FLUSH_S", 0)
        told: list[str] = []

        def delete_once(done: int, total: int, message: str) -> None:
            if done == 2 and message not in told:
                shutil.rmtree(tmp_path / "rows")
            told.append(message) if done == 2 or message != "recording" else None

        made = record(loaded, few, folder=tmp_path / "rows", on_progress=delete_once)
        assert "starting again: the folder was deleted" in told
        assert_same_numbers(made, record(loaded, few))
