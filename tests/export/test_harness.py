"""A task of a harness: a table that `datasets` opens with its pictures, YAML that says what Strata scores, and the commands."""

from __future__ import annotations

import io
import json
import runpy
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image
from pyarrow import parquet
from tables import BLUE, RED

from vlm_analysis import Prompt, PromptSet, StrataError, export_task
from vlm_analysis.export.harness import LM_EVAL, LMMS_EVAL, TABLE

PROMPTS = PromptSet(
    (
        Prompt((RED,), "{{ what }} colour?", "colours", "a", "red", answers=("red", "rot")),
        Prompt((RED, BLUE), "from <image 2> to <image 1>?", "colours", "b", "nähe", task="order"),
        Prompt((BLUE,), "which?", "other", "c", "blue", choices=("blue", "red")),
        Prompt((BLUE,), "no answer", "other", "d"),
    )
)


class Loader(yaml.SafeLoader):
    """Reads `!function` as a text, as no harness would."""


Loader.add_constructor("!function", lambda loader, node: f"!function {node.value}")


def task_of(folder: Path, harness: str, name: str = "own_prompts") -> dict[str, Any]:
    content: dict[str, Any] = yaml.load((folder / harness / f"{name}.yaml").read_text("utf-8"), Loader)
    return content


@pytest.fixture
def written(tmp_path: Path) -> Path:
    export_task(PROMPTS, tmp_path / "task")
    return tmp_path / "task"


class TestTable:
    def test_rows_are_the_prompts_with_an_answer_and_their_pictures_pixel_by_pixel(self, written: Path) -> None:
        rows = parquet.read_table(written / TABLE).to_pylist()
        assert [row["id"] for row in rows] == ["a", "b", "c"]
        assert [row["answers"] for row in rows] == [["red", "rot"], ["nähe"], ["blue"]]
        assert [row["choices"] for row in rows] == [[], [], ["blue", "red"]]
        assert [(row["domain"], row["task"]) for row in rows] == [("colours", ""), ("colours", "order"), ("other", "")]
        assert [row["text"] for row in rows] == [
            "<image>{{ what }} colour?",
            "from <image> to <image>?",
            "<image>which?",
        ]
        assert rows[1]["question"] == "from  to ?"
        seen = [[np.asarray(Image.open(io.BytesIO(one["bytes"]))) for one in row["images"]] for row in rows]
        assert [len(one) for one in seen] == [1, 2, 1]
        for picture, expected in ((seen[0][0], RED), (seen[1][0], BLUE), (seen[1][1], RED), (seen[2][0], BLUE)):
            assert np.array_equal(picture, np.asarray(expected))

    def test_the_schema_is_what_datasets_reads_as_pictures(self, written: Path) -> None:
        schema = parquet.read_schema(written / TABLE)
        picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        assert schema.field("images").type.value_type == picture
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        assert set(features) == set(schema.names)
        assert features["images"] == {"feature": {"_type": "Image"}, "_type": "Sequence"}
        assert all(one["path"] for row in parquet.read_table(written / TABLE).to_pylist() for one in row["images"])


