"""SEED-Bench: twelve kinds of questions on photos and, which Strata does not read, on videos.

Read in lmms-eval's `tasks/seedbench/utils.py`: question_id, question, choice_a to choice_d, answer (a letter), data_type ("image" or
"video"), image (a list), question_type_id, whose names are those of the benchmark's own file.
"""

from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.cells import Cells, cell_text
from vlm_analysis.prompts.formats.benchmarks.benchmark import Benchmark, filled

_KINDS = (
    "Scene Understanding",
    "Instance Identity",
    "Instance Attributes",
    "Instance Location",
    "Instances Counting",
    "Spatial Relation",
    "Instance Interaction",
    "Visual Reasoning",
    "Text Understanding",
    "Action Recognition",
    "Action Prediction",
    "Procedure Understanding",
)  # by question_type_id, from 1


def _also(cells: Cells) -> Cells:
    if cell_text(cells.get("data_type"), "data_type").lower() == "video":
        raise PromptError(
            "the row cannot be shown: expected images, got frames of a video ('data_type' is 'video'). Strata reads no video."
        )
    kind = cell_text(cells.get("question_type_id"), "question_type_id")
    named = _KINDS[int(kind) - 1] if kind in map(str, range(1, len(_KINDS) + 1)) else kind
    return {"choices": filled(cells, "choice_a", "choice_b", "choice_c", "choice_d"), "domain": named}


SEED = Benchmark(
    "seed",
    "SEED-Bench",
    ("question choice_a choice_b answer image",),
    {"id": "question_id", "image": "image", "question": "question", "answer": "answer"},
    also=_also,
)
