"""ChartQA: questions on charts, by people or made from the charts' data.

lmms-lab/ChartQA has image, question, answer and type ("human_test", "augmented_test"; read in lmms-eval's `tasks/chartqa/utils.py`);
HuggingFaceM4/ChartQA has image, query, label (a list of one) and human_or_machine (a class, "human" or "machine").
"""

from vlm_analysis.prompts.formats.base import Sample
from vlm_analysis.prompts.formats.benchmarks.benchmark import Benchmark, only

_by_origin = only("type", ("human_test", "augmented_test", "human", "augmented"))


def _told(sample: Sample) -> bool:
    return sample.has("human_or_machine") or _by_origin(sample)


CHARTQA = Benchmark(
    "chartqa",
    "ChartQA",
    ("image question answer type", "image query label human_or_machine"),
    {"image": "image", "question": "question query", "answer": "answer label", "domain": "type human_or_machine"},
    told=_told,
    suffix="\nAnswer the question with a single word.",
)
