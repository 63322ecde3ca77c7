"""AI2D: diagrams of school science.

Read in lmms-eval's `tasks/ai2d/utils.py`: image, question, options (a list), answer (an index from 0, as text).
"""

from vlm_analysis.prompts.cells import Cells, cell_text
from vlm_analysis.prompts.formats.base import Sample
from vlm_analysis.prompts.formats.benchmarks.benchmark import Benchmark


def _told(sample: Sample) -> bool:
    answers = sample.cells("answer")
    return bool(answers) and all(isinstance(one, int) or (isinstance(one, str) and one.isdigit()) for one in answers)


def _by_index(cells: Cells) -> Cells:
    text = cell_text(cells.get("answer"), "answer")
    return {"answer": int(text)} if text.isascii() and text.isdigit() and len(text) < 4 else {}


AI2D = Benchmark(
    "ai2d",
    "AI2D",
    ("image question options answer",),
    {"image": "image", "question": "question", "choices": "options", "answer": "answer"},
    told=_told,
    also=_by_index,
)
