"""Probe suites: each picture is asked each task, and what cannot be asked is named."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from vlm_analysis import SUITES, PromptSet, open_prompts, probe_prompts
from vlm_analysis.errors import PromptError
from vlm_analysis.prompts import suites

COLOURS = ("red", "green", "blue")


def png(colour: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    for colour, folder in zip(COLOURS, (".", ".", "deep"), strict=True):
        (tmp_path / folder / f"{colour}.png").write_bytes(png(colour))
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_the_suites_have_five_and_four_tasks_all_different() -> None:
    assert {name: len(suite.tasks) for name, suite in SUITES.items()} == {"math": 5, "general": 4}
    questions = [question for suite in SUITES.values() for question in suite.tasks.values()]
    assert len(set(questions)) == 9


def test_each_picture_of_a_folder_is_asked_each_task(pictures: Path) -> None:
    asked = probe_prompts(pictures)
    assert len(asked) == 3 * 9
    assert Counter(prompt.domain for prompt in asked) == {"math": 15, "general": 12}
    assert {prompt.task for prompt in asked.for_domain("general")} == set(SUITES["general"].tasks)
    assert all(prompt.question == SUITES[prompt.domain].tasks[prompt.task or ""] for prompt in asked)
    assert len(set(asked.groups.shared)) == 3
    assert asked.problems == ()
    assert asked[0].id == "deep/blue.png, math solve"


def test_uploads_archives_and_the_pictures_of_prompts_are_the_same(pictures: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(pictures / "red.png", "red.png")
    uploads = [("pictures.zip", packed.getvalue()), ("green.png", png("green"))]
    asked = probe_prompts(uploads, "math")
    assert [prompt.id for prompt in asked[::5]] == ["red.png, math solve", "green.png, math solve"]
    again = probe_prompts(asked, "general")
    assert len(again) == 8
    assert {hashes for prompt in again for hashes in prompt.image_hashes} == {
        hashes for prompt in asked for hashes in prompt.image_hashes
    }


def test_a_broken_picture_is_named_and_the_others_are_asked(pictures: Path) -> None:
    (pictures / "broken.png").write_bytes(b"no png")
    asked = probe_prompts(pictures, "math")
    assert len(asked) == 15
    assert [(problem.row, problem.id) for problem in asked.problems] == [(1, "broken.png")]
    upload = probe_prompts([("torn.png", b"no png"), ("red.png", png("red"))], "math")
    assert "'torn.png'" in upload.problems[0].message


def test_what_cannot_be_asked_is_said(pictures: Path, tmp_path_factory, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PromptError, match=r"no such suite: expected some of \['math', 'general'\], got \['art'\]"):
        probe_prompts(pictures, "art")
    with pytest.raises(PromptError, match=r"expected pictures .*, got none\. Name a folder that holds some"):
        probe_prompts(tmp_path_factory.mktemp("empty"))
    monkeypatch.setattr(suites, "MAX_ROWS", 20)
    with pytest.raises(PromptError, match="expected 2 pictures at most for 9 tasks, got 3"):
        probe_prompts(pictures)


def test_pictures_of_a_pack_can_be_asked_once_for_each_domain(packs: PromptSet) -> None:
    both = probe_prompts(open_prompts("math")[:2], "math") + probe_prompts(open_prompts("general")[:2], "general")
    assert Counter(prompt.domain for prompt in both) == {"math": 10, "general": 8}
