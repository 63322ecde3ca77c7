"""MME: two questions on each picture, one to be answered with yes and one with no.

Read in lmms-eval's `tasks/mme/utils.py`: question_id (that of the picture, so two rows share it), image, question (which ends in "Please
answer yes or no."), answer ("Yes" or "No"), category. The level above the categories, perception or cognition, is the table of that file.
"""

from vlm_analysis.prompts.cells import Cells, cell_text
from vlm_analysis.prompts.formats.benchmarks.benchmark import Benchmark, only

_COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
_PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "ocr",
)  # fmt: skip


def _domain(cells: Cells) -> Cells:
    is_cognition = cell_text(cells.get("category"), "category").lower() in _COGNITION
    return {"domain": "Cognition" if is_cognition else "Perception"}


MME = Benchmark(
    "mme",
    "MME",
    ("image question answer category question_id",),
    {
        "image": "image",
        "question": "question",
        "answer": "answer",
        "task": "category",
        "id": "question_id",
        "group": "question_id",
    },
    told=only("category", _COGNITION + _PERCEPTION),
    also=_domain,
)
