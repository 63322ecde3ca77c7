"""Short fine-tuning with memory: saved with its tensors, not done twice, gone on with after a stop, the best state kept meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tuned import CUT, SHORT, noting, stop_at
from typer.testing import CliRunner

from vlm_analysis import Adapt, Bench, Cancelled, LoadedModel, PromptSet, cli, finetune
from vlm_analysis.errors import EditError
from vlm_analysis.workbench.workspace import Workspace

NAMED = replace(CUT, name="four and five")


@pytest.fixture
def bench(small: LoadedModel, tmp_path: Path) -> Bench:
    return Bench(small, Workspace(tmp_path / "home"))


def test_it_is_saved_and_the_same_work_is_opened(bench: Bench, small: LoadedModel, few: PromptSet) -> None:
    item = bench.recover(NAMED, few, "small", **SHORT)
    assert item.name == "four and five, tuned (small)"
    edit = bench.open(item)
    assert edit == finetune(small, NAMED, few, **SHORT)
    assert isinstance(edit.changes[1], Adapt)
    begun: list[int] = []
    assert bench.recover(NAMED, few, "small", on_progress=noting(begun), **SHORT) == item
    assert begun == []
    bench.scores(few, [edit])
    assert [one.name for one in bench.workspace.items("masks")] == [item.name]


def test_stopped_work_keeps_its_best_and_goes_on(bench: Bench, few: PromptSet) -> None:
    for step in (3, 2):  # the second call goes on after step 2, and is stopped at once
        with pytest.raises(Cancelled):
            bench.recover(NAMED, few, "small", on_progress=stop_at(step), name="mine", **SHORT)
        (kept,) = bench.workspace.items("masks")
        assert kept.name == "mine, unfinished"
    begun: list[int] = []
    item = bench.recover(NAMED, few, "small", on_progress=noting(begun), name="mine", **SHORT)
    assert begun[0] == 2
    assert [one.name for one in bench.workspace.items("masks")] == [item.name] == ["mine"]
    assert not list((bench.workspace.root / "unfinished").iterdir())


def test_what_gets_no_better_saves_nothing(bench: Bench, few: PromptSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_analysis.recovery.finetune.trainer.mean_nll", lambda *_: 1.0)
    with pytest.raises(EditError, match=r"Nothing was learnt: .* than 1\.000, got none"):
        bench.recover(NAMED, few, "small", **SHORT)
    assert bench.workspace.items("masks") == []


def test_a_setting_that_is_none_is_said_before_the_work(bench: Bench, few: PromptSet) -> None:
    with pytest.raises(EditError, match="has no such setting"):
        bench.recover(NAMED, few, "small", steps=3)


@pytest.mark.usefixtures("_no_bars")
def test_the_command_saves_the_same_edit(
    small: LoadedModel, few: PromptSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    own = Bench.recover

    def recover(
        bench: Bench, edit: Any, prompts: Any, how: str, *, on_progress: Callable[..., Any], **options: Any
    ) -> Any:
        calls.append({"edit": edit, "how": how, **options})
        return own(Bench(small, bench.workspace), NAMED, few, "small", **SHORT)

    monkeypatch.setattr(Bench, "recover", recover)
    words = ["recover", "general", "5", "--how", "partners", "--set", "rank=2", "--set", "kl=0.5", "--json"]
    done = CliRunner().invoke(cli.strata, [*words, "--out", str(tmp_path / "tuned.json")])
    assert done.exit_code == 0, done.stderr
    assert [(one["how"], one["rank"], one["kl"]) for one in calls] == [("partners", 2, 0.5)]
    told = json.loads(done.stdout)["finetune"]
    assert told["held_out_nll"][1] < told["held_out_nll"][0]
    assert (tmp_path / "tuned.safetensors").exists()
    for wrong in (["partners", "--set", "rank"], ["ridge", "--set", "rank=2"]):
        assert CliRunner().invoke(cli.strata, [*words[:3], "--how", *wrong]).exit_code == 2
