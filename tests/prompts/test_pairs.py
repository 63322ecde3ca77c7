"""VQA and COCO: questions or images in one list, answers or captions in another, joined by their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from posixpath import normpath
from typing import Any

import pytest
from formats import errors, sample_of

from vlm_analysis.prompts import archives
from vlm_analysis.prompts.archives import Files, Folder, NoFiles
from vlm_analysis.prompts.cells import Row
from vlm_analysis.prompts.formats import coco, vqa
from vlm_analysis.prompts.formats.base import Sample, Source
from vlm_analysis.prompts.formats.table import recognise

QUESTIONS = "v2_OpenEnded_mscoco_val2014_questions.json"
ANNOTATIONS = "v2_mscoco_val2014_annotations.json"
ASKED = [
    {"image_id": 42, "question": "What color are the gym shoes?", "question_id": 42000},
    {"image_id": 73, "question": "How many bikes?", "question_id": 73001},
]
ANSWERED = [
    {
        "question_type": "how many",
        "multiple_choice_answer": "2",
        "answers": [{"answer": "2", "answer_confidence": "yes", "answer_id": 1}],
        "image_id": 73,
        "answer_type": "number",
        "question_id": 73001,
    },
    {
        "question_type": "what color are the",
        "multiple_choice_answer": "white",
        "answers": [
            {"answer": text, "answer_confidence": "yes", "answer_id": number}
            for number, text in enumerate(["gray", "white", "white", "off white", "gray", "white"], 1)
        ],
        "image_id": 42,
        "answer_type": "other",
        "question_id": 42000,
    },
]


def read_vqa(
    asked: list[dict[str, Any]],
    answered: list[Any],
    beside: tuple[str, ...] = (ANNOTATIONS, QUESTIONS),
    files: Files | None = None,
    folder: str = ".",
) -> list[Row]:
    sample = sample_of(asked, QUESTIONS, files=beside)

    def part(name: str, table: str = "") -> Iterator[Row]:
        assert (name, table) == ("annotations", ANNOTATIONS)
        yield from (Row(number, cells) for number, cells in enumerate(answered, 1))

    assert recognise(sample)[0] is vqa
    return list(vqa.rows(Source(sample, sample.rows, files or NoFiles("data"), folder, part=part)))


def read_coco(images: list[Any], captions: list[Any]) -> list[Row]:
    columns = {"images": tuple(images[0]), "annotations": tuple(captions[0]), "licenses": ("id",)}
    sample = Sample("captions_val2017.json", parts=columns)
    lists = {"images": images, "annotations": captions}
    assert recognise(sample)[0] is coco
    rows = coco.rows(
        Source(
            sample,
            (),
            NoFiles("data"),
            part=lambda name: [Row(number, one) for number, one in enumerate(lists[name], 1)],
        )
    )
    return list(rows)


def test_questions_of_vqa_are_joined_with_their_annotations() -> None:
    first, second = (row.cells for row in read_vqa(ASKED, ANSWERED))
    assert first == {
        "id": 42000,
        "image": "COCO_val2014_000000000042.jpg",
        "question": "What color are the gym shoes?",
        "answer": "white",
        "answers": ["white", "gray", "off white"],
        "domain": "other",
        "task": "what color are the",
    }
    assert (second["answer"], second["answers"], second["domain"]) == ("2", ["2"], "number")


@pytest.mark.parametrize("name", ["val2014/COCO_val2014_000000000042.jpg", "000000000042.jpg", "qa/000000000042.png"])
def test_a_picture_is_found_by_its_number_wherever_it_lies(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    (row,) = read_vqa(ASKED[:1], ANSWERED, files=Folder(tmp_path), folder="qa")
    assert normpath(f"qa/{row.cells['image']}") == name


def test_in_a_folder_of_too_many_files_names_stand_for_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    monkeypatch.setattr(archives, "MAX_LISTED", 1)
    (row,) = read_vqa(ASKED[:1], ANSWERED, files=Folder(tmp_path))
    assert row.cells["image"] == "COCO_val2014_000000000042.jpg"


def test_questions_without_annotations_have_no_answer_and_say_so() -> None:
    for files in ((), ("v2_mscoco_train2014_annotations.json",)):
        note, *rows = read_vqa(ASKED, [], files)
        assert note.number == 0
        assert f"expected {ANNOTATIONS} beside" in note.error
        assert [row.cells["answer"] for row in rows] == ["", ""]


def test_a_table_with_questions_answers_and_pictures_is_read_alone() -> None:
    cells = {**ASKED[0], **ANSWERED[1], "image": {"bytes": None, "path": "a.jpg"}}
    sample = sample_of([cells], "validation.parquet")
    assert recognise(sample)[0] is vqa
    (row,) = vqa.rows(Source(sample, sample.rows, NoFiles("data")))
    assert (row.cells["image"], row.cells["answers"], row.cells["task"]) == (
        "a.jpg",
        ["white", "gray", "off white"],
        "what color are the",
    )


def test_questions_on_pictures_that_have_no_number_are_no_vqa() -> None:
    assert vqa.matches(sample_of([{**ASKED[0], "image_id": "0054c91397f2fe05"}], QUESTIONS)) is None


@pytest.mark.parametrize(
    ("asked", "answered", "message"),
    [
        ({"image_id": [42]}, {}, "expected the number of a COCO image, got [42]"),
        ({"image_id": None}, {}, "got None"),
        ({}, {"answers": "white, gray"}, "the cell 'answers' could not be read: expected a list, got 'white, gray'"),
        ({}, {"answers": [[["white"]]]}, "the cell 'answers' could not be read: expected text or a number, got a list"),
        ({}, {"multiple_choice_answer": {}}, "got a dict"),
    ],
)
def test_a_bad_row_of_vqa_says_why_and_the_rest_go_on(asked: Any, answered: Any, message: str) -> None:
    third = {**ASKED[0], "question_id": 42001}
    rows = read_vqa([ASKED[1], {**ASKED[0], **asked}, third], [ANSWERED[0], {**ANSWERED[1], **answered}])
    assert list(errors(rows)) == [2]
    assert message in errors(rows)[2]


def test_an_image_of_coco_is_a_prompt_with_all_its_captions() -> None:
    images = [
        {"id": 139, "file_name": "000000000139.jpg", "height": 4},
        {"id": 285, "file_name": "000000000285.jpg", "height": 4},
    ]
    captions = [
        {"image_id": 285, "id": 1, "caption": "A bear."},
        {"image_id": 139, "id": 2, "caption": "A room."},
        {"image_id": 139, "id": 3, "caption": "A woman in a room.\n"},
        {"image_id": 7, "id": 4, "caption": "Of no image."},
    ]
    first, second = (row.cells for row in read_coco(images, captions))
    assert first == {
        "id": 139,
        "image": "000000000139.jpg",
        "question": "Describe the image in one sentence.",
        "answer": "A room.",
        "answers": ["A room.", "A woman in a room."],
    }
    assert second["answers"] == ["A bear."]


def test_a_bad_image_or_caption_of_coco_says_why_and_the_rest_go_on() -> None:
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(1, 5)] + [{"id": [5], "file_name": None}]
    captions = [
        {"image_id": 1, "caption": "One."},
        {"image_id": 2, "caption": ["Two."]},
        {"image_id": 4, "caption": None},
        {"image_id": {}, "caption": 7},
    ]
    rows = read_coco(images, captions)
    assert {number: text[:40] for number, text in errors(rows).items()} == {
        2: "the cell 'caption' could not be read: ex",
        5: "the row has no image: expected a picture",
    }
    assert [row.cells["answer"] for row in rows if not row.error] == ["One.", "", ""]


def test_more_than_a_set_may_hold_are_counted_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vqa, "MAX_ROWS", 1)
    first, more = read_vqa(ASKED, ANSWERED)
    assert first.cells["answer"] == "white"
    assert (more.number, more.error) == (0, "1 more question left out: expected at most 1. Split the file.")
    monkeypatch.setattr(coco, "MAX_ROWS", 2)
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(5)]
    more, *rows = read_coco(images, [{"image_id": number, "caption": str(number)} for number in (4, 1)])
    assert [row.cells["answer"] for row in rows] == ["", "1"]
    assert (more.number, more.error) == (0, "3 more images left out: expected at most 2. Split the file.")
