"""Tables of benchmarks: each is told by its columns, read by their meaning, and a bad row is said in words."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from benchmarked import MADE, PNG, ROWS, cells_of, struct
from formats import errors, read, sample_of
from pyarrow import parquet

from vlm_analysis import open_prompts
from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.archives import NoFiles
from vlm_analysis.prompts.formats import own
from vlm_analysis.prompts.formats.base import Options, Picture, Source
from vlm_analysis.prompts.formats.benchmarks.table import BENCHMARKS
from vlm_analysis.prompts.formats.table import FORMATS, recognise

FIELDS = ("question", "answer", "choices", "answers", "domain", "task", "id", "group")


def made(name: str, **other: Any) -> dict[str, Any]:
    """Return what a benchmark makes of its row, some cells of which are replaced; the row before it tells the benchmark."""
    first, second = read(FORMATS[name], cells_of(name), cells_of(name, **other))
    assert not first.error
    if second.error:
        raise PromptError(second.error)
    return second.cells


def asked(name: str, *, suffix: bool) -> str:
    sample = sample_of([cells_of(name)])
    (row,) = FORMATS[name].rows(Source(sample, sample.rows, NoFiles("data"), options=Options(suffix=suffix)))
    return str(row.cells["question"])


def test_every_benchmark_has_a_row_here() -> None:
    assert set(ROWS) == set(MADE) == {one.NAME for one in BENCHMARKS} - {"gqa"}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_a_benchmark_is_recognised_and_read(name: str) -> None:
    cells = made(name)
    assert tuple(cells[field] for field in FIELDS) == MADE[name]
    assert {picture.data for picture in cells["images"]} == {PNG}


@pytest.mark.parametrize("name", ROWS)
def test_a_benchmark_as_json_is_opened_whole(name: str) -> None:
    text = json.dumps([ROWS[name]], default=lambda data: base64.b64encode(data).decode())
    prompts = open_prompts(("data.json", text.encode()))
    question, answer, choices, answers, domain, task, row_id, group = MADE[name]
    (prompt,) = prompts
    assert prompts.read_as.title == FORMATS[name].TITLE
    assert prompts.problems == ()
    assert (prompt.question, prompt.domain, prompt.task or "", prompt.id) == (question, domain, task, row_id or "1")
    assert prompt.choices == (tuple(choices) if choices else None)
    assert prompt.answer == (answer or Counter(answers).most_common(1)[0][0])
    assert (prompt.group or "") == group


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"mmmu"}))
def test_a_row_without_its_picture_is_left_out(name: str) -> None:
    with pytest.raises(PromptError, match="the row has no image"):
        made(name, image=None, **({"decoded_image": None} if name == "mathvista" else {}))


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("wrong", [{"a": 1}, [["x"]]])
def test_a_cell_of_another_type_is_a_problem_of_its_row(name: str, wrong: Any) -> None:
    column = "text" if name == "vstar" else "question"
    rows = read(FORMATS[name], cells_of(name), cells_of(name, **{column: wrong}), cells_of(name))
    assert list(errors(rows)) == [2]
    assert f"the cell '{column}' could not be read" in rows[1].error


@pytest.mark.parametrize("name", ["ai2d", "mathvista", "scienceqa", "mmmu"])
def test_options_may_be_the_text_of_a_list(name: str) -> None:
    column = "options" if name in ("ai2d", "mmmu") else "choices"
    choices = MADE[name][2]
    assert made(name, **{column: repr(choices)})["choices"] == choices
    with pytest.raises(PromptError, match=f"the cell '{column}' could not be read: expected a list"):
        made(name, **{column: "['one', __import__('os').name]"})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("ai2d", "7"),
        ("scienceqa", 2),
        ("scienceqa", -1),
        ("mmbench", "E"),
        ("seed", "F"),
        ("mmmu", "Z"),
        ("mathvista", "Maybe"),
    ],
)
def test_an_answer_that_is_none_of_the_choices_is_said(name: str, wrong: Any) -> None:
    with pytest.raises(PromptError, match="the answer is none of the choices"):
        made(name, answer=wrong)


@pytest.mark.parametrize("name", ["mathvista", "mmbench", "textvqa", "docvqa"])
def test_a_split_without_answers_is_read_without_them(name: str) -> None:
    cells = made(name, answer=None, answers=None)
    assert (cells["answer"], cells["answers"]) == ("", [])


def test_the_benchmarks_own_suffix_is_an_option() -> None:
    assert (
        asked("pope", suffix=True)
        == "Is there a snowboard in the image?\nAnswer the question using a single word or phrase."
    )
    assert asked("seed", suffix=True).endswith("image?\nA. One\nB. Two\nC. Three\nD. Four")
    assert asked("seed", suffix=False) == "How many towels are in the image?"


def test_open_prompts_takes_the_suffix() -> None:
    text = json.dumps([ROWS["scienceqa"]], default=lambda data: base64.b64encode(data).decode()).encode()
    (prompt,) = open_prompts(("data.json", text), suffix=True)
    assert prompt.question.endswith("north?\nA. Oregon\nB. Ohio")


def test_a_plain_table_of_three_columns_is_no_benchmark() -> None:
    rows = [{"image": "a.png", "question": "what is it? Please answer directly with a word", "answer": "A"}]
    assert recognise(sample_of(rows))[0].NAME == "realworldqa"
    assert recognise(sample_of([*rows, {"image": "b.png", "question": "and this?", "answer": "B"}]))[0] is own
    assert recognise(sample_of([{**rows[0], "question": "what?", "type": "easy"}]))[0] is own
    assert recognise(sample_of([{**rows[0], "question": "what?", "options": ["a"], "answer": "a"}]))[0] is own


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("docvqa", ("questionid", "question", "image", "answers")),
        ("scienceqa", ("image", "question", "choices", "answer", "hint")),
        ("textvqa", ("image", "question", "question_id", "answers", "ocr_tokens")),
        ("ocrbench", ("dataset", "question", "question_type", "answer", "image")),
        ("seed", ("question", "choice_a", "choice_b", "choice_c", "choice_d", "answer", "data_type", "image")),
    ],
)
def test_columns_that_tell_no_more_may_be_missing(name: str, columns: tuple[str, ...]) -> None:
    (row,) = read(FORMATS[name], {column: cells_of(name)[column] for column in columns})
    assert row.cells["question"] == MADE[name][0]


def test_pope_s_own_files_are_pope() -> None:
    cells = {
        "question_id": 1,
        "image": "COCO_val2014_000000310196.jpg",
        "text": "Is there a snowboard?",
        "label": "yes",
    }
    (row,) = read(FORMATS["pope"], cells)
    assert (row.cells["question"], row.cells["answer"], row.cells["domain"]) == ("Is there a snowboard?", "yes", "POPE")


def test_a_kind_that_is_no_list_is_taken_as_it_stands() -> None:
    assert made("docvqa", question_types="form")["task"] == "form"


def test_chartqa_of_another_publisher_is_the_same() -> None:
    cells = {"image": {"bytes": PNG, "path": None}, "query": "how many?", "label": ["14"], "human_or_machine": "human"}
    (row,) = read(FORMATS["chartqa"], cells)
    assert (row.cells["question"], row.cells["answer"], row.cells["domain"]) == ("how many?", ["14"], "human")


class TestMMMU:
    def test_only_pictures_that_are_named_are_taken_and_counted_from_one(self) -> None:
        cells = made("mmmu", question="compare <image 2> with <image 2>, not <image 5>")
        assert cells["question"] == "compare <image 1> with image 2, not image 5"
        assert [picture.name for picture in cells["images"]] == ["validation_Accounting_1_2.png"]

    def test_marks_ahead_of_the_question_are_left_out(self) -> None:
        assert made("mmmu", question="<image 1> <image 2> what?")["question"] == "what?"

    def test_pictures_as_options_are_named_in_the_question_by_letter(self) -> None:
        cells = made("mmmu", question="which is a cell?", options="['<image 1>', '<image 2>']", answer="A")
        assert cells["question"] == "which is a cell?\nA. <image 1>\nB. <image 2>"
        assert (cells["choices"], cells["answer"], len(cells["images"])) == (["A", "B"], "A", 2)

    def test_an_open_question_may_have_several_answers(self) -> None:
        cells = made("mmmu", options="[]", question_type="open", answer="['24/7', '3.429']")
        assert (cells["choices"], cells["answer"], cells["answers"]) == (None, "", ["24/7", "3.429"])

    def test_a_row_without_any_picture_is_left_out(self) -> None:
        with pytest.raises(PromptError, match="the row has no image"):
            made("mmmu", image_1=None, image_2=None)


def test_a_version_of_mathverse_whose_question_is_in_the_picture_is_asked_by_its_request() -> None:
    assert made("mathverse", question="", query_wo="answer what is shown")["question"] == "answer what is shown"
    free = made("mathverse", question="Find x.", answer="y = 3", question_type="free-form")
    assert (free["question"], free["answer"], free["choices"]) == ("Find x.", "y = 3", None)


def test_frames_of_a_video_are_named_and_the_rest_goes_on() -> None:
    rows = read(FORMATS["seed"], cells_of("seed", data_type="video"), cells_of("seed"))
    assert list(errors(rows)) == [1]
    assert "got frames of a video ('data_type' is 'video')" in rows[0].error


def test_a_picture_may_be_a_path() -> None:
    assert made("vstar", image="direct_attributes/sa_4690.jpg")["images"] == ["direct_attributes/sa_4690.jpg"]
    assert made("mathvista", decoded_image=None)["images"] == ["images/2.jpg"]


def test_mmbench_with_pictures_as_text_is_left_to_vlmevalkit() -> None:
    assert FORMATS["mmbench"].matches(sample_of([cells_of("mmbench", image="aGVsbG8=")])) is None


def test_a_benchmark_is_known_before_the_table_of_vlmevalkit_that_it_lies_in() -> None:
    image = base64.b64encode(PNG).decode()
    cells = {"index": 1, "image": image, "decoded_image": None, "metadata": None, "category": "vqa", "task": "charts"}
    (row,) = read(FORMATS["mathvista"], cells_of("mathvista") | cells)
    assert (row.cells["choices"], row.cells["domain"], row.cells["task"]) == (["Yes", "No"], "vqa", "charts")
    assert row.cells["images"] == [Picture(PNG)]


def test_metadata_may_be_json_text() -> None:
    assert made("mathvista", metadata='{"category": "math", "task": "geometry"}')["domain"] == "math"
    assert made("mathvista", metadata="no JSON {")["domain"] == "MathVista"


def test_a_picture_keeps_the_name_it_has_in_its_table() -> None:
    (picture,) = made("mme")["images"]
    assert isinstance(picture, Picture)
    assert picture.name == "0020.png"


QUESTION = {
    "id": "201307251",
    "imageId": "n161313",
    "question": "Is it overcast?",
    "answer": "no",
    "fullAnswer": "No, it is clear.",
    "isBalanced": True,
    "types": {"structural": "verify", "semantic": "global", "detailed": "weatherVerify"},
}


class TestGQA:
    @pytest.fixture
    def tables(self, tmp_path: Path) -> Path:
        other = QUESTION | {"id": "2", "imageId": "n2"}
        images = [{"id": "n161313", "image": struct()}, {"id": "n3", "image": struct()}]
        for name, rows in {"x_instructions": [QUESTION, other], "x_images": images}.items():
            (tmp_path / name).mkdir()
            parquet.write_table(pa.Table.from_pylist(rows), tmp_path / name / "testdev-00000-of-00001.parquet")
        return tmp_path

    def test_questions_are_joined_with_the_table_of_pictures_beside_them(self, tables: Path) -> None:
        prompts = open_prompts(tables)
        (prompt,) = prompts
        assert prompts.read_as.title == "GQA"
        assert (prompt.id, prompt.question, prompt.answer) == ("201307251", "Is it overcast?", "no")
        assert (prompt.domain, prompt.task) == ("verify", "weatherVerify")
        (problem,) = prompts.problems
        assert problem.row == 2
        assert "expected the picture 'n2' in the table of pictures" in problem.message

    def test_the_questions_alone_say_what_is_missing(self, tables: Path) -> None:
        with pytest.raises(PromptError, match="expected '…_images' beside '…_instructions'"):
            open_prompts(tables / "x_instructions")

    def test_both_tables_may_lie_in_one_folder(self, tmp_path: Path) -> None:
        parquet.write_table(pa.Table.from_pylist([{"id": "n161313", "image": struct()}]), tmp_path / "images.parquet")
        (tmp_path / "questions.json").write_text(json.dumps([QUESTION]))
        prompts = open_prompts(tmp_path)
        assert ([prompt.answer for prompt in prompts], prompts.problems) == (["no"], ())

    def test_pictures_may_be_files_named_by_their_number(self, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "n161313.png").write_bytes(PNG)
        (tmp_path / "questions.json").write_text(json.dumps([QUESTION]))
        assert [prompt.answer for prompt in open_prompts(tmp_path)] == ["no"]

    def test_a_table_that_has_the_pictures_needs_no_other(self) -> None:
        (row,) = read(FORMATS["gqa"], cells_of_question(image=struct()))
        assert row.cells["question"] == "Is it overcast?"


def cells_of_question(**other: Any) -> dict[str, Any]:
    return {column.casefold(): value for column, value in QUESTION.items()} | other


@pytest.mark.parametrize("name", ["mmmu", "seed"])
def test_a_benchmark_as_parquet_is_opened_whole(name: str, tmp_path: Path) -> None:
    row = ROWS[name] | ({f"image_{number}": struct() for number in range(1, 8)} if name == "mmmu" else {})
    parquet.write_table(pa.Table.from_pylist([row, ROWS[name]]), tmp_path / "test-00000-of-00001.parquet")
    first, second = open_prompts(tmp_path)
    assert first.question == second.question == MADE[name][0]
    assert first.id == MADE[name][6]
    assert second.id == f"{first.id}, row 2"
