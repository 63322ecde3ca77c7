"""TextVQA: questions on text in photos, with ten people's answers.

Read in lmms-eval's `tasks/textvqa/utils.py`: image, question, question_id, answers (ten texts, all accepted; none in the test split),
ocr_tokens and image_classes, which are not read.
"""

from vlm_analysis.prompts.formats.benchmarks.benchmark import WORD, Benchmark

TEXTVQA = Benchmark(
    "textvqa",
    "TextVQA",
    ("image question answers ocr_tokens", "image question answers image_classes"),
    {"id": "question_id", "image": "image", "question": "question", "answers": "answers"},
    suffix=WORD,
)
