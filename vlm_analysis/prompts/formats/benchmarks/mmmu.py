"""MMMU: college questions in thirty subjects, with up to seven pictures.

Read in lmms-eval's `tasks/mmmu/utils.py`: id ("validation_Accounting_1"), question and options (a list as Python writes it, in text),
which name their pictures as <image 1>, image_1 to image_7, answer (a letter, a text, or a list of texts as text), question_type,
subfield. Only pictures that are named are taken. Where an option is a picture, options are part of the question, and the choices are
their letters.
"""

import re
import string

from vlm_analysis.prompts.cells import Cells, as_list, cell_text, is_blank
from vlm_analysis.prompts.formats.benchmarks.benchmark import Benchmark
from vlm_analysis.prompts.places import has_marks, without_leading_marks

_NAMED = re.compile(r"<image ([1-7])>")
_ID = re.compile(r"[^_]+_(.+?)_\d+")


def _also(cells: Cells) -> Cells:
    question = cell_text(cells.get("question"), "question")
    choices = [cell_text(one, "options") for one in as_list(cells.get("options"), "options")]
    if any(map(has_marks, choices)):
        letters = string.ascii_uppercase[: len(choices)]
        question += "".join(f"\n{letter}. {choice}" for letter, choice in zip(letters, choices, strict=False))
        choices = list(letters)
    pictures = {str(number): cell for number in range(1, 8) if not is_blank(cell := cells.get(f"image_{number}"))}
    named = sorted(set(_NAMED.findall(question)) & set(pictures)) or sorted(pictures)
    answer = cell_text(cells.get("answer"), "answer")
    subject = _ID.fullmatch(cell_text(cells.get("id"), "id"))
    return {
        "question": without_leading_marks(_renumbered(question, named), len(named)),
        "choices": choices,
        "image": [pictures[number] for number in named],
        "answers": as_list(answer, "answer") if answer.startswith("[") and not choices else None,
        "answer": None if answer.startswith("[") and not choices else answer,
        "domain": subject.group(1) if subject else cells.get("subfield"),
    }


def _renumbered(question: str, named: list[str]) -> str:
    """Return a question whose marks are counted from 1; one that stands there again, or has no picture, is text."""
    seen: set[str] = set()

    def mark(found: re.Match[str]) -> str:
        number = found.group(1)
        if number not in named or number in seen:
            return f"image {number}"
        seen.add(number)
        return f"<image {named.index(number) + 1}>"

    return _NAMED.sub(mark, question)


MMMU = Benchmark(
    "mmmu",
    "MMMU",
    ("image_1 question options answer",),
    {"id": "id", "question": "question", "answer": "answer", "task": "subfield"},
    also=_also,
)