class TestYaml:
    def test_exact_match_compares_the_texts_as_they_are(self, written: Path) -> None:
        for harness in (LM_EVAL, LMMS_EVAL):
            task = task_of(written, harness)
            assert task["metric_list"] == [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
            assert (task["task"], task["test_split"], task["doc_to_target"]) == ("own_prompts", "test", "answers")
            assert task["dataset_kwargs"] == {"data_files": {"test": TABLE}}
            assert task["generation_kwargs"]["until"] == []
            assert task["generation_kwargs"]["do_sample"] is False

    def test_nothing_of_a_user_s_text_is_a_template(self, written: Path) -> None:
        task, names = task_of(written, LM_EVAL), parquet.read_schema(written / TABLE).names
        assert {task["doc_to_text"], task["doc_to_image"], task["doc_to_target"]} <= set(names)
        assert task_of(written, LMMS_EVAL)["doc_to_text"] in names

    def test_the_longest_answer_has_room_in_any_tokenizer(self, tmp_path: Path) -> None:
        long = PromptSet([Prompt((RED,), "?", answer="ä" * 40)])
        export_task(long, tmp_path / "task")
        assert task_of(tmp_path / "task", LM_EVAL)["generation_kwargs"]["max_gen_toks"] > 80
        assert task_of(tmp_path / "task", LMMS_EVAL)["generation_kwargs"]["max_new_tokens"] > 80

    def test_lm_eval_needs_no_code_and_lmms_eval_ten_lines(self, written: Path) -> None:
        assert [path.name for path in (written / LM_EVAL).iterdir()] == ["own_prompts.yaml"]
        code = (written / LMMS_EVAL / "strata_parts.py").read_text()
        assert len([line for line in code.splitlines() if line and not line.startswith('"""')]) <= 10
        functions = runpy.run_path(str(written / LMMS_EVAL / "strata_parts.py"))
        (turn,) = functions["messages"]({"text": "from <image> to <image>?", "images": [1, 2]})
        shown = [part.get("text", part.get("url")) for part in turn["content"]]
        assert shown == ["from ", 1, " to ", 2, "?"]
        (turn,) = functions["messages"]({"text": "<image><image>why?", "images": [1, 2]})
        assert [part.get("text", part.get("url")) for part in turn["content"]] == [1, 2, "why?"]
        assert task_of(written, LMMS_EVAL)["doc_to_messages"] == "!function strata_parts.messages"

    def test_strata_s_own_matches_are_ten_lines_that_call_them(self, tmp_path: Path) -> None:
        export_task(PROMPTS, tmp_path / "task", matches=True)
        for harness in (LM_EVAL, LMMS_EVAL):
            task = task_of(tmp_path / "task", harness)
            assert [one["metric"] for one in task["metric_list"]] == [
                "exact_match",
                "normalised_match",
                "numeric_match",
            ]
            assert task["process_results"] == "!function strata_matches.process_results"
            score = runpy.run_path(str(tmp_path / "task" / harness / "strata_matches.py"))["process_results"]
            assert score({"answers": ["red", "40"]}, ["Red."]) == {
                "normalised_match": 1.0,
                "numeric_match": 1.0,
                "exact_match": 0.0,
            }
            assert list(score({"answers": ["red", "40"]}, ["41"]).values()) == [0.0, 1.0, 0.0]
            assert list(score({"answers": ["red", "40"]}, ["40"]).values()) == [1.0, 1.0, 1.0]


class TestCommands:
    def test_there_is_one_for_each_model_and_harness(self, tmp_path: Path) -> None:
        (tmp_path / "an export").mkdir()
        task = export_task(
            PROMPTS,
            tmp_path / "my task",
            name="mine",
            dense="org/name",
            edited=str(tmp_path / "an export"),
            dtype="float32",
        )
        lines = [shlex.split(line) for line in task.commands]
        assert all(words[:3] == ["cd", str(tmp_path / "my task"), "&&"] for words in lines)
        assert [words[3:6] for words in lines[::2]] == [["lm_eval", "--model", "hf-multimodal"]] * 2
        assert [words[4:6] for words in lines[1::2]] == [["-m", "lmms_eval"]] * 2
        models = [words[words.index("--model_args") + 1].split(",") for words in lines]
        assert models[0] == ["pretrained=org/name", "dtype=float32"]
        assert models[2] == [f"pretrained={tmp_path / 'an export'}", "dtype=float32"]
        assert all(words[words.index("--tasks") + 1] == "mine" for words in lines)
        assert all(line in (task.folder / "README.md").read_text("utf-8") for line in task.commands)

    def test_what_is_not_scored_is_said(self, tmp_path: Path) -> None:
        task = export_task(PROMPTS, tmp_path / "task")
        assert (task.n_prompts, task.left_out) == (3, ("d",))
        said = (tmp_path / "task" / "README.md").read_text("utf-8")
        assert "1 prompt without an answer left out: d." in said
        assert "any of the accepted answers" in said
        assert "no YAML can say them" in said
        assert "Prompts with choices are asked as they stand" in said


class TestRefused:
    @pytest.mark.parametrize(
        ("prompts", "options", "reason"),
        [
            (PROMPTS[3:], {}, "expected one answer at least, got none in 1 prompt"),
            (PROMPTS, {"name": "../x"}, "expected letters, digits and underscores, got '../x'"),
            (PROMPTS, {"name": "a b\n"}, "expected letters, digits and underscores"),
            (PROMPTS, {"name": ""}, "expected letters, digits and underscores"),
        ],
    )
    def test_no_task_is_said_in_one_message(
        self, prompts: PromptSet, options: dict[str, Any], reason: str, tmp_path: Path
    ) -> None:
        with pytest.raises(StrataError, match=reason):
            export_task(prompts, tmp_path / "task", **options)
        assert not (tmp_path / "task").exists()

    def test_a_folder_that_holds_something_is_left_alone(self, written: Path) -> None:
        with pytest.raises(StrataError, match="expected a new or empty folder"):
            export_task(PROMPTS, written)

    def test_a_picture_that_is_gone_leaves_nothing_half_written(self, folder: Path) -> None:
        prompts = PromptSet([Prompt((folder / "a.png",), "?", answer="red")])
        (folder / "a.png").unlink()
        with pytest.raises(StrataError, match="could not be read"):
            export_task(prompts, folder / "task")
        assert not list(folder.glob("*task*")) + list(folder.glob(".*task*"))
