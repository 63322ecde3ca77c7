"""RealWorldQA: photos from cars and elsewhere.

Read in lmms-eval's `tasks/realworldqa/utils.py`: image, question (with options on lines of their own, "A. Left", and a request such as
"Please answer directly with only the letter of the correct option and nothing else."), answer (a letter, or a word). A table of just
these columns may be any; it is this benchmark where most questions end in such a request.
"""

import re

from vlm_analysis.prompts.cells import Cells, cell_text
from vlm_analysis.prompts.formats.base import Sample
from vlm_analysis.prompts.formats.benchmarks.benchmark import Benchmark, lettered

_OPTION = re.compile(r"^([A-Z])\.[ \t]+(.*)$", re.MULTILINE)
_REQUEST = "please answer directly with"


def _told(sample: Sample) -> bool:
    questions = sample.cells("question")
    return 2 * sum(isinstance(one, str) and _REQUEST in one.lower() for one in questions) > len(questions)


def _without_options(cells: Cells) -> Cells:
    question, choices = lettered(cell_text(cells.get("question"), "question"), _OPTION)
    return {"question": question, "choices": choices} if choices else {}


REALWORLDQA = Benchmark(
    "realworldqa",
    "RealWorldQA",
    ("image question answer",),
    {"image": "image", "question": "question", "answer": "answer"},
    told=_told,
    also=_without_options,
)
