"""POPE: is a thing in the photo? Things are chosen at random, by how common they are, or to mislead.

Read in lmms-eval's `tasks/pope/utils.py`: question_id, image, question, answer ("yes" or "no"), category ("adversarial", "popular",
"random"). Each category counts its questions from 1, so an id has both. POPE's own files have question_id, image (a
path), text and label, and a category each.
"""

from vlm_analysis.prompts.cells import Cells, cell_text
from vlm_analysis.prompts.formats.base import Sample
from vlm_analysis.prompts.formats.benchmarks.benchmark import WORD, Benchmark, only

_by_category = only("category", ("adversarial", "popular", "random"))
_by_label = only("label", ("yes", "no"))


def _told(sample: Sample) -> bool:
    return _by_category(sample) or _by_label(sample)


def _id(cells: Cells) -> Cells:
    parts = [cell_text(cells.get(column), column) for column in ("category", "question_id")]
    return {"id": "-".join(part for part in parts if part)}


POPE = Benchmark(
    "pope",
    "POPE",
    ("image question answer category question_id", "image text label question_id"),
    {"image": "image", "question": "question text", "answer": "answer label", "domain": "category"},
    told=_told,
    also=_id,
    suffix=WORD,
)
