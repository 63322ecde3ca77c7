"""Folders of pictures with text files: domain/name.png, its question in name.txt, its answer in name.answer.txt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from vlm_analysis.errors import PromptError, short
from vlm_analysis.prompts.archives import Files
from vlm_analysis.prompts.cells import Cells, Row
from vlm_analysis.prompts.formats.base import Sample, Source, left_out
from vlm_analysis.prompts.images import IMAGE_SUFFIXES
from vlm_analysis.prompts.tables import decode_text
from vlm_analysis.words import counted

NAME = "texts"
TITLE = "images with texts beside them"
EXPECTED = "one of prompts.csv, prompts.jsonl, prompts.parquet"


def matches(sample: Sample) -> str | None:
    """Return how many pictures there are: whatever has no table is read so, and what is missing is said."""
    if sample.name:
        return None
    count = sum(map(_is_image, sample.files))
    return f"{counted(count, 'image')}, each with its question in a text beside it"


def rows(source: Source) -> Iterator[Row]:
    """Yield a row for each picture of `domain/name.png` + `name.txt` (question) + `name.answer.txt` (optional).

    The domain is the name of the picture's folder, "default" at the top; the id is the name without its suffix, such as
    "charts/bars-1". Rows are numbered in the order of their names. A question whose picture has another ending, or none,
    is a row with that reason.

    Raises:
        PromptError: there is no picture.
    """
    names = source.sample.files
    images = [name for name in names if _is_image(name)]
    lone = _lone_questions(names)
    if not images and not any(lone.values()):
        content = f"{counted(len(names), 'other file')}, such as {short(repr(names[0]))}" if names else "no file"
        raise PromptError(
            f"there are no prompts: expected {EXPECTED}, or images named domain/name.png "
            f"with their question in name.txt; got {content}. Add one of these."
        )
    used = {name for name in names if _is_image(name) or name.endswith(".txt")} | set(lone.values())
    yield from left_out(
        [name for name in names if name not in used], f"pictures ({', '.join(IMAGE_SUFFIXES)}) and texts (.txt)"
    )
    all_names = set(names)
    for number, name in enumerate(sorted([*images, *lone]), 1):
        yield (
            _lone_row(number, name, lone[name]) if name in lone else _folder_row(number, name, source.files, all_names)
        )


def has_questions(names: Iterable[str]) -> bool:
    """Return whether one of the pictures among some files has its question beside it."""
    texts = {_stem(name) for name in names if name.endswith(".txt")}
    return any(_is_image(name) and _stem(name) in texts for name in names)


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _lone_questions(names: Iterable[str]) -> dict[str, str]:
    """Return the texts of a question without a picture that can be read, each with a file of another kind beside it, or ""."""
    pictured = {_stem(name) for name in names if _is_image(name)}
    others = {_stem(name): name for name in names if not _is_image(name) and not name.endswith(".txt")}
    questions = [name for name in names if name.endswith(".txt") and _stem(name) not in pictured]
    answers = {f"{stem}.answer.txt" for stem in pictured | {_stem(name) for name in questions}}
    return {name: others.get(_stem(name), "") for name in questions if name not in answers}


def _lone_row(number: int, question: str, other: str) -> Row:
    got = f"'{short(other)}'" if other else "none"
    return Row(
        number,
        {"id": _stem(question)},
        f"'{short(question)}' has no picture: expected one beside it that ends in {', '.join(IMAGE_SUFFIXES)}, got {got}. "
        f"{'Save it as PNG.' if other else 'Add it, or remove the text.'}",
    )


def _folder_row(number: int, image: str, files: Files, all_names: set[str]) -> Row:
    path = PurePosixPath(image)
    stem = str(path.with_suffix(""))
    cells: Cells = {"image": image, "id": stem, "domain": path.parent.name}
    question, answer = f"{stem}.txt", f"{stem}.answer.txt"
    try:
        if question not in all_names:
            raise PromptError(
                f"'{short(image)}' has no question: expected it in '{short(question)}', got no such file. Write the question there."
            )
        cells["question"] = decode_text(question, files.read(question))
        if answer in all_names:
            cells["answer"] = decode_text(answer, files.read(answer))
    except PromptError as error:
        return Row(number, cells, str(error))
    return Row(number, cells)
