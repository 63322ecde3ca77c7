"""Datasets of the Hub in a terminal: listed, then fetched and kept; a process that has HF_ENDPOINT set asks there."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from benchmarked import ROWS, struct
from hub import Hub, Kept, point_to, serving
from pyarrow import parquet

from vlm_analysis.cli.lookup import find_prompts
from vlm_analysis.errors import PromptError
from vlm_analysis.workbench.workspace import Workspace

CARD = {"license": "gpl-3.0"}
ROW = ROWS["chartqa"]
GQA = {"id": "1", "imageId": "n1", "question": "Is it overcast?", "answer": "no", "isBalanced": True}


def table(*rows: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(list(rows)), buffer)
    return buffer.getvalue()


def in_a_process(hub: Hub, home: Path, code: str) -> tuple[int, str, str]:
    env = os.environ | {"HF_ENDPOINT": hub.address, "HF_HOME": str(home / "hf"), "STRATA_HOME": str(home / "strata")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


def strata(*words: str) -> str:
    return f"import sys; sys.argv = ['strata', *{words!r}]; from vlm_analysis.cli import main; main()"


def test_a_dataset_is_listed_then_one_split_is_fetched_and_opened(tmp_path: Path) -> None:
    with serving() as hub:
        files = {f"data/test-{n:05}-of-00002.parquet": table(ROW | {"question": f"{n}?"}) for n in range(2)}
        hub.datasets["some/chartqa"] = Kept({**files, "data/val-00000-of-00001.parquet": table(ROW)}, CARD)
        code, said, told = in_a_process(hub, tmp_path, strata("show", "hub:some/chartqa", "--json"))
        assert code == 0, told
        assert json.loads(said)["licence"] == "gpl-3.0"
        assert [one["name"] for one in json.loads(said)["splits"]] == ["test", "val"]
        assert hub.fetched() == []
        reads = (
            "from vlm_analysis import open_prompts; p = open_prompts('hub:some/chartqa/test');"
            "print(p.read_as.title, [(one.id, one.question, one.domain) for one in p], p.problems)"
        )
        code, said, told = in_a_process(hub, tmp_path, reads)
        assert code == 0, told
        assert said.strip() == "ChartQA [('1', '0?', 'human_test'), ('2', '1?', 'human_test')] ()"
        assert hub.fetched() == list(files)


def test_a_split_is_kept_under_its_name_like_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    with serving() as hub:
        point_to(hub.address, monkeypatch, tmp_path)
        hub.datasets["some/chartqa"] = Kept({"test.parquet": table(ROW)}, CARD)
        item = find_prompts(Workspace(), "hub:some/chartqa/test", lambda done, total, _: calls.append(done))
        assert item.name == "some/chartqa/test"
        assert calls[-1] == len(hub.datasets["some/chartqa"].files["test.parquet"])
        with pytest.raises(PromptError, match="expected one of its splits, 'default/test'"):
            find_prompts(Workspace(), "hub:some/chartqa/train")


def test_questions_and_pictures_of_gqa_are_fetched_together(tmp_path: Path) -> None:
    with serving() as hub:
        hub.datasets["some/gqa"] = Kept(
            {
                "x_instructions/testdev-00000-of-00001.parquet": table(GQA),
                "x_images/testdev-00000-of-00001.parquet": table({"id": "n1", "image": struct()}),
            }
        )
        reads = (
            "from vlm_analysis import open_prompts; p = open_prompts('hub:some/gqa/x_instructions/testdev');"
            "print(p.read_as.title, [(one.id, one.answer) for one in p], p.problems)"
        )
        code, said, told = in_a_process(hub, tmp_path, reads)
        assert code == 0, told
        assert said.strip() == "GQA [('1', 'no')] ()"
