"""InfographicVQA: questions on infographics.

lmms-lab/DocVQA keeps it as a second configuration: questionId, question, image, answers (all accepted), answer_type (a list), image_url,
"operation/reasoning" (a list), ocr. Not verified beyond the documentation of evalscope, which reads it.
"""

from vlm_analysis.prompts.cells import Cells
from vlm_analysis.prompts.formats.benchmarks.benchmark import WORD, Benchmark, first_of


def _task(cells: Cells) -> Cells:
    return {"task": first_of(cells, "answer_type")}


INFOVQA = Benchmark(
    "infovqa",
    "InfographicVQA",
    tuple(f"questionid question image {other}" for other in ("answer_type", "image_url", "operation/reasoning")),
    {"id": "questionid", "image": "image", "question": "question", "answers": "answers"},
    also=_task,
    suffix=WORD,
)
