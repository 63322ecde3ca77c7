"""Read the rows of a folder of pictures with text files beside them, and name what is left out of it. Nothing is checked here.

A folder may hold a table in place of the texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from vlm_analysis.errors import PromptError, short
from vlm_analysis.prompts.archives import Files
from vlm_analysis.prompts.reading import (
    MAX_NAME_SHOWN,
    MAX_ROWS,
    MAX_SHOWN,
    TABLE_NAMES,
    TABLE_SUFFIXES,
    Cells,
    Row,
    decode_text,
    too_many_rows,
)

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".avif", ".jp2", ".j2k", ".jpx", ".mpo"),
)


def other_table(files: Files, *, any_depth: bool) -> str | None:
    """Return the one table among the files that has another name than `TABLE_NAMES`, where no picture has its question in a text file.

    Raises:
        PromptError: there are several.
    """
    names = files.names()
    tables = [name for name in names if _is_table(name) and (any_depth or "/" not in name)]
    if not tables or any(_is_image(name) and f"{_stem(name)}.txt" in names for name in names):
        return None
    if len(tables) > 1:
        raise PromptError(
            f"the prompts could not be read: expected one table, or one named {' or '.join(TABLE_NAMES)}, got "
            f"{short(' and '.join(map(repr, tables)))}. Rename the one that holds the prompts."
        )
    return tables[0]


def folder_rows(files: Files, label: str) -> list[Row]:
    """Return a row for each image of `domain/name.png` + `name.txt` (question) + `name.answer.txt` (optional).

    The domain is the name of the image's folder, "default" at the top; the id is the name without its suffix, such as
    "charts/bars-1". Rows are numbered in the order of their names. A question whose picture has another ending, or none,
    is a row with that reason.

    Raises:
        PromptError: there is no image, or there are more than 10,000.
    """
    names = files.names()
    images = [name for name in names if _is_image(name)]
    lone = _lone_questions(names)
    if not images and not any(lone.values()):
        content = f"{len(names)} other files, such as {short(repr(names[0]))}" if names else "no file"
        raise PromptError(
            f"'{short(label)}' holds no prompts: expected one of {', '.join(TABLE_NAMES)}, or images named domain/name.png "
            f"with their question in name.txt; got {content}. Add one of these."
        )
    named = sorted([*images, *lone])
    if len(named) > MAX_ROWS:
        raise too_many_rows(label, f"{len(named):,}")
    all_names = set(names)
    return [
        _lone_row(number, name, lone[name]) if name in lone else _folder_row(number, name, files, all_names)
        for number, name in enumerate(named, 1)
    ]


def left_out_files(files: Files) -> str:
    """Return which files of such a folder are neither a picture nor belong to one, with the reason; "" where all do."""
    names = files.names()
    lone = _lone_questions(names)
    others = [name for name in names if not (_is_image(name) or name.endswith(".txt") or name in lone.values())]
    if not others:
        return ""
    shown = ", ".join(short(repr(name), MAX_NAME_SHOWN) for name in others[:MAX_SHOWN])
    more = f" and {len(others) - MAX_SHOWN} more" if len(others) > MAX_SHOWN else ""
    return (
        f"{len(others)} files were left out: expected pictures ({', '.join(IMAGE_SUFFIXES)}) and texts (.txt), got {shown}{more}. "
        "Save pictures among them as PNG."
    )


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def _is_table(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in TABLE_SUFFIXES


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
