"""MMBench as Parquet, with pictures in the table; its TSV is VLMEvalKit's.

Read in lmms-eval's `tasks/mmbench/en_utils.py`: index, question, hint (put before the question), A to D, answer (a letter; none in the
test split), category, L2-category (the level above), source, split, image. Where there is none, hint and options may be "nan".
"""

from vlm_analysis.prompts.cells import Cells
from vlm_analysis.prompts.formats.base import Sample
from vlm_analysis.prompts.formats.benchmarks.benchmark import Benchmark, filled


def _told(sample: Sample) -> bool:
    return not any(isinstance(cell, str) for cell in sample.cells("image"))


def _options(cells: Cells) -> Cells:
    there = {column: cell for column, cell in cells.items() if cell != "nan"}
    return {"choices": filled(there, *"abcde"), "hint": there.get("hint")}


MMBENCH = Benchmark(
    "mmbench",
    "MMBench",
    ("index image question a b l2-category", "index image question a b category hint"),
    {
        "id": "index",
        "image": "image",
        "question": "question",
        "answer": "answer",
        "domain": "l2-category category",
        "task": "category",
    },
    told=_told,
    also=_options,
)
