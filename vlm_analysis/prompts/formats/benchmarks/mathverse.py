"""MathVerse: each problem of geometry or functions in several versions, which move its text into the picture step by step.

Read in lmms-eval's `tasks/mathverse/utils.py` and the card of CaraJ/MathVerse-lmmseval: sample_index, problem_index, problem_version,
question (with its options under "Choices:"), image (none in text-only versions), answer (a letter, or a text), question_type, metadata
with subject and subfield, query_wo, query_cot. In the version "Vision Only" the question is in the picture, and query_wo asks for it.
Versions of one problem are one group.
"""

import re

from vlm_analysis.prompts.cells import Cells, cell_text
from vlm_analysis.prompts.formats.benchmarks.benchmark import Benchmark, lettered

_OPTION = re.compile(r"^([A-Z])\s*:[ \t]*(.*)$", re.MULTILINE)


def _without_options(cells: Cells) -> Cells:
    text = cell_text(cells.get("question"), "question")
    if not text:
        return {"question": cells.get("query_wo")}
    question, choices = lettered(text, _OPTION)
    return {"question": question.removesuffix("Choices:").rstrip(), "choices": choices} if choices else {}


MATHVERSE = Benchmark(
    "mathverse",
    "MathVerse",
    ("problem_index problem_version question image",),
    {
        "id": "sample_index",
        "group": "problem_index",
        "image": "image",
        "question": "question",
        "answer": "answer",
        "domain": "metadata.subject",
        "task": "metadata.subfield",
    },
    also=_without_options,
)
