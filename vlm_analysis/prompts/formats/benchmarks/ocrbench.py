"""OCRBench: text in pictures of many kinds, from many data sets.

Read in lmms-eval's `tasks/ocrbench/utils.py`: dataset, question, question_type, answer (a list, all accepted), image.
"""

from vlm_analysis.prompts.formats.benchmarks.benchmark import Benchmark

OCRBENCH = Benchmark(
    "ocrbench",
    "OCRBench",
    ("image question answer question_type dataset",),
    {"image": "image", "question": "question", "answers": "answer", "domain": "question_type", "task": "dataset"},
)
