"""Files in the formats of others, opened the whole way: from a file to prompts, with what was left out."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from tables import RED

from vlm_analysis import open_prompts
from vlm_analysis.errors import PromptError

ASKED = [{"role": "user", "content": "<image>w1 w2"}, {"role": "assistant", "content": "w5"}]


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]


def written(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("name", ["train.json", "train.jsonl"])
def test_llava_conversations_open_and_say_what_they_were_read_as(folder: Path, name: str) -> None:
    asked = {"a.png": ("<image>\nWhich part?", "a pump"), "b.png": ("Of <image>, how many?", "4")}
    rows = [{"id": "000111", "image": image, "conversations": talk(*texts)} for image, texts in asked.items()]
    prompts = open_prompts(written(folder / name, rows))
    assert [(prompt.question, prompt.answer) for prompt in prompts] == [
        ("Which part?", "a pump"),
        ("Of <image>, how many?", "4"),
    ]
    assert prompts[1].parts == ("Of ", 0, ", how many?")
    assert [prompt.id for prompt in prompts] == ["000111", "000111, row 2"]
    assert prompts.read_as == ("LLaVA conversations", "'conversations' with 'from' and 'value'")
    assert prompts.problems == ()


def test_messages_open_with_pictures_beside_above_and_in_them(folder: Path) -> None:
    uri = "data:image/png;base64," + base64.b64encode((folder / "a.png").read_bytes()).decode()
    (folder / "data").mkdir()
    RED.save(folder / "data" / "c.png")
    parts = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "w1 w2"}]
    rows = [
        {"messages": ASKED, "images": [str(folder / "b.png")]},
        {"messages": ASKED, "images": ["../a.png"]},
        {"messages": ASKED, "images": ["c.png"]},
        {"messages": [{"role": "user", "content": parts}, ASKED[1]]},
    ]
    prompts = open_prompts(written(folder / "data" / "sft.json", rows))
    assert [(prompt.question, prompt.answer) for prompt in prompts] == [("w1 w2", "w5")] * 4
    assert len({prompt.image_hashes for prompt in prompts}) == 2
    assert prompts.problems == ()


def test_each_turn_is_a_prompt_with_an_id_of_its_own(folder: Path) -> None:
    turns = talk("one?", "1", "two?", "2")
    table = written(folder / "train.json", [{"id": "x", "image": "a.png", "conversations": turns}])
    assert [(prompt.id, prompt.answer) for prompt in open_prompts(table, turns="each")] == [("x-1", "1"), ("x-2", "2")]
    assert [(prompt.id, prompt.answer) for prompt in open_prompts(table, turns="last")] == [("x", "2")]


def test_rows_of_text_only_are_told_ten_times_and_counted(folder: Path) -> None:
    rows: list[Any] = [{"messages": ASKED[:1]}] * 300
    rows[150] = {"messages": ASKED, "images": ["a.png"]}
    prompts = open_prompts(written(folder / "train.jsonl", rows))
    assert len(prompts) == 1
    assert [problem.row for problem in prompts.problems] == [*range(1, 11), 0]
    assert prompts.problems[-1].message.startswith("289 more rows left out for the same reason: the row has no image")


def test_a_dataset_info_beside_a_table_says_how_to_read_it(folder: Path) -> None:
    entry = {"file_name": "mine.json", "formatting": "sharegpt", "columns": {"messages": "talk", "images": "pics"}}
    (folder / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    table = written(folder / "mine.json", [{"talk": talk("<image>why?", "so"), "pics": ["a.png"]}])
    for source in (table, folder):
        prompts = open_prompts(source)
        assert [(prompt.question, prompt.answer) for prompt in prompts] == [("why?", "so")]
        assert prompts.read_as is not None
        assert "as dataset_info.json says" in prompts.read_as[1]


def test_a_task_of_lmms_eval_beside_a_table_says_how_to_read_it(folder: Path) -> None:
    (folder / "task.yaml").write_text(
        "task: mine\ndoc_to_visual: !function utils.f\ndoc_to_text: ask\ndoc_to_target: say\n"
    )
    written(folder / "test.jsonl", [{"image": "a.png", "ask": "why?", "say": "so"}])
    prompts = open_prompts(folder)
    assert [(prompt.question, prompt.answer) for prompt in prompts] == [("why?", "so")]
    assert not [problem for problem in prompts.problems if "task.yaml" in problem.message]


def test_a_folder_of_vqa_opens_with_its_answers(folder: Path) -> None:
    (folder / "val2014").mkdir()
    RED.save(folder / "val2014" / "COCO_val2014_000000000042.jpg")
    asked = {"image_id": 42, "question": "What color?", "question_id": 42000}
    missing = {"image_id": 43, "question": "Why?", "question_id": 43000}
    answers = [{"answer": text, "answer_id": 1} for text in ("red", "red", "dark red")]
    kinds = {"answer_type": "other", "question_type": "what"}
    told = {"question_id": 42000, "image_id": 42, "multiple_choice_answer": "red", "answers": answers} | kinds
    about = {"info": {"year": 2017}, "license": {"name": "x"}, "data_subtype": "val2014"}
    questions = folder / "v2_OpenEnded_mscoco_val2014_questions.json"
    questions.write_text(json.dumps(about | {"questions": [asked, missing]}))
    (folder / "v2_mscoco_val2014_annotations.json").write_text(json.dumps(about | {"annotations": [told]}))
    for source in (folder, questions):
        (prompt,) = prompts = open_prompts(source)
        assert (prompt.answer, prompt.answers, prompt.domain, prompt.task) == (
            "red",
            ("red", "dark red"),
            "other",
            "what",
        )
        assert [problem.row for problem in prompts.problems if problem.row] == [2]


def test_captions_of_coco_open_with_a_question(folder: Path) -> None:
    captions = [{"image_id": 1, "id": 7, "caption": "Red."}, {"image_id": 1, "id": 8, "caption": "A red square."}]
    lists = {"info": {}, "licenses": [{"id": 1}], "images": [{"id": 1, "file_name": "a.png"}], "annotations": captions}
    (folder / "notes").mkdir()
    (folder / "notes" / "captions_val2017.json").write_text(json.dumps(lists))
    (prompt,) = open_prompts(folder)
    assert (prompt.question, prompt.answers) == ("Describe the image in one sentence.", ("Red.", "A red square."))


def test_messages_of_a_hub_table_take_the_pictures_of_their_row(folder: Path) -> None:
    parts = [{"index": 1, "text": None, "type": "image"}, {"index": None, "text": "which?", "type": "text"}]
    answer = {"content": [{"index": None, "text": "blue", "type": "text"}], "role": "assistant"}
    pictures = [{"bytes": (folder / f"{name}.png").read_bytes(), "path": None} for name in "ab"]
    texts = [{"user": "one?", "assistant": "1", "source": "x"}]
    for row in ({"messages": [{"content": parts, "role": "user"}, answer]}, {"texts": texts}):
        parquet.write_table(pa.Table.from_pylist([{**row, "images": pictures}]), folder / "train.parquet")
        (prompt,) = open_prompts(folder / "train.parquet")
        wanted = ("which?", "blue", 1) if "messages" in row else ("one?", "1", 2)
        assert (prompt.question, prompt.answer, len(prompt.images)) == wanted
        assert prompt.load_images()[-1].getpixel((0, 0)) == (0, 0, 255)


def test_a_table_of_text_only_is_refused_in_few_words(folder: Path) -> None:
    with pytest.raises(PromptError, match=r"no prompts: .*text only") as refused:
        open_prompts(written(folder / "train.jsonl", [{"messages": ASKED[:1]}] * 40))
    assert len(str(refused.value)) < 1000
