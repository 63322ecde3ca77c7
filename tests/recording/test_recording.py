"""The Recording: what is asked of it is what was put in, and no damaged file is taken for one."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles import made_recording

from vlm_analysis import MEASURES, Recording, StrataError, open_recording, save_recording
from vlm_analysis.errors import RecordingError
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.recording.measures import empty_rows, triangle
from vlm_analysis.recording.recording import Activations
from vlm_analysis.saved import MAX_BYTES
from vlm_analysis.words import TOKEN_GROUPS

# numpy lets go of the open file without closing it when the zip inside cannot be read.
numpy_leaves_the_file_open = pytest.mark.filterwarnings("ignore:.*unclosed file:ResourceWarning")


def whole() -> Recording:
    """Four prompts of two domains with every number different; the third has no answer."""
    rng = np.random.default_rng(0)
    rows, answer = empty_rows(4, 6), TOKEN_GROUPS.index("answer")
    for name, measure in MEASURES.items():
        shape = rows[name].shape
        rows[name] = (
            rng.uniform(max(-1, measure.bounds[0]), 1, shape) if measure.kind == "<f8" else rng.integers(1, 9, shape)
        )
        if "group" in measure.axes:
            values = rows[name][2, :, answer] if measure.axes[0] == "layer" else rows[name][2, answer : answer + 1]
            values[...] = np.nan if measure.kind == "<f8" else 0
    rows["nonfinite"] = 0
    rows["key"] = [f"{number:032x}".encode() for number in range(4)]
    sums = {
        name: Activations(rng.normal(size=(2, 6, 8)), rng.uniform(1, 2, 6), count)
        for name, count in (("math", 2), ("general", 1))
    }
    return Recording(
        model=ModelInfo("name", "f" * 64, 6, "bfloat16", protected={0: "first", 5: "last"}, locked={3: "store"}),
        prompts="p" * 64,
        prompt_ids=("a", "ä", "7", "日本"),
        domains=("math", "general", "math", "general"),
        rows=rows,
        settings={"max_vision_tokens": 256, "batch_size": 2},
        activations=sums,
    )


def assert_equal(one: Recording, other: Recording) -> None:
    assert one.rows.dtype == other.rows.dtype
    for name in one.rows.dtype.names or ():
        np.testing.assert_array_equal(one.rows[name], other.rows[name])
    for name in ("model", "prompts", "prompt_ids", "domains", "settings"):
        assert getattr(one, name) == getattr(other, name)
    assert one.activations.keys() == other.activations.keys()
    for name, part in one.activations.items():
        np.testing.assert_array_equal(part.sums, other.activations[name].sums)
        np.testing.assert_array_equal(part.norms, other.activations[name].norms)
        assert part.n_prompts == other.activations[name].n_prompts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save_recording(whole(), tmp_path / "deep" / "recording.npz")


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], None]) -> Path:
    """Change the header and the arrays of a saved recording."""
    with np.load(path) as stored:
        arrays = dict(stored)
    meta = json.loads(arrays.pop("meta").tobytes())
    change(meta, arrays)
    np.savez(path, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays)
    return path


class TestFiles:
    def test_a_saved_recording_opens_as_it_was(self, path: Path) -> None:
        assert_equal(open_recording(path), whole())

    def test_saving_leaves_no_other_file_and_replaces_the_old_one(self, path: Path) -> None:
        save_recording(replace(whole(), prompts="other"), path)
        assert [file.name for file in path.parent.iterdir()] == ["recording.npz"]
        assert open_recording(path).prompts == "other"

    @numpy_leaves_the_file_open
    @pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.9, 0.999])
    def test_a_recording_cut_short_is_refused(self, path: Path, share: float) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(RecordingError, match=r"recording\.npz is not a whole recording.*Record again"):
            open_recording(path)

    @numpy_leaves_the_file_open
    def test_a_recording_with_a_wrong_byte_opens_equal_or_is_refused(self, path: Path) -> None:
        data, saved = path.read_bytes(), whole()
        for place in range(0, len(data), 293):
            spoilt = bytearray(data)
            spoilt[place] ^= 0x55
            path.write_bytes(spoilt)
            try:
                opened = open_recording(path)
            except RecordingError:
                continue
            assert_equal(opened, saved)

    def test_a_missing_recording_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(RecordingError, match=r"is not a whole recording: .*No such file.*nowhere\.npz"):
            open_recording(tmp_path / "nowhere.npz")

    @numpy_leaves_the_file_open
    @pytest.mark.parametrize("data", [b"", b"no zip at all", b"PK\x03\x04" + b"\0" * 40, b"\x93NUMPY", b"\x80\x04N."])
    def test_what_is_no_zip_is_refused(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "file.npz").write_bytes(data)
        with pytest.raises(RecordingError, match="not a whole recording"):
            open_recording(tmp_path / "file.npz")

    def test_a_zip_of_other_arrays_is_refused(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "other.npz", weights=np.ones(3))
        with pytest.raises(RecordingError, match="not a whole recording"):
            open_recording(tmp_path / "other.npz")

    def test_a_lone_array_is_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "lone.npy", np.ones(3))
        with pytest.raises(RecordingError, match="not a whole recording"):
            open_recording(tmp_path / "lone.npy")

    def test_a_pickled_object_is_never_opened(self, path: Path, tmp_path: Path) -> None:
        marker = tmp_path / "unpickled"

        class Bomb:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (marker,)

        def pickled(meta: dict[str, Any], arrays: dict[str, Any]) -> None:
            arrays["cosine"] = np.array([Bomb()], dtype=object)

        rewrite(path, pickled)
        with pytest.raises(RecordingError, match="not a whole recording"):
            open_recording(path)
        assert not marker.exists()

    def test_another_kind_of_file_is_refused(self, path: Path) -> None:
        rewrite(path, lambda meta, arrays: meta.update(kind="strata-other"))
        with pytest.raises(RecordingError, match="'strata-other'"):
            open_recording(path)

    def test_a_newer_version_says_to_update(self, path: Path) -> None:
        rewrite(path, lambda meta, arrays: meta.update(schema_version=4))
        with pytest.raises(RecordingError, match=r"version 3 or older, got version 4\. Update Strata"):
            open_recording(path)

    def test_rows_of_another_number_or_kind_are_refused(self, path: Path) -> None:
        kept = path.read_bytes()
        changes: list[Callable[[dict[str, Any], dict[str, Any]], None]] = [
            lambda meta, arrays: arrays.update(update=arrays["update"][:-1]),
            lambda meta, arrays: arrays.update(update=empty_rows(4, 7)["update"]),
            lambda meta, arrays: arrays.update(update=arrays["update"].astype("f4")),
            lambda meta, arrays: arrays.update(cosine=np.ones(4)),
            lambda meta, arrays: arrays.pop("cosine"),
            lambda meta, arrays: arrays.pop("update"),
            lambda meta, arrays: meta["arrays"].remove("cosine"),
            lambda meta, arrays: (meta.update(schema_version=2), arrays.update(rows=empty_rows(3, 6))),
            lambda meta, arrays: (meta.update(schema_version=2), arrays.update(rows=empty_rows(4, 7))),
            lambda meta, arrays: (meta.update(schema_version=2), arrays.update(rows=np.ones(4))),
            lambda meta, arrays: meta.update(schema_version=2),
            lambda meta, arrays: arrays.update(sums_0=np.ones((2, 7, 8))),
            lambda meta, arrays: meta.update(activations=[["math"]]),
            lambda meta, arrays: meta.update(activations=3),
        ]
        for change in changes:
            path.write_bytes(kept)
            rewrite(path, change)
            with pytest.raises(RecordingError):
                open_recording(path)

    def test_a_file_that_unpacks_to_too_much_is_refused_before_it_is_read(self, path: Path) -> None:
        with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
            info = zipfile.ZipInfo("huge.npy")
            archive.writestr(info, b"x")
            archive.filelist[-1].file_size = MAX_BYTES + 1
        with pytest.raises(RecordingError, match=r"at most .* GB when unpacked, got"):
            open_recording(path)

    def test_a_file_of_version_1_opens_with_what_it_holds(self, tmp_path: Path) -> None:
        new, spans = whole(), np.random.default_rng(1).uniform(-1, 1, (4, 5, 7, 7))
        spans = (spans + spans.swapaxes(2, 3)) / 2
        meta = {"schema_version": 1, "kind": "strata-recording", "model": asdict(new.model), "prompts": "p"}
        meta |= {"prompt_ids": new.prompt_ids, "domains": new.domains, "settings": {}}
        arrays: dict[str, Any] = {"layer_cosine": new.rows["cosine"], "span_cosine": spans}
        arrays |= {name: new.rows[name] for name in ("token_counts", "nonfinite")}
        np.savez(tmp_path / "old.npz", meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays)
        old = open_recording(tmp_path / "old.npz")
        np.testing.assert_array_equal(old.layer_similarity("math", "text"), new.layer_similarity("math", "text"))
        wanted = spans[:, TOKEN_GROUPS.index("text")].mean(0)
        np.fill_diagonal(wanted, 1)
        np.testing.assert_allclose(old.span_similarity(None, "text"), wanted, rtol=1e-13)
        assert not old.has("norm_ratio")
        assert np.isnan(old.layer_values("norm_ratio")).all()

    def test_a_measure_that_a_file_lacks_is_not_recorded_and_all_others_are_as_they_were(self, path: Path) -> None:
        saved = whole()

        def older_and_newer(meta: dict[str, Any], arrays: dict[str, Any]) -> None:
            meta["arrays"] = [name for name in meta["arrays"] if name not in ("update", "sinks")] + ["later"]
            arrays["later"] = np.ones(3)
            del arrays["update"], arrays["sinks"]

        rewrite(path, older_and_newer)
        for where in (path, save_recording(open_recording(path), path.with_name("again.npz"))):
            opened = open_recording(where)
            assert set(opened.lacks) == {"update", "sinks"}
            assert [opened.has(name) for name in ("update", "sinks", "cosine")] == [False, False, True]
            assert np.isnan(opened.layer_values("update")).all()
            for name in set(MEASURES) - {"update", "sinks"}:
                np.testing.assert_array_equal(opened.rows[name], saved.rows[name])

    def test_a_file_of_version_2_opens_with_the_fields_that_it_has(self, path: Path) -> None:
        saved = whole()
        names = [name for name in saved.rows.dtype.names or () if name != "update"]

        def older(meta: dict[str, Any], arrays: dict[str, Any]) -> None:
            meta.update(schema_version=2)
            for name in ("key", *MEASURES):
                del arrays[name]
            arrays["rows"] = np.array(saved.rows[names])

        opened = open_recording(rewrite(path, older))
        assert opened.lacks == ("update",)
        for name in names:
            np.testing.assert_array_equal(opened.rows[name], saved.rows[name])

    @pytest.mark.parametrize(
        "change",
        [
            {"model": "a name"},
            {"model": {"name": "a"}},
            {"model": None},
            {"prompt_ids": 3},
            {"domains": ["one"]},
            {"schema_version": "new"},
            {
                "model": {
                    "name": "a",
                    "fingerprint": "f",
                    "n_layers": 6,
                    "protected": {"first": "no number"},
                    "locked": {},
                }
            },
        ],
        ids=lambda change: json.dumps(change)[:60],
    )
    def test_a_wrong_header_is_refused_in_words(self, path: Path, change: dict[str, Any]) -> None:
        rewrite(path, lambda meta, arrays: meta.update(change))
        with pytest.raises(RecordingError):
            open_recording(path)

    def test_a_header_nested_too_deep_is_refused_in_words(self, path: Path) -> None:
        np.savez(path, meta=np.frombuffer(b"[" * 100_000, np.uint8))
        with pytest.raises(RecordingError):
            open_recording(path)

    def test_opens_and_ranks_where_torch_and_streamlit_cannot_be_imported(self, path: Path) -> None:
        code = (
            "import sys\n"
            "for name in ('torch', 'streamlit', 'transformers'): sys.modules[name] = None\n"
            "from vlm_analysis.recording.recording import open_recording\n"
            "from vlm_analysis import score_layers\n"
            "from vlm_analysis import make_mask\n"
            f"recording = open_recording({str(path)!r})\n"
            "print(len(make_mask(score_layers(recording, 'mixed'), 'first-k', 2).dropped))\n"
        )
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
        assert (done.stdout.strip(), done.stderr) == ("2", "")


class TestMeans:
    def test_prompts_count_equally_whatever_their_domain(self) -> None:
        recording = made_recording([("a", [0.9, 0.5]), ("a", [0.7, 0.1]), ("b", [0.2, 0.6])])
        np.testing.assert_allclose(recording.layer_similarity("a"), [0.8, 0.3], rtol=1e-15)
        np.testing.assert_allclose(recording.layer_similarity("b"), [0.2, 0.6], rtol=1e-15)
        np.testing.assert_allclose(recording.layer_similarity(), [0.6, 0.4], rtol=1e-15)  # not (0.5, 0.45)

    def test_a_prompt_without_the_group_is_left_out_and_counted(self) -> None:
        rows = [("a", [0.9, 0.5]), ("a", [0.7, 0.1]), ("b", [0.2, 0.6])]
        recording = made_recording(rows, group="answer", empty=[1])
        np.testing.assert_allclose(recording.layer_similarity("a", "answer"), [0.9, 0.5])
        np.testing.assert_allclose(recording.layer_similarity(None, "answer"), [0.55, 0.55])
        assert recording.prompts_with("a", "answer") == 1
        assert recording.prompts_with(None, "answer") == 2
        assert recording.has_group(None, "answer").tolist() == [True, False, True]

    def test_nan_where_no_prompt_has_the_group(self) -> None:
        recording = made_recording([("a", [0.9, 0.5]), ("b", [0.2, 0.6])], group="answer", empty=[0])
        assert np.isnan(recording.layer_similarity("a", "answer")).all()
        assert np.isnan(recording.span_similarity("a", "answer")).all()
        assert recording.layer_similarity("a", "answer").shape == (2,)
        assert recording.span_similarity("a", "answer").shape == (3, 3)
        assert np.isnan(recording.layer_similarity(None, "vision")).all()

    def test_a_nan_measured_on_tokens_that_are_there_stays_nan(self) -> None:
        recording = made_recording([("a", [0.9, np.nan]), ("a", [0.7, 0.1])])
        np.testing.assert_array_equal(np.isnan(recording.layer_similarity()), [False, True])

    @pytest.mark.parametrize("group", TOKEN_GROUPS)
    @pytest.mark.parametrize("domain", ["math", "general", None])
    def test_means_are_those_of_numpy(self, domain: str | None, group: str) -> None:
        recording = whole()
        index = TOKEN_GROUPS.index(group)
        rows = [i for i, name in enumerate(recording.domains) if domain in (None, name)]
        with_group = [i for i in rows if recording.rows["token_counts"][i, index]]
        np.testing.assert_allclose(
            recording.layer_similarity(domain, group),
            recording.rows["cosine"][with_group, :, index].mean(0),
            rtol=1e-13,
        )
        wanted = recording.rows["span"][with_group, index].mean(0)
        np.testing.assert_allclose(triangle(recording.span_similarity(domain, group)), wanted, rtol=1e-13)
        np.testing.assert_array_equal(
            recording.prompt_similarity(domain, group), recording.rows["cosine"][rows, :, index]
        )

    def test_prompt_order_changes_no_bit(self) -> None:
        rng = np.random.default_rng(1)
        rows = [("a", rng.uniform(0, 1, 5).tolist()) for _ in range(9)]
        there, back = made_recording(rows), made_recording(rows[::-1])
        np.testing.assert_array_equal(there.layer_similarity(), back.layer_similarity())


class TestQuestions:
    def test_domains_come_in_order_of_appearance(self) -> None:
        assert whole().domain_names == ("math", "general")

    @pytest.mark.parametrize("method", ["layer_similarity", "span_similarity", "prompt_similarity", "has_group"])
    def test_an_unknown_domain_or_group_lists_the_choices(self, method: str) -> None:
        ask = getattr(whole(), method)
        with pytest.raises(RecordingError, match=r"\['math', 'general'\], got 'chemistry'"):
            ask("chemistry")
        with pytest.raises(RecordingError, match=r"'vision', 'text', 'answer', 'last', 'all'.*got 'image'"):
            ask(None, "image")

    def test_a_recording_without_prompts_is_refused(self) -> None:
        with pytest.raises(StrataError, match="needs a domain for each prompt"):
            replace(whole(), prompt_ids=(), domains=(), rows=whole().rows[:0])

    def test_arrays_that_do_not_fit_the_model_are_refused(self) -> None:
        with pytest.raises(RecordingError, match="does not fit together"):
            replace(whole(), model=ModelInfo("name", "f", 7))
