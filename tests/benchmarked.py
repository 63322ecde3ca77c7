"""A row of each benchmark, in the shape in which its Parquet file holds it, and what Strata makes of it."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    return buffer.getvalue()


PNG = _png()


def struct(name: str = "image.png") -> dict[str, Any]:
    return {"bytes": PNG, "path": name}


ROWS: dict[str, dict[str, Any]] = {
    "ai2d": {"question": "which is the root?", "options": ["A", "B", "C"], "answer": "1", "image": struct()},
    "chartqa": {"type": "human_test", "question": "How many food items are shown?", "answer": "14", "image": struct()},
    "docvqa": {
        "questionId": "49153",
        "question": "What is the actual value per 1000?",
        "question_types": ["figure/diagram"],
        "image": struct(),
        "docId": 14465,
        "ucsf_document_id": "pybv0228",
        "ucsf_document_page_no": "81",
        "answers": ["0.28", ".28"],
        "data_split": "val",
    },
    "infovqa": {
        "questionId": "98313",
        "question": "Which platform has a heavy female audience?",
        "answers": ["pinterest"],
        "answer_type": ["single span"],
        "image": struct(),
        "image_url": "https://example.org/a.jpeg",
        "operation/reasoning": [],
        "ocr": "[]",
        "data_split": "val",
    },
    "mathverse": {
        "sample_index": "1",
        "problem_index": "1",
        "problem_version": "Text Dominant",
        "question": "In triangle ABC, the degree of angle 2 is ()\nChoices:\nA:50°\nB:60°\nC:140°\nD:160°",
        "image": struct("image_1.png"),
        "answer": "C",
        "question_type": "multi-choice",
        "metadata": {"split": "testmini", "source": "GeoQA", "subject": "Plane Geometry", "subfield": "Angle"},
        "query_wo": "Please directly answer the question and provide the correct option letter.",
        "query_cot": "Please first conduct reasoning.",
        "question_for_eval": "In triangle ABC, the degree of angle 2 is ()",
    },
    "mathvista": {
        "pid": "2",
        "question": "Is the sum of two bars smaller than 5?",
        "image": "images/2.jpg",
        "decoded_image": struct(),
        "choices": ["Yes", "No"],
        "unit": None,
        "precision": None,
        "answer": "No",
        "question_type": "multi_choice",
        "answer_type": "text",
        "metadata": {"category": "general-vqa", "task": "figure question answering", "split": "testmini"},
        "query": "Hint: Please answer the question and provide the correct option letter.",
    },
    "mmbench": {
        "index": 241,
        "question": "Which animal is it?",
        "hint": "The passage is about animals.",
        "answer": "B",
        "A": "cat",
        "B": "dog",
        "C": "nan",
        "D": "",
        "category": "identity_reasoning",
        "image": struct(),
        "source": "scienceqa",
        "L2-category": "attribute_reasoning",
        "comment": "nan",
        "split": "dev",
    },
    "mme": {
        "question_id": "code_reasoning/0020.png",
        "image": struct("0020.png"),
        "question": "Is a python code shown in the picture? Please answer yes or no.",
        "answer": "Yes",
        "category": "code_reasoning",
    },
    "mmmu": {
        "id": "validation_Accounting_1",
        "question": "<image 1> Baxter Company has a relevant range of production. What is <image 2>?",
        "options": "['$6', '$7', \"Baxter's $8\"]",
        "explanation": "",
        "image_1": struct("validation_Accounting_1_1.png"),
        "image_2": struct("validation_Accounting_1_2.png"),
        **{f"image_{number}": None for number in range(3, 8)},
        "img_type": "['Tables']",
        "answer": "B",
        "topic_difficulty": "Medium",
        "question_type": "multiple-choice",
        "subfield": "Managerial Accounting",
    },
    "ocrbench": {
        "dataset": "IIIT5K",
        "question": "what is written in the image?",
        "question_type": "Regular Text Recognition",
        "answer": ["CENTRE", "CENTER"],
        "image": struct(),
    },
    "pope": {
        "id": "0",
        "question_id": "1",
        "question": "Is there a snowboard in the image?",
        "answer": "yes",
        "image_source": "COCO_val2014_000000310196",
        "image": struct(),
        "category": "adversarial",
    },
    "realworldqa": {
        "image": struct(),
        "question": "Which way does the car face?\n\nA. Left\nB. Straight\nC. Right\n"
        "Please answer directly with only the letter of the correct option and nothing else.",
        "answer": "C",
    },
    "scienceqa": {
        "image": struct(),
        "question": "Which is the farthest north?",
        "choices": ["Oregon", "Ohio"],
        "answer": 0,
        "hint": "Look at the map.",
        "task": "closed choice",
        "grade": "grade2",
        "subject": "social science",
        "topic": "geography",
        "category": "Geography",
        "skill": "Read a map",
        "lecture": "Maps have four directions.",
        "solution": "Oregon.",
    },
    "seed": {
        "answer": "A",
        "choice_a": "One",
        "choice_b": "Two",
        "choice_c": "Three",
        "choice_d": "Four",
        "data_id": "1454426_2591111986",
        "data_type": "image",
        "question": "How many towels are in the image?",
        "question_id": "101669",
        "question_type_id": 5,
        "image": [struct()],
        "segment": None,
    },
    "textvqa": {
        "image_id": "003a8ae2ef43b901",
        "question_id": 34602,
        "question": "what is the brand of this camera?",
        "image": struct(),
        "answers": ["dkota", "dakota", "dakota"],
        "image_classes": ["Camera"],
        "ocr_tokens": ["DAKOTA", "DIGITAL"],
        "set_name": "val",
    },
    "vstar": {
        "question_id": "0",
        "image": struct(),
        "text": "What is the material of the glove?\n(A) rubber\n(B) cotton\n(C) kevlar\n(D) leather\n"
        "Answer with the option's letter from the given choices directly.",
        "category": "direct_attributes",
        "label": "A",
    },
}

# question, answer, choices, accepted answers, domain, task, id, group
MADE: dict[str, tuple[str, Any, list[str] | None, list[str], str, str, str, str]] = {
    "ai2d": ("which is the root?", "B", ["A", "B", "C"], [], "AI2D", "", "", ""),
    "chartqa": ("How many food items are shown?", "14", None, [], "human_test", "", "", ""),
    "docvqa": (
        "What is the actual value per 1000?", "", None, ["0.28", ".28"], "DocVQA", "figure/diagram", "49153", "pybv0228"
    ),
    "infovqa": (
        "Which platform has a heavy female audience?", "", None, ["pinterest"], "InfographicVQA", "single span", "98313", ""
    ),
    "mathverse": (
        "In triangle ABC, the degree of angle 2 is ()", "140°", ["50°", "60°", "140°", "160°"], [], "Plane Geometry", "Angle",
        "1", "1",
    ),
    "mathvista": (
        "Is the sum of two bars smaller than 5?", "No", ["Yes", "No"], [], "general-vqa", "figure question answering", "2", ""
    ),
    "mmbench": (
        "The passage is about animals.\nWhich animal is it?", "dog", ["cat", "dog"], [], "attribute_reasoning", "identity_reasoning",
        "241", "",
    ),
    "mme": (
        "Is a python code shown in the picture? Please answer yes or no.", "Yes", None, [], "Cognition", "code_reasoning",
        "code_reasoning/0020.png",
        "code_reasoning/0020.png",
    ),
    "mmmu": (
        "<image 1> Baxter Company has a relevant range of production. What is <image 2>?", "$7", ["$6", "$7", "Baxter's $8"], [],
        "Accounting", "Managerial Accounting", "validation_Accounting_1", "",
    ),
    "ocrbench": ("what is written in the image?", "", None, ["CENTRE", "CENTER"], "Regular Text Recognition", "IIIT5K", "", ""),
    "pope": ("Is there a snowboard in the image?", "yes", None, [], "adversarial", "", "adversarial-1", ""),
    "realworldqa": ("Which way does the car face?", "Right", ["Left", "Straight", "Right"], [], "RealWorldQA", "", "", ""),
    "scienceqa": (
        "Look at the map.\nWhich is the farthest north?", "Oregon", ["Oregon", "Ohio"], [], "social science", "geography", "", ""
    ),
    "seed": (
        "How many towels are in the image?", "One", ["One", "Two", "Three", "Four"], [], "Instances Counting", "", "101669", ""
    ),
    "textvqa": (
        "what is the brand of this camera?", "", None, ["dkota", "dakota", "dakota"], "TextVQA", "", "34602", ""
    ),
    "vstar": (
        "What is the material of the glove?", "rubber", ["rubber", "cotton", "kevlar", "leather"], [], "direct_attributes", "", "0", ""
    ),
}  # fmt: skip


def cells_of(name: str, **other: Any) -> dict[str, Any]:
    """Return the cells of a benchmark's row as a table has them, some of them replaced."""
    return {column.casefold(): value for column, value in ROWS[name].items()} | other
