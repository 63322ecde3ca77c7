"""A benchmark as a format: what its table is recognised by, and which of its columns stand for Strata's own.

A question is asked as the file has it, without the options and without what the benchmark adds to its questions. `Options.suffix` adds
both: the options by letter, and the benchmark's suffix where an answer is no option. A suffix that asks for a letter is never added, as
the answer is the text of a choice.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vlm_analysis.prompts.cells import Cells, Row, as_list, cell_text, choice_of, is_blank
from vlm_analysis.prompts.formats.base import Sample, Source, mapped, no_video, pictures_of

WORD = "\nAnswer the question using a single word or phrase."  # of several benchmarks in lmms-eval
_TEXTS = ("question", "answer", "domain", "task", "id", "group")


@dataclass(frozen=True)
class Benchmark:
    """A format that is recognised by the names of its columns.

    Attributes:
        NAME, TITLE: the key and the name of the format.
        needs: names of columns, separated by blanks; a table that has all of one entry may be this benchmark.
        columns: the table's column for each of Strata's; of several, the first that is filled counts. "metadata.task" is a field of a
            struct. `hint` is put before the question, on a line of its own.
        told: what the sample must show beside the columns.
        also: cells that take more than a name, by the row's cells; they take the place of those in `columns`.
        suffix: what the benchmark adds to a question without options.
    """

    NAME: str
    TITLE: str
    needs: tuple[str, ...]
    columns: Mapping[str, str]
    told: Callable[[Sample], bool] = lambda sample: True
    also: Callable[[Cells], Cells] = lambda cells: {}
    suffix: str = ""

    def matches(self, sample: Sample) -> str | None:
        """Return the columns that make it this benchmark."""
        names = next((names.split() for names in self.needs if sample.has(*names.split())), None)
        return f"the columns {', '.join(map(repr, names))}" if names and self.told(sample) else None

    def rows(self, source: Source) -> Iterator[Row]:
        """Yield a prompt of each row."""
        return mapped(source, lambda cells: self.prompt(cells, suffix=source.options.suffix))

    def prompt(self, cells: Cells, *, suffix: bool = False) -> Cells:
        """Return Strata's own cells of a row.

        Raises:
            PromptError: a cell is not what the benchmark holds there; the message names the file's column.
        """
        no_video(cells)
        found = {own: _first(cells, names) for own, names in self.columns.items()} | self.also(cells)
        texts = {own: cell_text(found.get(own), self._named(own)) for own in _TEXTS if own != "answer"}
        hint = cell_text(found.get("hint"), self._named("hint"))
        choices = [cell_text(one, self._named("choices")) for one in as_list(found.get("choices"), self._named("choices"))]  # fmt: skip
        answer = found.get("answer")
        if not is_blank(choices):
            answer = choice_of(answer, choices)
        question = "\n".join(part for part in (hint, texts["question"]) if part)
        return texts | {
            "question": question + (_options(choices) or self.suffix if suffix and question else ""),
            "images": pictures_of(None if is_blank(found.get("image")) else found["image"]),
            "answer": answer if isinstance(answer, list) else cell_text(answer, self._named("answer")),
            "answers": as_list(found.get("answers"), self._named("answers")),
            "choices": choices or None,
            "domain": texts["domain"] or self.TITLE,
        }

    def _named(self, own: str) -> str:
        return self.columns.get(own, own).split(" ")[0]


def only(column: str, texts: Collection[str]) -> Callable[[Sample], bool]:
    """Return a check that a column of the sample holds these texts and no other, without case."""

    def told(sample: Sample) -> bool:
        cells = sample.cells(column)
        return bool(cells) and all(isinstance(cell, str) and cell.strip().lower() in texts for cell in cells)

    return told


def lettered(text: str, pattern: re.Pattern[str]) -> tuple[str, list[str]]:
    """Return a text without the options in it, and the options.

    Args:
        text: a question with its options, and perhaps a request for a letter behind them.
        pattern: an option: its letter and its text as two groups. Options are those from A on, in order, two or more.
    """
    found = list(pattern.finditer(text))
    letters = [one.group(1) for one in found]
    if len(found) < 2 or letters != list(string.ascii_uppercase[: len(found)]):
        return text, []
    return text[: found[0].start()].strip(), [one.group(2).strip() for one in found]


def filled(cells: Cells, *columns: str) -> list[str]:
    """Return the texts of columns in order, without the blank ones at their end."""
    texts = [cell_text(cells.get(column), column) for column in columns]
    while texts and not texts[-1]:
        texts.pop()
    return texts


def first_of(cells: Cells, column: str) -> str:
    """Return the first text of a list in a column, or its only text; "" where it has none."""
    value = cells.get(column)
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return value.strip()
    return next((text for one in as_list(value, column) if (text := cell_text(one, column))), "")


def field_of(cells: Cells, name: str) -> Any:
    """Return the cell of a column, or of a field of a struct ("metadata.task"), which may be JSON text; None where there is none."""
    column, _, inner = name.partition(".")
    value = cells.get(column)
    if not inner:
        return value
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value.get(inner) if isinstance(value, Mapping) else None


def _first(cells: Cells, names: str) -> Any:
    return next((value for name in names.split() if not is_blank(value := field_of(cells, name))), None)


def _options(choices: list[str]) -> str:
    return "".join(f"\n{letter}. {choice}" for letter, choice in zip(string.ascii_uppercase, choices, strict=False))
