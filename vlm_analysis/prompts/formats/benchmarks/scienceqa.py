"""ScienceQA: questions of school science, with a picture or without.

Read in lmms-eval's `tasks/scienceqa/utils.py`: image (may be null: then the row is left out), question, choices (a list), answer (an
index from 0), hint (put before the question), and subject, topic, category and skill from coarse to fine.
"""

from vlm_analysis.prompts.formats.benchmarks.benchmark import Benchmark

SCIENCEQA = Benchmark(
    "scienceqa",
    "ScienceQA",
    ("image question choices answer hint",),
    {
        "image": "image",
        "question": "question",
        "hint": "hint",
        "choices": "choices",
        "answer": "answer",
        "domain": "subject",
        "task": "topic",
    },
)
