"""V* Bench: small things in large photos.

Read in lmms-eval's `tasks/vstar_bench/utils.py` and in code that reads craigwu/vstar_bench: image (a picture, or a path such as
"direct_attributes/sa_4690.jpg"), text (the question, its options as "(A) rubber", and a request for the letter), label (a letter),
category, question_id.
"""

import re

from vlm_analysis.prompts.cells import Cells, cell_text
from vlm_analysis.prompts.formats.benchmarks.benchmark import Benchmark, lettered

_OPTION = re.compile(r"\(([A-Z])\)[ \t]*(.*?)[ \t]*(?=\n|\([A-Z]\)|$)")


def _without_options(cells: Cells) -> Cells:
    question, choices = lettered(cell_text(cells.get("text"), "text"), _OPTION)
    return {"question": question, "choices": choices} if choices else {}


VSTAR = Benchmark(
    "vstar",
    "V* Bench",
    ("image text label category question_id",),
    {"id": "question_id", "image": "image", "question": "text", "answer": "label", "domain": "category"},
    also=_without_options,
)
