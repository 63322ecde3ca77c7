"""The Recording: what is asked of it is what was put in, and no damaged file is taken for one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles import made_recording

from vlm_analysis.errors import RecordingError, StrataError
from vlm_analysis.measures import TOKEN_GROUPS
from vlm_analysis.recording import ModelInfo, Recording, open_recording, save_recording

ARRAYS = ("layer_cosine", "span_cosine", "token_counts", "nonfinite")
# numpy lets go of the open file without closing it when the zip inside cannot be read.
numpy_leaves_the_file_open = pytest.mark.filterwarnings("ignore:.*unclosed file:ResourceWarning")


def whole() -> Recording:
    """Four prompts of two domains with every number different; the third has no answer."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, (4, 5))
    cosines, spans = rng.uniform(-1, 1, (4, 6, 5)), rng.uniform(-1, 1, (4, 5, 7, 7))
    answer = TOKEN_GROUPS.index("answer")
    counts[2, answer], cosines[2, :, answer], spans[2, answer] = 0, np.nan, np.nan
    return Recording(
        model=ModelInfo("name", "f" * 64, 6, "bfloat16", protected={0: "first", 5: "last"}, locked={3: "store"}),
        prompts="p" * 64,
        prompt_ids=("a", "ä", "7", "日本"),
        domains=("math", "general", "math", "general"),
        layer_cosine=cosines,
        span_cosine=spans,
        token_counts=counts,
        nonfinite=rng.integers(0, 2, (4, 6)),
        settings={"max_vision_tokens": 256, "batch_size": 2},
    )


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
        saved, opened = whole(), open_recording(path)
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(opened, name), getattr(saved, name))
            assert getattr(opened, name).dtype == getattr(saved, name).dtype
        for name in ("model", "prompts", "prompt_ids", "domains", "settings"):
            assert getattr(opened, name) == getattr(saved, name)

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
        for place in range(0, len(data), 41):
            spoilt = bytearray(data)
            spoilt[place] ^= 0x55
            path.write_bytes(spoilt)
            try:
                opened = open_recording(path)
            except RecordingError:
                continue
            for name in ARRAYS:
                np.testing.assert_array_equal(getattr(opened, name), getattr(saved, name))

    def test_a_missing_recording_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(RecordingError, match=r"No recording at .*nowhere\.npz"):
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
            arrays["nonfinite"] = np.array([Bomb()], dtype=object)

        rewrite(path, pickled)
        with pytest.raises(RecordingError, match="not a whole recording"):
            open_recording(path)
        assert not marker.exists()

    def test_another_kind_of_file_is_refused(self, path: Path) -> None:
        rewrite(path, lambda meta, arrays: meta.update(kind="strata-other"))
        with pytest.raises(RecordingError, match="'strata-other'"):
            open_recording(path)

    def test_a_newer_version_says_to_update(self, path: Path) -> None:
        rewrite(path, lambda meta, arrays: meta.update(schema_version=2))
        with pytest.raises(RecordingError, match=r"version 1 or older, got .* version 2\. Update Strata"):
            open_recording(path)

    def test_an_array_of_another_shape_is_refused(self, path: Path) -> None:
        rewrite(path, lambda meta, arrays: arrays.update(nonfinite=arrays["nonfinite"][:, :-1]))
        with pytest.raises(RecordingError, match=r"expected nonfinite of shape \(4, 6\), got \(4, 5\)"):
            open_recording(path)

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
            "from vlm_analysis.recording import open_recording\n"
            "from vlm_analysis.rank import score_layers\n"
            "from vlm_analysis.masks import make_mask\n"
            f"recording = open_recording({str(path)!r})\n"
            "print(len(make_mask(score_layers(recording, 'mixed'), 'first-k', 2).dropped))\n"
        )
        root = Path(__file__).resolve().parents[1]
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
        with_group = [i for i in rows if recording.token_counts[i, index]]
        np.testing.assert_allclose(
            recording.layer_similarity(domain, group), recording.layer_cosine[with_group, :, index].mean(0), rtol=1e-13
        )
        np.testing.assert_allclose(
            recording.span_similarity(domain, group), recording.span_cosine[with_group, index].mean(0), rtol=1e-13
        )
        np.testing.assert_array_equal(
            recording.prompt_similarity(domain, group), recording.layer_cosine[rows, :, index]
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
        recording = whole()
        arrays: dict[str, Any] = {name: getattr(recording, name)[:0] for name in ARRAYS}
        with pytest.raises(StrataError, match="needs a domain for each prompt"):
            replace(recording, prompt_ids=(), domains=(), **arrays)

    def test_arrays_that_do_not_fit_the_model_are_refused(self) -> None:
        with pytest.raises(RecordingError, match="does not fit together"):
            replace(whole(), model=ModelInfo("name", "f", 7))
