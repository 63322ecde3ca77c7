"""The flow by subcommands: the numbers of the library to the last bit, without torch where no model is needed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from vlm_analysis import (
    LoadedModel,
    Objective,
    PromptSet,
    PruneMask,
    cli,
    evaluate,
    greedy,
    make_mask,
    open_comparison,
    open_evaluation,
    open_mask,
    open_recording,
    record,
    score_layers,
    sweep,
)
from vlm_analysis.cli import base
from vlm_analysis.cli.output import plain
from vlm_analysis.progress import Progress
from vlm_analysis.workbench.shelf import keep_prompts, keep_recording, open_item
from vlm_analysis.workbench.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]


pytestmark = pytest.mark.usefixtures("_loaded_once", "_no_bars", "_short_timings")


@pytest.fixture
def few(packs: PromptSet) -> PromptSet:
    """Three prompts of two domains."""
    return packs[1:2] + packs[45:47]


@pytest.fixture
def shelf(few: PromptSet) -> Workspace:
    """A workspace with three prompts, called few."""
    made = Workspace()
    keep_prompts(made, few, "few")
    return made


@pytest.fixture
def recorded(shelf: Workspace, loaded: LoadedModel, few: PromptSet) -> Workspace:
    """The same with their recording, called mine."""
    keep_recording(shelf, record(loaded, few), "mine")
    return shelf


def strata(*words: str) -> Result:
    return CliRunner().invoke(cli.strata, words)


def found(*words: str) -> dict[str, Any]:
    done = strata(*words, "--json")
    assert done.exit_code == 0, (done.stderr, done.exception)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_recording_ranking_and_masks_are_those_of_the_library(
    shelf: Workspace, loaded: LoadedModel, few: PromptSet, tmp_path: Path
) -> None:
    made = record(loaded, few)
    told = found("record", "few", "--name", "mine", "--out", str(tmp_path / "mine.npz"), "--quiet")
    assert told["similarity"] == plain({name: made.layer_similarity(name, "all") for name in made.domain_names})
    (item,) = shelf.items("recordings")
    assert (told["id"], told["name"]) == (item.id, "mine")
    assert open_recording(tmp_path / "mine.npz").prompts == made.prompts
    scores = score_layers(made, "target-aware", target="math")
    by_name = found("rank", "mine", "--criterion", "target-aware", "--target", "math")
    assert by_name["criteria"][0]["values"] == scores.values.tolist()
    assert by_name["criteria"][0]["spread"] == scores.spread.tolist()
    assert by_name == found("rank", str(tmp_path / "mine.npz"), "--criterion", "target-aware", "--target", "math")
    mask = make_mask(scores, "minimum-gap", 3, locks=loaded.locks)
    asked = (
        "mask",
        "mine",
        "--criterion",
        "target-aware",
        "--target",
        "math",
        "--strategy",
        "minimum-gap",
        "--name",
        "m",
    )
    shown = CliRunner().invoke(cli.strata, ["rank", "mine", "--criterion", "target-aware"])
    assert f"Target-aware ({made.domain_names[0]}): the" in shown.stdout  # the first domain, and it says so
    unused = CliRunner().invoke(cli.strata, ["mask", "mine", "--target", "math", "--name", "no target"])
    assert "--target changes nothing here" in unused.stderr
    both = CliRunner().invoke(cli.strata, ["mask", "mine", "--drop", "3", "--budget", "5"])
    assert (both.exit_code, "expected no --budget beside it" in both.stderr) == (2, True)
    wrong = CliRunner().invoke(cli.strata, ["rank", "mine", "--out", "r.xyz"])
    assert wrong.stderr.count("cannot be written") == 1
    kept = found(*asked, "--out", str(tmp_path / "m.json"))
    assert kept["key"] == mask.key == open_mask(tmp_path / "m.json").key
    assert found(*asked)["id"] == kept["id"]
    saved = next(item for item in shelf.items("masks") if item.name == "m")
    assert open_item(saved).key == mask.key
    assert saved.model == loaded.fingerprint


def test_scores_searches_and_answers_are_those_of_the_library(
    recorded: Workspace, loaded: LoadedModel, few: PromptSet, tmp_path: Path
) -> None:
    masks = [PruneMask(16, (5, 9)), PruneMask(16, (3, 5, 6, 7))]
    dense = evaluate(loaded, few, batch_size=32)
    alone = list(sweep(loaded, few, masks, reference=dense, batch_size=32))
    told = found("evaluate", "few", "5,9", "--no-responses", "--out", str(tmp_path / "e.json"), "-q")
    rows = plain(alone[0].by_prompt.to_dict(orient="records"))
    assert [{name: row[name] for name in rows[0]} for row in told["by_prompt"]] == rows
    assert open_evaluation(tmp_path / "e.json").edit.key == masks[0].key
    swept = found("sweep", "few", "5,9", "3,5-7", "--out", str(tmp_path / "s.parquet"), "-q")["rows"]
    expected = [one.by_domain["answer_nll"][domain] for one in (dense, *alone) for domain in one.by_domain.index]
    assert [row["answer_nll"] for row in swept] == expected
    assert pd.read_parquet(tmp_path / "s.parquet")["answer_nll"].tolist() == expected
    best = greedy(
        lambda asked: list(sweep(loaded, few, asked, reference=dense, batch_size=32)),
        1,
        n_layers=16,
        locks=loaded.locks,
        objective=Objective(),
    )
    assert found("search", "few", "--budget", "1", "--name", "best", "-q")["key"] == best.key
    assert found("show", "best")["key"] == best.key
    chosen = ("--from", "mine", "--criterion", "block-influence", "--most", "1")
    compared = found("sweep", "few", *chosen, "--out", str(tmp_path / "c.npz"), "-q")
    assert len(compared["masks"]) == len(open_comparison(tmp_path / "c.npz").masks)
    answers = found("ask", "few", "5,9", "--prompt", str(few[1].id), "-q")
    assert answers["question"] == few[1].question
    assert answers["dense"]
    left_out = found("sweep", "few", "--leave-one-out", "-q")
    assert {"damage-kl"} <= {one["criterion"] for one in found("rank", "mine")["criteria"]}
    assert left_out["kind"] == "sweeps"


@pytest.mark.parametrize("suffix", ["csv", "parquet", "html"])
def test_every_kind_of_table_is_written_whole(recorded: Workspace, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / "new" / f"x.{suffix}"
    done = strata("show", "mine", "--out", str(out))
    assert done.exit_code == 0, done.stderr
    assert out.stat().st_size > 1000
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.slow  # tests/cli/test_processes.py stops one by Ctrl-C
def test_a_cancelled_sweep_goes_on(shelf: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("sweep", "few", "--leave-one-out")
    with monkeypatch.context() as patch:
        patch.setattr(base, "shown", interrupted)
        done = strata(*words)
    assert (done.exit_code, done.stdout, done.stderr) == (130, "", f"{base.STOPPED}\n")
    assert "run the same command again to continue" in base.STOPPED
    assert not shelf.items("sweeps")
    assert list((shelf.root / "scores").rglob("*"))
    assert found(*words, "-q")["id"] == shelf.items("sweeps")[0].id


@contextmanager
def interrupted(*_: object, **__: object) -> Iterator[Progress]:
    """A progress during which somebody presses Ctrl-C while masks are evaluated."""

    def report(done: int, total: int, message: str) -> None:
        if message.startswith("part") and done >= 1:
            signal.raise_signal(signal.SIGINT)

    yield report


def test_ranking_masks_and_showing_need_no_torch(recorded: Workspace) -> None:
    code = """
import sys
for heavy in ("torch", "transformers", "streamlit"):
    sys.modules[heavy] = None
from typer.testing import CliRunner
from vlm_analysis import cli
for words in (["rank", "mine"], ["mask", "mine", "--budget", "2", "--name", "m"], ["show"], ["show", "m"], ["show", "mine"]):
    done = CliRunner().invoke(cli.strata, words)
    assert done.exit_code == 0, (words, done.stderr, done.exception)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_the_doctor_counts_what_is_saved_and_names_what_is_damaged(recorded: Workspace) -> None:
    (item,) = recorded.items("recordings")
    item.path.write_bytes(b"cut")
    told = found("doctor")
    assert (told["counts"]["recordings"], told["counts"]["prompts"]) == (1, 1)
    assert len(told["damaged"]) == 1
    assert item.id in told["damaged"][0]
    assert "torch" in told["versions"]
