"""A checkpoint's tokenizer and sizes are looked at before they are built: what takes too much, or cannot be true, is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from vlm_analysis.assets import asset
from vlm_analysis.errors import ModelError
from vlm_analysis.guard.child import ChildError, no_panic
from vlm_analysis.guard.shared import home
from vlm_analysis.models import fit, trial, verdicts
from vlm_analysis.models.source import BUNDLED_FOLDER, Source
from vlm_analysis.models.trial import check_processor, try_processor

OPTIONS = {"trust_remote_code": False, "revision": "main", "local_files_only": True}
WHOLE: dict[str, Any] = json.loads((asset("pocket-vl") / "tokenizer.json").read_text("utf-8"))


def check(folder: Path, **files: Any) -> None:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    check_processor(str(folder), OPTIONS, "mine")


def test_the_bundled_tokenizer_is_known_and_a_harmless_one_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    really = trial._child().ask
    monkeypatch.setattr(trial._child(), "ask", lambda question: (asked.append(question), really(question))[1])
    check_processor(str(asset("pocket-vl")), OPTIONS, "pocket-vl")
    assert not asked
    for _ in range(2):
        check(tmp_path, tokenizer=dict(reversed(WHOLE.items())))
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ({"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 9000}, "MiB|tokens|longer|ended"),
        ({"type": "Prepend", "prepend": "red " * 90_000}, "got [0-9,]+|MiB|longer|ended"),
    ],
)
def test_a_tokenizer_that_makes_much_of_little_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: dict[str, Any], told: str
) -> None:
    monkeypatch.setattr(trial._child(), "bounds", trial.Bounds(5, 1 << 30, 1 << 16))
    with pytest.raises(
        ModelError, match=rf"^The tokenizer of 'mine' cannot be used: .*({told}).* Use another checkpoint\.$"
    ):
        check(tmp_path, tokenizer={**WHOLE, "normalizer": step})


def test_a_panic_of_a_tokenizer_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def panicking(question: Any) -> None:
        raise ChildError("PanicException: called `Option::unwrap()` on a `None` value")

    monkeypatch.setattr(trial._child(), "ask", panicking)
    with pytest.raises(ModelError, match="PanicException: called"):
        check(tmp_path, tokenizer={**WHOLE, "panic": True})
    with pytest.raises(ValueError, match="a library panicked: why"), no_panic():
        raise PanicException("why")


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"height": 100_000, "width": 4}},
        {"size": {"longest_edge": 10**12}},
        {"min_pixels": 10**10},
        {"max_num_tiles": 10**7},
        {"image_processor": {"patch_size": 1e300}},
    ],
    ids=str,
)
def test_sizes_of_images_that_cannot_be_true_are_refused_by_name(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(
        ModelError, match=r"preprocessor_config\.json of 'mine' cannot be true: expected a number up to"
    ):
        check(tmp_path, preprocessor_config=settings)


def test_ordinary_sizes_pass(tmp_path: Path) -> None:
    check(
        tmp_path, preprocessor_config={"size": {"longest_edge": 16_777_216, "shortest_edge": 65_536}, "patch_size": 14}
    )


class TestProcessors:
    def source(self, folder: Path, **settings: Any) -> Source:
        """Return an opened copy of the bundled model without its weights, with other image settings."""
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((BUNDLED_FOLDER / name).read_bytes())
        known = (BUNDLED_FOLDER / "preprocessor_config.json").read_text("utf-8")
        (folder / "preprocessor_config.json").write_text(
            json.dumps(json.loads(known) | settings) if settings else known
        )
        return Source(str(folder), "mine", OPTIONS, AutoConfig.from_pretrained(folder), ())

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        asked: list[Any] = []

        def ask(question: Any) -> Any:
            asked.append(question)
            return {"is_built": True, "wrong": ""}

        monkeypatch.setattr(trial._processor_child(), "ask", ask)
        monkeypatch.setattr(verdicts, "_harmless", set())
        return asked

    def test_the_bundled_one_is_known_wherever_it_lies(self, tmp_path: Path, asked: list[Any]) -> None:
        try_processor(self.source(tmp_path), pytest.fail)
        assert not asked

    def test_one_is_tried_once_for_all_processes_and_again_where_the_note_is_damaged(
        self, tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said: list[str] = []
        source = self.source(tmp_path, image_mean=[0.5, 0.5, 0.5])
        for _ in range(2):
            try_processor(source, said.append)
            monkeypatch.setattr(verdicts, "_harmless", set())  # as in another process
        assert (len(asked), said) == (1, ["trying its image processor, once"])
        (note,) = (home() / verdicts.FOLDER).iterdir()
        note.write_text(note.read_text("utf-8").replace('"mark": "', '"mark": "0'))
        try_processor(source, said.append)
        try_processor(self.source(tmp_path, image_mean=[0.1, 0.5, 0.5]), said.append)
        assert len(asked) == 3

    @pytest.mark.slow
    def test_one_that_takes_no_picture_or_too_much_for_one_is_refused_by_its_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(trial._processor_child(), "ask")  # which asks the process of its own again
        told = "^preprocessor_config.json of 'mine' cannot be used: expected an image processor that prepares a picture, got one of which "
        with pytest.raises(ModelError, match=told + r"it says 'ZeroDivisionError.*of any\. Fix its numbers"):
            try_processor(self.source(tmp_path, patch_size=0), print)
        try_processor(self.source(tmp_path, image_mean=[0.25, 0.5, 0.5]), print)
        monkeypatch.setattr(trial._processor_child(), "bounds", trial.Bounds(120, 256 << 20, 1 << 16))
        endless = {"longest_edge": 2**27, "shortest_edge": 2**27}  # pixels, which the table of numbers allows
        notes = set((home() / verdicts.FOLDER).iterdir())
        with pytest.raises(ModelError, match=told + "it needed more than 256 MiB"):
            try_processor(self.source(tmp_path, size=endless), print)
        assert set((home() / verdicts.FOLDER).iterdir()) == notes  # so it is tried again


def test_weights_that_are_far_too_few_for_the_configuration_are_refused() -> None:
    fit._check_stored("mine", 10**9, 10**9)
    fit._check_stored("mine", 10**6, 10)  # too small to matter
    with pytest.raises(
        ModelError, match=r"weights of 'mine' do not fit its configuration: expected 1\.0 billion parameters, got 9 MiB"
    ):
        fit._check_stored("mine", 1_024_000_000, 9 << 20)
