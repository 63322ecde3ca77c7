"""What a newcomer is told: which file, column or format is meant, and what helps."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from fixtures import listed, png, saved, turns

from vlm_analysis import open_prompts, preview_prompts
from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.problems import Problems, grouped, problem_lines
from vlm_analysis.prompts.prompts import Problem

MOVIE = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"
GERMAN = "Datei,Frage,Fach\na.png,1?,x\n"
OURS = {"image": "Datei", "question": "Frage"}


def told(folder: Path, *names: str, **said: str) -> list[str]:
    """What is said of rows that name these pictures; the first row is a good one."""
    rows = [{"image": name, "question": f"{name}?"} for name in ("a.png", *names)]
    return [problem.message for problem in open_prompts(listed(folder / "t.json", rows), **said).problems]


def test_the_column_named_as_domain_is_used(folder: Path) -> None:
    (folder / "t.csv").write_text(GERMAN)
    assert open_prompts(folder / "t.csv", columns=OURS, domain="Fach").problems == ()
    (folder / "t.csv").write_text(GERMAN.replace("Datei,Frage", "image,question"))
    prompts = open_prompts(folder / "t.csv", domain="Fach")
    assert (prompts.domains, prompts.problems) == (("x",), ())


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_are_shown_as_the_file_writes_them(suffix: str, folder: Path) -> None:
    frame = pd.DataFrame({"image": ["a.png"], "question": ["1?"], " Fach": ["x"]})
    frame.to_csv(folder / "t.csv", index=False) if suffix == "csv" else frame.to_parquet(folder / "t.parquet")
    (problem,) = open_prompts(folder / f"t.{suffix}").problems
    assert problem.message.endswith("got 'Fach'. Remove or rename them.")
    with pytest.raises(PromptError, match=r"It has 'image', 'question', 'Fach'\."):
        open_prompts(folder / f"t.{suffix}", domain="Ort")


def test_a_picture_that_is_missing_is_named_as_the_row_names_it_with_the_way_to_another_folder(folder: Path) -> None:
    (message,) = told(folder, "p0.png")
    assert message.startswith(f"'p0.png' was not found: expected a file in '{folder}', got none of this name. ")
    assert message.endswith('where the paths start from another folder or archive, name that: images="…".')


def test_a_folder_of_images_that_is_not_there_is_told_with_the_place_that_was_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(PromptError) as error:
        told(folder, images="imgs")
    assert f"got neither at '{folder / 'imgs'}'. Check the path; a relative one starts at the working folder." in str(
        error.value
    )


def test_columns_the_wrong_way_round_are_turned(folder: Path) -> None:
    (folder / "t.csv").write_text(GERMAN)
    with pytest.raises(PromptError, match=r'Name ours first, then yours: columns=\{"question": "Frage"\}\.'):
        open_prompts(folder / "t.csv", columns={"Frage": "question"})
    with pytest.raises(PromptError, match=r"got 'picture'\.$"):
        open_prompts(folder / "t.csv", columns={"picture": "Datei"})


def test_a_picture_that_no_row_names_wants_a_row(tmp_path: Path) -> None:
    for name in ("a.png", "p3.png"):
        saved(tmp_path / name)
    (tmp_path / "metadata.csv").write_text("file_name,question\na.png,1?\n")
    (problem,) = open_prompts(tmp_path).problems
    assert problem.message.endswith("got 'p3.png'. Add a row for each picture among them.")


@pytest.mark.parametrize("data", [MOVIE, b"RIFF\0\0\0\0AVI LIST", b"\0\0\1\xbamovie", None])
@pytest.mark.parametrize("name", ["v.mp4", "V.AVI", "v.png"])
def test_a_video_is_named_as_one_whether_it_is_there_or_not(name: str, data: bytes | None, folder: Path) -> None:
    if data is not None:
        (folder / name).write_bytes(data)
    (message,) = told(folder, name)
    is_known = data is not None or name != "v.png"
    assert ("got a video. Take frames of it as images." in message) == is_known
    assert name in message


def test_a_video_in_a_struct_is_named_as_one(folder: Path) -> None:
    (folder / "a.png").write_bytes(png())
    message = "expected an image .* got a video. Take frames of it as images."
    cell = {"bytes": MOVIE, "path": "v.mp4"}
    from vlm_analysis.prompts.formats.base import picture_of
    from vlm_analysis.prompts.images import open_image

    with pytest.raises(PromptError, match=message):
        open_image(picture_of(cell).data)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["vqa", "coco", "own", "chartqa"])
def test_a_format_that_does_not_fit_is_told_with_the_one_that_does(name: str, folder: Path) -> None:
    table = listed(folder / "llava.json", [{"image": "a.png", "conversations": turns("1?", "x")}])
    message = (
        r"'llava.json' could not be read: expected .*, as you said, got LLaVA conversations \(.*format=\"llava\"\)\.$"
    )
    with pytest.raises(PromptError, match=message):
        open_prompts(table, format=name)
    preview = preview_prompts(table, format=name)
    assert (preview.title, preview.columns) == ("", ("image", "conversations"))
    assert preview.problems[0].message.startswith("'llava.json' could not be read: expected ")


def test_a_format_that_reads_the_rows_is_taken_though_another_one_is_recognised(folder: Path) -> None:
    table = listed(folder / "t.json", [{"image": "a.png", "question": "1?", "answer": "x"}])
    assert open_prompts(table, format="chartqa")[0].question == "1?"


def test_a_row_is_said_to_be_left_out_once(folder: Path) -> None:
    rows = [
        {"image": "a.png", "conversations": turns(text, "x"), "video": film} for text, film in (("1?", ""), ("2?", "v"))
    ]
    (line,) = problem_lines(open_prompts(listed(folder / "t.json", rows)).problems)
    assert line.count("left out") == 1


def test_a_row_of_several_prompts_is_counted_once(folder: Path) -> None:
    rows = [{"image": name, "conversations": turns("1?", "x", "2?", "y")} for name in ("a.png", "b.jpg")]
    (line,) = problem_lines(open_prompts(listed(folder / "t.json", rows), turns="each").problems)
    assert line.startswith("row 2 is left out: 'b.jpg' was not found")
    problems = Problems()
    for row in range(1, 31):
        for part in (1, 2):
            problems.add(Problem(row, f"{row}-{part}", "'b.jpg' was not found"))
    (group,) = grouped(problems.listed())
    assert group.number == 30
    (differing,) = grouped([Problem(5, "5-1", "'1.png' was not found"), Problem(5, "5-2", "'2.png' was not found")])
    assert (differing.number, differing.rows) == (1, (5,))
