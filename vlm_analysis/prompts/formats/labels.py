"""What is asked about a picture that comes with a question, with the name of its class, or with a caption."""

from __future__ import annotations

from vlm_analysis.prompts.cells import Cells, as_list, cell_text, is_blank
from vlm_analysis.prompts.checks import MAX_CHOICES
from vlm_analysis.prompts.formats.base import DESCRIBE, NAME_IT, Sample

QUESTIONS = ("question", "query", "problem")
ANSWERS = ("answer", "answers", "response", "solution", "label")
CLASSES = ("label", "class", "category")
CAPTIONS = ("caption", "captions", "text")
OWN = ("domain", "task", "id", "group", "choices", "answers")


def asked_by(sample: Sample) -> tuple[str, str] | None:
    """Return the column that says what is asked, and its kind: "question", "class" or "caption"; None where there is none."""
    labelled = [column for column in sample.columns if column in sample.labels] or [
        one for one in CLASSES if sample.has(one)
    ]
    kinds = (("question", QUESTIONS), ("caption", CAPTIONS), ("class", labelled))
    return next(((column, kind) for kind, columns in kinds for column in columns if sample.has(column)), None)


def asked(cells: Cells, column: str, kind: str, names: tuple[str, ...]) -> Cells:
    """Return question, answer and what is optional beside them, in Strata's own columns.

    Args:
        cells: a row.
        column: the column that says what is asked, and its `kind` (see `asked_by`).
        names: all classes, where they are known; up to 26 become the choices.
    """
    own = {name: cells[name] for name in OWN if name in cells}
    if kind == "question":
        answer = next((cells[name] for name in ANSWERS if name != column and not is_blank(cells.get(name))), None)
        return own | {"question": cells.get(column), "answer": answer}
    if kind == "class":
        name = cell_text(cells.get(column), column)
        return {"domain": name, "choices": choices_of(names)} | own | {"question": NAME_IT, "answer": name}
    captions = cells.get(column)
    is_text_of_list = column == "captions" and isinstance(captions, str) and captions.lstrip().startswith("[")
    is_list = isinstance(captions, list) or is_text_of_list
    several = [cell_text(one, column) for one in as_list(captions, column)] if is_list else []
    return (
        own
        | {"question": DESCRIBE, "answer": None if several else captions}
        | ({"answers": several} if several else {})
    )


def choices_of(names: tuple[str, ...]) -> list[str] | None:
    """Return the names of classes as choices; None where there are too few or too many."""
    return list(names) if 2 <= len(names) <= MAX_CHOICES else None
