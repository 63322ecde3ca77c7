"""Tasks of lmms-eval: plain names of columns are followed, functions never run, and prompts around the question are an option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from formats import errors, sample_of

from vlm_analysis.prompts.archives import Folder, NoFiles
from vlm_analysis.prompts.formats import lmms
from vlm_analysis.prompts.formats.base import Options, Source
from vlm_analysis.prompts.formats.table import recognise

TASK = """
dataset_path: lmms-lab/ChartQA
task: "chartqa"
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: "{{query}}"
doc_to_target: "label"
metric_list:
  - metric: relaxed_overall
    aggregation: !function utils.aggregate
lmms_eval_specific_kwargs:
  default:
    pre_prompt: "Look. "
    post_prompt: "\\nAnswer with a single word."
  qwen_vl:
    post_prompt: " Answer:"
"""
ROW: dict[str, Any] = {"image": "a.png", "query": "how many?", "label": "2", "question": "another"}


def task_of(folder: Path) -> Any:
    files = Folder(folder)
    return lmms.task_of(files, ".", files.names())


def read(folder: Path, task: str, *cells: dict[str, Any], suffix: bool = False) -> Any:
    (folder / "chartqa.yaml").write_text(task)
    (folder / "utils.py").write_text("raise SystemExit('it was run')")
    sample = sample_of(cells, described=task_of(folder))
    assert recognise(sample)[0] is lmms
    return list(lmms.rows(Source(sample, sample.rows, NoFiles("data"), options=Options(suffix=suffix))))


def test_the_columns_that_a_task_names_are_read_and_no_function_is_run(tmp_path: Path) -> None:
    (row,) = read(tmp_path, TASK, ROW)
    assert (row.cells["images"], row.cells["question"], row.cells["answer"]) == (["a.png"], "how many?", "2")


def test_prompts_around_the_question_are_an_option(tmp_path: Path) -> None:
    (row,) = read(tmp_path, TASK, ROW, suffix=True)
    assert row.cells["question"] == "Look. how many?\nAnswer with a single word."


def test_an_answer_among_choices_is_the_text_that_its_number_or_letter_names(tmp_path: Path) -> None:
    task = "doc_to_text: question\ndoc_to_target: target\ndoc_to_choice: options\n"
    row = {"image": "a.png", "question": "?", "options": ["red", "blue"]}
    rows = read(
        tmp_path, task, {**row, "target": 1}, {**row, "target": "A"}, {**row, "target": 7}, {**row, "target": None}
    )
    assert [row.cells["answer"] for row in rows if not row.error] == ["blue", "red", ""]
    assert "none of the choices" in errors(rows)[3]


def test_a_folder_without_a_task_or_with_two_says_nothing_of_the_table(tmp_path: Path) -> None:
    assert task_of(tmp_path) == {}
    for name in ("a.yaml", "b.yml"):
        (tmp_path / name).write_text(TASK)
    (tmp_path / "c.yaml").write_text("[1, 2]")
    assert task_of(tmp_path) == {}


@pytest.mark.parametrize(
    "task",
    [
        "doc_to_text: !function utils.f\ndoc_to_target: answer",
        "doc_to_text: [question]",
        "doc_to_text: 'Q: {{question}}'",
    ],
)
def test_a_task_whose_columns_are_not_there_or_not_plain_is_not_followed(tmp_path: Path, task: str) -> None:
    (tmp_path / "it.yaml").write_text(task)
    described = task_of(tmp_path)
    assert lmms.matches(sample_of([ROW], described=described)) is None


@pytest.mark.parametrize("task", ["a: [", "\0", "[" * 500, "!!python/object/apply:os.system ['true']", "x" * 200_000])
def test_other_yaml_is_no_task(tmp_path: Path, task: str) -> None:
    (tmp_path / "it.yaml").write_text(task)
    assert task_of(tmp_path) == {}
    (tmp_path / "chartqa.yaml").write_text(TASK)
    assert task_of(tmp_path)["doc_to_target"] == "label"
