"""Pictures that lie in a table's cells or are named by it: the Hub's Parquet, image folders, VLMEvalKit."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa
import pytest
from fixtures import png, saved
from formats import errors, read, sample_of
from pyarrow import parquet

from vlm_analysis import PromptSet, open_prompts
from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.archives import NoFiles
from vlm_analysis.prompts.cells import Row
from vlm_analysis.prompts.formats import hub, imagefolder, vlmevalkit
from vlm_analysis.prompts.formats.base import DESCRIBE, NAME_IT, Picture, Sample, Source
from vlm_analysis.prompts.formats.table import recognise

STRUCT = {"bytes": png(), "path": "a.png"}
ENCODED = base64.b64encode(png()).decode()
OTHER = base64.b64encode(png("blue")).decode()


def of(rows: list[Row], *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row.cells.get(column) for column in columns) for row in rows]


class TestHub:
    def test_classes_are_asked_by_name_with_all_of_them_as_choices(self) -> None:
        rows = read(
            hub, {"img": STRUCT, "label": "cat"}, {"img": STRUCT, "label": None}, labels={"label": ("cat", "dog")}
        )
        assert of(rows, "question", "answer", "choices", "domain") == [
            (NAME_IT, "cat", ["cat", "dog"], "cat"),
            (NAME_IT, "", ["cat", "dog"], ""),
        ]
        assert rows[0].cells["images"] == [Picture(STRUCT["bytes"], "a.png")]

    def test_too_many_classes_are_no_choices(self) -> None:
        (row,) = read(hub, {"image": b"x", "fine": "c3"}, labels={"fine": tuple(f"c{number}" for number in range(27))})
        assert of([row], "answer", "choices") == [("c3", None)]

    @pytest.mark.parametrize(
        ("cells", "wanted"),
        [
            ({"query": "how?", "label": ["so"]}, ("how?", ["so"], None)),
            ({"problem": "how?", "solution": "so"}, ("how?", "so", None)),
            ({"caption": "a cat"}, (DESCRIBE, "a cat", None)),
            ({"captions": ["a cat", "one cat"]}, (DESCRIBE, None, ["a cat", "one cat"])),
            ({"text": "[1] a cat"}, (DESCRIBE, "[1] a cat", None)),
            ({"class": "cat"}, (NAME_IT, "cat", None)),
        ],
    )
    def test_a_question_or_a_caption_is_asked(self, cells: dict[str, Any], wanted: tuple[Any, ...]) -> None:
        assert of(read(hub, {"picture": STRUCT} | cells), "question", "answer", "answers") == [wanted]

    def test_pictures_may_be_a_list_and_a_null_one_is_a_problem_of_its_row(self) -> None:
        rows = read(
            hub,
            {"images": [STRUCT, STRUCT], "text": "x"},
            {"images": None, "text": "y"},
            {"images": [None], "text": "z"},
        )
        assert len(rows[0].cells["images"]) == 2
        assert set(errors(rows)) == {2, 3}
        assert "the row has no image" in errors(rows)[2]

    @pytest.mark.parametrize(
        "cells",
        [
            {"image": "a.png", "text": "x"},
            {"text": "x"},
            {"a": STRUCT, "b": STRUCT, "text": "x"},
            {"image": STRUCT, "x": 1},
        ],
    )
    def test_what_has_no_picture_or_nothing_to_ask_is_no_table_of_the_hub(self, cells: dict[str, Any]) -> None:
        assert hub.matches(sample_of([cells])) is None

    def test_wrong_types_are_one_message_each(self, tmp_path: Path) -> None:
        cells = [STRUCT, {"bytes": b"no picture", "path": None}, {"bytes": None, "path": "../x.png"}, STRUCT]
        parquet.write_table(pa.table({"image": cells, "caption": ["1", "2", "3", "4"]}), tmp_path / "t.parquet")
        prompts = open_prompts(tmp_path / "t.parquet")
        assert [prompt.answer for prompt in prompts] == ["1", "4"]
        assert [problem.row for problem in prompts.problems] == [2, 3]
        assert "the image could not be opened: expected an image" in prompts.problems[0].message
        assert "got '..'" in prompts.problems[1].message


def written(folder: Path, table: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / table
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        frame = pd.DataFrame(rows)
        frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
    return path


class TestImageFolder:
    @pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.csv", "metadata.parquet"])
    def test_the_table_names_pictures_beside_it(self, table: str, tmp_path: Path) -> None:
        rows = [{"file_name": f"{name}.png", "question": f"{name}?", "answer": name} for name in ("birds/1", "train/2")]
        for row in rows:
            saved(tmp_path / row["file_name"])
        path = written(tmp_path, table, rows)
        for source in (tmp_path, path):
            prompts = open_prompts(source)
            assert [(p.question, p.answer, p.domain) for p in prompts] == [
                ("birds/1?", "birds/1", "birds"),
                ("train/2?", "train/2", "default"),
            ]
            assert prompts.problems == ()

    def test_several_pictures_are_a_list_or_columns(self) -> None:
        rows = read(
            imagefolder, {"file_names": ["a.png", "b.png"], "text": "x"}, {"file_names": '["c.png"]', "text": "y"}
        )
        assert of(rows, "images", "answer") == [(["a.png", "b.png"], "x"), (["c.png"], "y")]
        (row,) = read(imagefolder, {"front_file_name": "f.png", "back_file_name": "b.png", "label": "cat"})
        assert of([row], "images", "question", "answer") == [(["f.png", "b.png"], NAME_IT, "cat")]

    @pytest.mark.parametrize(
        ("cell", "message"),
        [(None, "no image"), ([], "no image"), ([""], "no image"), ({"a": 1}, "got a dict"), ([[1]], "got a list")],
    )
    def test_a_wrong_name_is_a_problem_of_its_row(self, cell: Any, message: str) -> None:
        good = {"file_name": "a.png", "text": "x"}
        rows = read(imagefolder, good, {"file_name": cell, "text": "y"}, good)
        assert set(errors(rows)) == {2}
        assert message in errors(rows)[2]

    def test_each_split_has_a_table_of_its_own(self, tmp_path: Path) -> None:
        for split in ("train", "test"):
            saved(tmp_path / split / "cats" / "1.png")
            written(
                tmp_path,
                f"{split}/metadata.csv",
                [{"file_name": f"{name}.png", "text": split} for name in ("cats/1", "none")],
            )
        saved(tmp_path / "test" / "more.png")
        prompts = open_prompts(tmp_path)
        assert [(p.id, p.answer, p.domain) for p in prompts] == [("1", "test", "cats"), ("3", "train", "cats")]
        assert [problem.row for problem in prompts.problems] == [2, 4, 0]
        assert "got 'test/more.png'" in prompts.problems[2].message

    def test_a_folder_a_class_is_asked_for_its_name(self, tmp_path: Path) -> None:
        for name in ("train/cat/1.png", "train/dog/1.png", "test/cat/1.png"):
            saved(tmp_path / name)
        (tmp_path / "README.md").touch()
        prompts = open_prompts(tmp_path)
        assert [(p.id, p.question, p.answer, p.choices, p.domain) for p in prompts] == [
            (f"{split}/{name}/1", NAME_IT, name, ("cat", "dog"), name)
            for split, name in (("test", "cat"), ("train", "cat"), ("train", "dog"))
        ]
        assert prompts.read_as is not None
        assert prompts.read_as.reason == "images in the folders 'cat', 'dog', and no text beside them"
        assert "got 'README.md'" in prompts.problems[0].message

    @pytest.mark.parametrize(
        "files",
        [
            ("a.png", "cat/b.png"),
            ("train/a.png", "test/b.png"),
            ("cat/a.png",),
            ("cat/a.png", "dog/b.png", "dog/b.txt"),
        ],
    )
    def test_other_folders_are_none_of_classes(self, files: tuple[str, ...]) -> None:
        assert imagefolder.matches(Sample("", files=files)) is None

    def test_a_table_named_by_the_user_must_fit(self) -> None:
        with pytest.raises(PromptError, match="expected 'file_name' and a question, a caption or a class, got 'a'"):
            list(imagefolder.rows(Source(sample_of([{"a": 1}]), [], NoFiles("t.csv"))))


def tsv(folder: Path, *rows: dict[str, Any]) -> PromptSet:
    pd.DataFrame(rows).to_csv(folder / "t.tsv", sep="\t", index=False)
    return open_prompts(folder / "t.tsv")


class TestVlmEvalKit:
    ROW: ClassVar[dict[str, Any]] = {
        "index": 0,
        "image": ENCODED,
        "question": "which?",
        "A": "red",
        "B": "blue",
        "C": None,
        "answer": "B",
    }

    def test_choices_answer_hint_and_categories_are_taken(self, tmp_path: Path) -> None:
        more = {"hint": "Look.", "category": "colour", "l2-category": "perception", "split": "dev"}
        (prompt,) = tsv(tmp_path, self.ROW | more)
        assert (prompt.question, prompt.choices, prompt.answer) == ("Look.\nwhich?", ("red", "blue"), "blue")
        assert (prompt.id, prompt.domain, prompt.task) == ("0", "perception", "colour")
        (plain,) = tsv(tmp_path, {"index": 5, "image": ENCODED, "question": "?", "answer": "x", "category": "colour"})
        assert (plain.answer, plain.choices, plain.domain, plain.task) == ("x", None, "colour", None)

    def test_a_short_image_is_the_index_of_the_row_that_has_it(self, tmp_path: Path) -> None:
        images = [ENCODED, "0", "1", "5", OTHER, "9", "2"]
        rows = [
            {**self.ROW, "index": index, "image": image}
            for index, image in zip((0, 1, 2, 4, 5, 6, 7), images, strict=True)
        ]
        prompts = tsv(tmp_path, *rows)
        assert [prompt.id for prompt in prompts] == ["0", "1", "2", "5", "7", "4"]  # what had to wait comes last
        assert [prompt.image_hashes == prompts[0].image_hashes for prompt in prompts] == [
            True,
            True,
            True,
            False,
            True,
            False,
        ]
        assert [(problem.row, problem.id) for problem in prompts.problems] == [(6, "6")]
        assert "expected a picture in base64 or the index of a row that has one, got '9'" in prompts.problems[0].message

    def test_several_pictures_and_answers_are_lists_as_python_writes_them(self, tmp_path: Path) -> None:
        row = {"index": 0, "image": str([ENCODED, OTHER]), "question": "?", "answer": "['a', 'b']"}
        (prompt,) = tsv(tmp_path, row)
        assert (len(set(prompt.image_hashes)), prompt.answer, prompt.answers) == (2, "a", ("a", "b"))

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"image": ENCODED[:72]}, "damaged or cut-short"),
            ({"image": "x" * 100}, "expected a picture in base64, got"),
            ({"image": None}, "no image"),
            ({"answer": "F"}, "none of the choices"),
            ({"question": None}, "question is blank"),
        ],
    )
    def test_a_wrong_row_is_one_message(self, wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
        prompts = tsv(tmp_path, self.ROW, self.ROW | {"index": 1} | wrong, self.ROW | {"index": 2})
        assert [prompt.id for prompt in prompts] == ["0", "2"]
        assert [problem.row for problem in prompts.problems] == [2]
        assert message in prompts.problems[0].message

    def test_a_table_with_paths_and_options_is_one_and_one_without_is_not(self) -> None:
        cells = {"index": 1, "question": "?", "image_path": "a.png", "a": "x", "b": "y", "answer": "A"}
        assert of(read(vlmevalkit, cells), "images", "answer") == [(["a.png"], "x")]
        with pytest.raises(PromptError, match="expected the columns"):
            recognise(sample_of([{"index": 1, "question": "?", "image_path": "a.png"}]))
        assert vlmevalkit.matches(sample_of([{"index": 1, "question": "?", "image": "a.png"}])) is None
