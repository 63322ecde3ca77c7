"""MathVista: mathematics in figures, plots and photos.

Read in lmms-eval's `tasks/mathvista/utils.py`: pid, question, decoded_image (`image` is a path in another archive), choices, answer (the
text of a choice, or a number as text; blank in the test split), and metadata with category and task, among others.
"""

from vlm_analysis.prompts.formats.benchmarks.benchmark import Benchmark

MATHVISTA = Benchmark(
    "mathvista",
    "MathVista",
    ("pid question decoded_image", "pid question image question_type answer_type"),
    {
        "id": "pid",
        "image": "decoded_image image",
        "question": "question",
        "choices": "choices",
        "answer": "answer",
        "domain": "metadata.category category",
        "task": "metadata.task task",
    },
)
