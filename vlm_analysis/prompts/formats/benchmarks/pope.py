"""POPE: is a thing in the photo? Things are chosen at random, by how common they are, or to mislead.

Read in lmms-eval's `tasks/pope/utils.py`: question_id, image, question, answer ("yes" or "no"), category ("adversarial", "popular",
"random"). Each category counts its questions from 1, so an id has both.
"""

from vlm_analysis.prompts.cells import Cells, cell_text
from vlm_analysis.prompts.formats.benchmarks.benchmark import WORD, Benchmark, only


def _id(cells: Cells) -> Cells:
    parts = [cell_text(cells.get(column), column) for column in ("category", "question_id")]
    return {"id": "-".join(part for part in parts if part)}


POPE = Benchmark(
    "pope",
    "POPE",
    ("image question answer category question_id",),
    {"image": "image", "question": "question", "answer": "answer", "domain": "category"},
    told=only("category", ("adversarial", "popular", "random")),
    also=_id,
    suffix=WORD,
)
