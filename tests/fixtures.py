"""A source of each format as it lies on a disk, of the shape that its makers write, with two prompts where it has a table."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from benchmarked import PNG, ROWS
from PIL import Image
from pyarrow import parquet

COLOURS = ("red", "blue", "green", "white")


def png(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(buffer, "PNG")
    return buffer.getvalue()


def saved(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(colour))
    return path


def listed(path: Path, rows: object) -> Path:
    """A JSON or JSONL file, with the two pictures that rows name beside it."""
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        saved(path.parent / name, colour)
    lines = json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows))  # type: ignore[arg-type]
    path.write_text(lines)
    return path


def with_pixels(value: Any, number: int = 0) -> Any:
    """A cell with a picture in place of the bytes that only begin like one."""
    if value == PNG:
        return png(COLOURS[number])
    if isinstance(value, dict):
        return {key: with_pixels(one, number) for key, one in value.items()}
    return [with_pixels(one, place) for place, one in enumerate(value)] if isinstance(value, list) else value


def benchmark(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "test-00000-of-00001.parquet"
        parquet.write_table(pa.Table.from_pylist([with_pixels(ROWS[name])]), path)
        return path

    return write


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]


def said(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def own(folder: Path) -> Path:
    listed(folder / "unused.json", [])
    (folder / "prompts.csv").write_text("image,question,answer\na.png,what colour?,red\nb.png,what colour?,blue\n")
    return folder / "prompts.csv"


def texts(folder: Path) -> Path:
    for name in ("a", "b"):
        saved(folder / "charts" / f"{name}.png")
        (folder / "charts" / f"{name}.txt").write_text("what colour?")
    return folder


def imagefolder(folder: Path) -> Path:
    for name in ("a.png", "b.png"):
        saved(folder / "train" / name)
    rows = [{"file_name": f"train/{name}.png", "text": f"drawing {name}"} for name in "ab"]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def hub(folder: Path) -> Path:
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    table = pa.table({"image": [{"bytes": png(), "path": None}, {"bytes": png("blue"), "path": None}], "label": [0, 1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (folder / "data").mkdir()
    parquet.write_table(table, folder / "data" / "train-00000-of-00001.parquet")
    return folder


def vlmevalkit(folder: Path) -> Path:
    encoded = base64.b64encode(png()).decode()
    lines = ["index\timage\tquestion\tA\tB\tanswer\tcategory\tl2-category\tsplit"]
    lines += [
        f"1\t{encoded}\twhich?\tred\tblue\tA\tcolour\tperception\tdev",
        "2\t1\tand now?\tred\tblue\tB\tcolour\tperception\tdev",
    ]
    (folder / "MMBench_DEV_EN.tsv").write_text("\n".join(lines) + "\n")
    return folder / "MMBench_DEV_EN.tsv"


def vqa(folder: Path) -> Path:
    names = [f"COCO_val2014_{number:012d}.png" for number in (42, 73)]
    asked = [
        {"image_id": 42, "question": "which?", "question_id": 420},
        {"image_id": 73, "question": "how many?", "question_id": 730},
    ]
    answered = [
        {
            **one,
            "multiple_choice_answer": "2",
            "answers": [{"answer": "2", "answer_id": 1}],
            "answer_type": "number",
            "question_type": "how",
        }
        for one in asked
    ]
    for name in names:
        saved(folder / name)
    for name, key, rows in (
        ("v2_OpenEnded_mscoco_val2014_questions", "questions", asked),
        ("v2_mscoco_val2014_annotations", "annotations", answered),
    ):
        rows = [
            {field: cell for field, cell in row.items() if key == "questions" or field != "question"} for row in rows
        ]
        (folder / f"{name}.json").write_text(
            json.dumps({"info": {"version": "2"}, "license": {"name": "x"}, key: rows})
        )
    return folder


def coco(folder: Path) -> Path:
    images = [{"id": number, "file_name": f"{name}.png", "height": 6} for number, name in enumerate("ab")]
    captions = [{"image_id": number, "id": 7 + number, "caption": "a drawing"} for number in (0, 1)]
    return listed(folder / "captions.json", {"licenses": [{"id": 1}], "images": images, "annotations": captions})


def sharegpt(folder: Path) -> Path:
    rows = [{"conversations": turns("<image>what?", "red"), "images": [name]} for name in ("a.png", "b.png")]
    (folder / "dataset_info.json").write_text(
        json.dumps({"mine": {"file_name": "mine.json", "formatting": "sharegpt"}})
    )
    listed(folder / "mine.json", rows)
    return folder


def rows_of(*more: dict[str, Any], name: str = "data.jsonl") -> Callable[[Path], Path]:
    return lambda folder: listed(folder / name, list(more))


def gqa(folder: Path) -> Path:
    saved(folder / "n1.png")
    kinds = {"structural": "query", "semantic": "attr", "detailed": "color"}
    asked = {
        "id": "1",
        "imageId": "n1",
        "question": "what?",
        "answer": "red",
        "fullAnswer": "It is red.",
        "types": kinds,
    }
    return listed(folder / "questions.jsonl", [asked])


def task(folder: Path) -> Path:
    (folder / "mine.yaml").write_text(
        "task: mine\ndoc_to_visual: !function utils.f\ndoc_to_text: ask\ndoc_to_target: say\n"
    )
    return listed(folder / "test.jsonl", [{"image": f"{name}.png", "ask": "what?", "say": "red"} for name in "ab"])


FIXTURES: dict[str, Callable[[Path], Path]] = {
    "own": own,
    "texts": texts,
    "imagefolder": imagefolder,
    "hub": hub,
    "vlmevalkit": vlmevalkit,
    "vqa": vqa,
    "coco": coco,
    "sharegpt": sharegpt,
    "llava": rows_of(
        *({"id": name, "image": f"{name}.png", "conversations": turns("<image>\nwhat?", "red")} for name in "ab"),
        name="train.json",
    ),
    "messages": rows_of(*({"messages": said("<image>what?", "red"), "images": [f"{name}.png"]} for name in "ab")),
    "completion": rows_of(
        *({"prompt": said("what?"), "completion": said("", "red")[1:], "images": [f"{name}.png"]} for name in "ab")
    ),
    "alpaca": rows_of(
        *({"instruction": "what?", "input": "", "output": "red", "images": [f"{name}.png"]} for name in "ab"),
        name="data.json",
    ),
    "cauldron": rows_of(
        *({"images": [f"{name}.png"], "texts": [{"user": "what?", "assistant": "red", "source": "x"}]} for name in "ab")
    ),
    "lmms": task,
    "gqa": gqa,
    "swift": rows_of(*({"query": "<image>what?", "response": "red", "images": [f"{name}.png"]} for name in "ab")),
} | {name: benchmark(name) for name in ROWS}
