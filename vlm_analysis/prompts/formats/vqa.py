"""VQA (v1, v2, OK-VQA): `questions`, and the `annotations` in a second file beside them; or both in one table, as the Hub has them.

The answer is `multiple_choice_answer`; all that people gave are accepted, the most frequent first. `answer_type` is the domain,
`question_type` the task. Pictures are named COCO_val2014_000000000042.jpg or 000000000042.jpg. Fields as on VQA's download page.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import PurePosixPath

from vlm_analysis.errors import PromptError, short
from vlm_analysis.prompts.cells import MAX_ROWS, Cells, Row, as_list, cell_text, is_blank
from vlm_analysis.prompts.formats.base import Sample, Source, mapped, picture_of, places
from vlm_analysis.words import counted

NAME = "vqa"
TITLE = "VQA questions"
ANSWERS = ("multiple_choice_answer", "answers", "answer_type", "question_type")
_SPLIT = re.compile(r"(train|val|test)\d{4}")
_PICTURE = re.compile(r"(?:.*_)?(\d{12})\.(?:jpe?g|png)", re.IGNORECASE)


def matches(sample: Sample) -> str | None:
    """Return the reason where questions name their pictures by number, or have the answers of several people."""
    if not sample.has("question", "question_id"):
        return None
    if sample.has("multiple_choice_answer", "answers"):
        return "'question' with 'multiple_choice_answer'"
    numbered = any(isinstance(value, int) for value in sample.cells("image_id"))
    if sample.has("image") or not numbered:
        return None
    beside = _annotations(sample)
    return f"'question_id' and 'image_id', {f'with {short(repr(beside), 80)}' if beside else 'without annotations'}"


def rows(source: Source) -> Iterator[Row]:
    """Yield the questions with their answers; of a pair of files, the first 10,000."""
    if source.sample.has(*ANSWERS[:2]):
        return mapped(source, lambda cells: _prompt(cells, {}, {}, ""))
    return _joined(source)


def _joined(source: Source) -> Iterator[Row]:
    following = iter(source.rows)
    first = list(islice(following, MAX_ROWS))
    beside = _annotations(source.sample)
    wanted = {_key(row.cells) for row in first}
    answers: dict[str, Cells] = {}
    if beside:
        for row in source.part("annotations", beside):
            if (key := _key(row.cells)) in wanted:
                answers[key] = {column: row.cells.get(column) for column in ANSWERS}
    else:
        yield Row(0, error=_no_annotations(source.sample.name))
    pictures = {int(found[1]): path for name, path in places(source).items() if (found := _PICTURE.fullmatch(name))}
    split = _SPLIT.search(source.sample.name)
    named = f"COCO_{split.group()}_" if split else ""
    yield from mapped(replace(source, rows=first), lambda cells: _prompt(cells, answers, pictures, named))
    if n_more := sum(1 for _ in following):
        yield Row(
            0, error=f"{counted(n_more, 'more question')} left out: expected at most {MAX_ROWS:,}. Split the file."
        )


def _prompt(cells: Cells, answers: Mapping[str, Cells], pictures: Mapping[int, str], named: str) -> Cells:
    told = answers.get(_key(cells), cells)
    best = cell_text(told.get("multiple_choice_answer"), "multiple_choice_answer")
    given = Counter(_answer(one) for one in as_list(told.get("answers"), "answers"))
    accepted = list(dict.fromkeys(text for text in (best, *(text for text, _ in given.most_common())) if text))
    image = (
        _picture(cells.get("image_id"), pictures, named) if is_blank(cells.get("image")) else picture_of(cells["image"])
    )
    return {
        "id": cells.get("question_id"),
        "image": image,
        "question": cells.get("question"),
        "answer": next(iter(accepted), ""),
        "answers": accepted,
        "domain": told.get("answer_type"),
        "task": told.get("question_type"),
    }


def _answer(value: object) -> str:
    return cell_text(value.get("answer") if isinstance(value, dict) else value, "answers").strip()


def _picture(number: object, pictures: Mapping[int, str], named: str) -> str:
    """Return the name of a picture: that of a file with this number, else the one that COCO gives it."""
    if not isinstance(number, int):
        raise PromptError(
            f"the cell 'image_id' could not be read: expected the number of a COCO image, got {short(repr(number), 60)}. Write a number."
        )
    return pictures.get(number, f"{named}{number:012d}.jpg")


def _key(cells: Cells) -> str:
    return short(cells.get("question_id"))


def _annotations(sample: Sample) -> str | None:
    """Return the name of the file of annotations beside questions: that of the same split, or the only one."""
    files = [
        name for name in sample.files if "/" not in name and "annotations" in name.lower() and name.endswith(".json")
    ]
    split = _SPLIT.search(sample.name)
    same = [name for name in files if split and split.group() in name]
    found = same or ([] if split else files)
    return found[0] if len(found) == 1 else None


def _no_annotations(name: str) -> str:
    split = _SPLIT.search(name)
    return (
        f"the prompts have no answers: expected v2_mscoco_{split.group() if split else 'val2014'}_annotations.json beside "
        f"'{short(PurePosixPath(name).name)}', got none. Copy it there."
    )
