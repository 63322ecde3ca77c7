"""Prompts in the formats of others: each entry replaced by what it should not be, and rows that are far more than they seem."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vlm_analysis import open_prompts

from .cases import Case, changed
from .prompt_files import picture

URI = "data:image/png;base64," + base64.b64encode(picture()).decode()
TALK = [{"from": "human", "value": "<image>\nwhich?"}, {"from": "gpt", "value": "red"}]
SAID = [{"role": "user", "content": "<image>which?"}, {"role": "assistant", "content": "red"}]
PARTS = [{"type": "image_url", "image_url": {"url": URI}}, {"type": "text", "text": "which?"}]
ROWS: dict[str, dict[str, Any]] = {
    "llava": {"id": "1", "image": "a.png", "conversations": TALK},
    "sharegpt": {"conversations": TALK, "images": ["a.png"], "system": "Be brief."},
    "messages": {"messages": SAID, "images": ["a.png"]},
    "parts": {"messages": [{"role": "user", "content": PARTS}, SAID[1]]},
    "completion": {"prompt": SAID[:1], "completion": SAID[1:], "images": ["a.png"]},
    "alpaca": {"instruction": "which?", "input": "", "output": "red", "images": ["a.png"], "history": [["x", "y"]]},
    "swift": {"query": "<image>which?", "response": "red", "images": [{"bytes": None, "path": "a.png"}]},
    "pairs": {"conversation": [{"human": "which?", "assistant": "red"}], "images": ["a.png"]},
}
INFO = {
    "it": {"file_name": "it.json", "formatting": "sharegpt", "columns": {"messages": "x"}, "tags": {"role_tag": "from"}}
}
QUESTIONS = {"questions": [{"image_id": 1, "question": "which?", "question_id": 2}]}
ANSWERED = {"question_id": 2, "multiple_choice_answer": "red", "answers": [{"answer": "red"}], "answer_type": "other"}
TASK = {
    "doc_to_text": "question",
    "doc_to_target": "say",
    "lmms_eval_specific_kwargs": {"default": {"pre_prompt": "x"}},
}
OWN = {"image": "a.png", "question": "which?"}
CAPTIONS = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "caption": "red"}]}
NAMES = {"vqa": "v2_mscoco_val2014_questions.json", "answers": "v2_mscoco_val2014_annotations.json"}


def read(name: str, folder: Path) -> None:
    for turns in ("first", "each"):
        prompts = open_prompts(folder / name, turns=turns)
        assert all(prompt.key and prompt.parts for prompt in prompts)
        assert all(len(problem.message) < 2000 for problem in prompts.problems)


def cases() -> Iterator[Case]:
    """Yield all cases of formats of prompts."""
    for kind, row in ROWS.items():
        for name, text in changed(row):
            yield _case(f"{kind} {name}", {"it.json": f"[{text}, {json.dumps(row)}]"})
    for name, text in changed(INFO):
        table = [{"x": TALK, "images": ["a.png"]}, ROWS["sharegpt"]]
        yield _case(f"description {name}", {"it.json": json.dumps(table), "dataset_info.json": text})
    for name, text in changed(CAPTIONS):
        yield _case(f"captions {name}", {"it.json": text})
    for name, text in changed(QUESTIONS):
        files = {NAMES["vqa"]: text, NAMES["answers"]: json.dumps({"annotations": [ANSWERED]})}
        yield _case(f"questions {name}", files, NAMES["vqa"])
    for name, text in changed({"annotations": [ANSWERED]}):
        yield _case(f"annotations {name}", {NAMES["vqa"]: json.dumps(QUESTIONS), NAMES["answers"]: text}, NAMES["vqa"])
    for name, text in changed(TASK):
        yield _case(f"task {name}", {"it.json": json.dumps([{**OWN, "say": "red"}] * 2), "task.yaml": text})
    yield from _large()


def _large() -> Iterator[Case]:
    """Yield rows that stand for more than they should: each is refused alone, so nothing is left of a table of one row."""

    def uri() -> Any:
        return [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 50_000_000}}]

    def many() -> Any:
        return [{"from": ("human", "gpt")[place % 2], "value": "x"} for place in range(200_000)]

    rows: dict[str, Callable[[], dict[str, Any]]] = {
        "a data URI of 50 MB": lambda: {"messages": [{"role": "user", "content": uri()}]},
        "200,000 turns": lambda: {"conversations": many(), "image": "a.png"},
        "300 pictures in a turn": lambda: {"messages": [{"role": "user", "content": [*PARTS[:1] * 300, PARTS[1]]}]},
        "a million marks": lambda: {"messages": [{"role": "user", "content": "<image>" * 1_000_000}], "image": "a.png"},
        "a text of 20 MB": lambda: {"messages": [{"role": "user", "content": "x" * 20_000_000}], "image": "a.png"},
        "a list as text, 100,000 deep": lambda: {"conversations": "[" * 100_000, "image": "a.png"},
    }
    for name, row in rows.items():
        yield _case(name, {"it.json": functools.partial(_table, row)}, refused=True)
    text_only = json.dumps({"conversations": TALK}) + "\n"
    yield _case("10,000 rows without a picture", {"it.jsonl": lambda: text_only * 10_000}, "it.jsonl", refused=True)


def _table(row: Callable[[], dict[str, Any]]) -> str:
    return json.dumps([row()])


def _case(
    name: str, files: Mapping[str, str | Callable[[], str]], table: str = "it.json", refused: bool = False
) -> Case:
    def make(folder: Path) -> None:
        (folder / "a.png").write_bytes(picture())
        (folder / "COCO_val2014_000000000001.jpg").write_bytes(picture())
        for file, text in files.items():
            (folder / file).write_text(text if isinstance(text, str) else text())

    return Case("formats of others", name, make, functools.partial(read, table), refused)
