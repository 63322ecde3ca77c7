"""Folders of pictures with text files: every picture is read or named, whatever its ending."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, features
from tables import RED, questions, rows

from vlm_analysis import open_prompts
from vlm_analysis.errors import PromptError

ENDINGS = {"a.png": "PNG", "b.tif": "TIFF", "c.tiff": "TIFF", "d.jfif": "JPEG", "e.JPG": "JPEG", "f.jpe": "JPEG"}
if features.check("avif"):
    ENDINGS["g.avif"] = "AVIF"
if features.check("jpg_2000"):
    ENDINGS["h.jp2"] = "JPEG2000"


def test_pictures_of_every_common_ending_are_read(tmp_path: Path) -> None:
    for name, kind in ENDINGS.items():
        RED.resize((32, 32)).save(tmp_path / name, kind)
        (tmp_path / name).with_suffix(".txt").write_text("what is this?")
    found = open_prompts(tmp_path)
    assert [prompt.id for prompt in found] == [name.split(".")[0] for name in ENDINGS]
    assert not found.problems


def test_the_first_of_several_pictures_in_one_file_counts(tmp_path: Path) -> None:
    for name, kind in (("a.mpo", "MPO"), ("b.tif", "TIFF")):
        red, blue = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
        red.save(tmp_path / name, kind, save_all=True, append_images=[blue])
        (tmp_path / f"{name[0]}.txt").write_text("what is this?")
    for prompt in open_prompts(tmp_path):
        pixel = prompt.load_images()[0].getpixel((5, 5))
        assert isinstance(pixel, tuple)
        assert pixel[0] > 240
        assert max(pixel[1:]) < 15


def test_what_is_left_out_is_named(folder: Path) -> None:
    (folder / "a.txt").write_text("red?")
    (folder / "b.txt").write_text("blue?")
    (folder / "b.answer.txt").write_text("yes")
    (folder / "scan.heic").write_bytes(b"heic")
    (folder / "scan.txt").write_text("what is this?")
    (folder / "scan.answer.txt").write_text("a scan")
    (folder / "lost.txt").write_text("where is it?")
    (folder / "notes.md").touch()
    (folder / "sheet.xcf").touch()
    found = open_prompts(folder)
    assert [prompt.id for prompt in found] == ["a", "b"]
    assert sorted(rows(found)) == [(0, ""), (3, "lost"), (4, "scan")]
    by_id = {problem.id: problem.message for problem in found.problems}
    assert "'notes.md', 'sheet.xcf'" in by_id[""]
    assert "'scan.txt' has no picture" in by_id["scan"]
    assert "got 'scan.heic'. Save it as PNG." in by_id["scan"]
    assert "'lost.txt' has no picture" in by_id["lost"]


def test_a_folder_whose_pictures_all_have_other_endings_says_so(tmp_path: Path) -> None:
    (tmp_path / "scan.heic").write_bytes(b"heic")
    (tmp_path / "scan.txt").write_text("what is this?")
    with pytest.raises(PromptError, match=r"'scan\.txt' has no picture.* got 'scan\.heic'"):
        open_prompts(tmp_path)


def test_one_table_of_another_name_is_taken_and_of_two_neither(folder: Path) -> None:
    (folder / "data.csv").write_text("image,question\na.png,red?\n")
    (folder / "README.txt").write_text("about")
    assert questions(open_prompts(folder)) == ["red?"]
    (folder / "more.jsonl").touch()
    with pytest.raises(PromptError, match=r"or one named prompts\.csv .*got 'data\.csv' and 'more\.jsonl'\. Rename"):
        open_prompts(folder)
    (folder / "a.txt").write_text("red, or blue?")  # texts beside pictures come first
    assert questions(open_prompts(folder)) == ["red, or blue?"]
