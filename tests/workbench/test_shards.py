"""Work in shares: joined, they are what one process measures, to the last bit; one that was killed goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from forked import forked
from typer.testing import CliRunner

from vlm_analysis import (
    Bench,
    Cancelled,
    LoadedModel,
    Prompt,
    PromptSet,
    PruneMask,
    cli,
    evaluate,
    join_shards,
    record,
    sweep,
    work_on_shard,
)
from vlm_analysis.errors import WorkspaceError
from vlm_analysis.evaluation.kept import kept_scores
from vlm_analysis.workbench.desk import prompts_item
from vlm_analysis.workbench.shards import SCORES
from vlm_analysis.workbench.shelf import scores_folder
from vlm_analysis.workbench.workspace import Workspace

EDITS = (PruneMask(8, (3,)), PruneMask(8, (4, 5)))


@pytest.fixture
def asked(few: PromptSet) -> PromptSet:
    """Prompts with choices and with several accepted answers, whose rows lie in batches of their own."""
    one, two = few[0], few[1]
    choosing = Prompt(
        one.images, "Which colour?", answer="red", choices=("red", "blue", "green"), domain="choices", task="pick"
    )
    several = Prompt(two.images, "How many?", answers=("2", "two", "3"), domain="answers", task="count")
    return PromptSet([*few, choosing, several])


@pytest.fixture
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("evaluation.run.evaluate", "evaluation.run.sweep"):
        monkeypatch.setattr(f"vlm_analysis.{name}.batch_for", lambda loaded: 2)
    monkeypatch.setattr("vlm_analysis.recording.record.CHUNK", 3)


@pytest.mark.usefixtures("_small_batches")
def test_joined_shares_are_what_one_process_measures_to_the_last_bit(
    small: LoadedModel, asked: PromptSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (3, 1, 2):
        own = work_on_shard(small, asked, tmp_path, (number, 3), edits=EDITS, recorded=True)
        assert any(kept_scores(own / SCORES, EDITS[0].key)), "a share without work shows nothing"
    shelf = Workspace()
    recorded, swept = join_shards(tmp_path, shelf)
    bench = Bench(small, shelf)

    whole, joined = record(small, asked), bench.open(recorded)
    assert joined.rows.tobytes() == whole.rows.tobytes()
    assert (joined.prompts, joined.prompt_ids, joined.groups, joined.tasks) == (
        whole.prompts,
        whole.prompt_ids,
        whole.groups,
        whole.tasks,
    )
    for domain, part in whole.activations.items():
        np.testing.assert_allclose(joined.activations[domain].sums, part.sums, rtol=1e-12)
    for task, state in whole.pooled.items():
        np.testing.assert_allclose(joined.pooled[task].sums, state.sums, rtol=1e-12)

    dense = evaluate(small, asked)
    for got, expected in zip(bench.open(swept), [dense, *sweep(small, asked, EDITS, reference=dense)], strict=True):
        assert got.edit == expected.edit
        pd.testing.assert_frame_equal(got.by_prompt, expected.by_prompt, check_exact=True)

    def ran(*_: object, **__: object) -> None:
        raise AssertionError("the model ran for what the shares had measured")

    monkeypatch.setattr("vlm_analysis.evaluation.run.sharing.SharedRunner.run", ran)
    assert all(kept_scores(scores_folder(shelf, small, asked), edit.key) for edit in EDITS)
    known = Bench(small, shelf).scores(prompts_item(shelf, asked), EDITS)
    assert [one.by_prompt["kl_to_dense"].tolist() for one in known] == [
        one.by_prompt["kl_to_dense"].tolist() for one in bench.open(swept)[1:]
    ]


@pytest.mark.usefixtures("_small_batches")
def test_a_killed_share_goes_on_and_a_share_may_hold_no_prompt(
    small: LoadedModel, few: PromptSet, tmp_path: Path
) -> None:
    def work(say: Any) -> None:
        def told(done: int, total: int, message: str) -> None:
            if message.startswith("part 2"):
                say("half")
                while True:
                    pass

        work_on_shard(small, few, tmp_path, (1, 1), edits=EDITS, on_progress=told)

    with forked(work) as child:
        child.waits_to_say("half")
    own = tmp_path / "shard-00001-of-00001"
    before = {edit.key: kept_scores(own / SCORES, edit.key) for edit in EDITS}
    assert all(0 < len(scores) < len(few) for scores in before.values())
    totals: list[int] = []
    work_on_shard(
        small, few, tmp_path, (1, 1), edits=EDITS, on_progress=lambda done, total, message: totals.append(total)
    )
    assert totals[-1] == 3 * (len(few) // 2 - 1), "what was measured ran again"
    assert all(kept_scores(own / SCORES, key).items() >= scores.items() for key, scores in before.items())
    work_on_shard(
        small, few, tmp_path, (1, 1), edits=EDITS, on_progress=lambda done, total, message: totals.append(total)
    )
    assert totals[-1] == 1, "a finished share is left as it is"

    other = tmp_path / "many"
    for number in range(1, 8):
        work_on_shard(small, few[:2], other, (number, 7), leave_one_out=True, recorded=True)
    recorded, swept = join_shards(other, Workspace(), "by seven")
    assert recorded.name == "small on by seven"
    assert swept.details["sweep"] == "leave-one-out"


def test_what_does_not_belong_together_is_refused_in_words(small: LoadedModel, few: PromptSet, tmp_path: Path) -> None:
    two = few[:2]
    with pytest.raises(WorkspaceError, match="expected finished shares, got none"):
        join_shards(tmp_path, Workspace())
    with pytest.raises(WorkspaceError, match="expected edits, each layer left out, or a recording, got none"):
        work_on_shard(small, two, tmp_path, (1, 2))
    with pytest.raises(WorkspaceError, match="Attention maps are of a recording"):
        work_on_shard(small, two, tmp_path, (1, 2), edits=EDITS, attention=True)
    with pytest.raises(WorkspaceError, match="got both"):
        work_on_shard(small, two, tmp_path, (1, 2), edits=EDITS, leave_one_out=True)
    work_on_shard(small, two, tmp_path, (1, 2), edits=EDITS[:1])
    with pytest.raises(WorkspaceError, match="expected 1 to 2, got 1, without 2"):
        join_shards(tmp_path, Workspace())
    with pytest.raises(WorkspaceError, match="holds shares on other prompts"):
        work_on_shard(small, few[2:4], tmp_path, (2, 2), edits=EDITS[:1])
    with pytest.raises(WorkspaceError, match="finished share of other work"):
        work_on_shard(small, two, tmp_path, (1, 2), edits=EDITS[1:])
    work_on_shard(small, two, tmp_path, (2, 2), edits=EDITS[1:])
    with pytest.raises(WorkspaceError, match="of different work"):
        join_shards(tmp_path, Workspace())
    done = tmp_path / "shard-00002-of-00002" / "done.json"
    done.write_text(json.dumps({**json.loads(done.read_text()), "owners": ["x"]}))
    with pytest.raises(WorkspaceError, match="Run this share again"):
        join_shards(tmp_path, Workspace())
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="cannot be written"):
        work_on_shard(small, two, tmp_path / "file", (1, 2), edits=EDITS[:1])

    def stop(*_: object) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        work_on_shard(small, two, tmp_path / "stopped", (1, 2), edits=EDITS[:1], on_progress=stop)
    assert not list((tmp_path / "stopped").glob("shard-*/done.json"))


@pytest.mark.parametrize(
    "shard", [(0, 2), (3, 2), (1, 0), (1, 10**9), ("1", "2"), (1.0, 2), (True, 2), (1,), (1, 2, 3), None]
)
def test_there_is_no_share_beyond_the_last(small: LoadedModel, few: PromptSet, tmp_path: Path, shard: Any) -> None:
    with pytest.raises(WorkspaceError, match="There is no such share"):
        work_on_shard(small, few[:1], tmp_path, shard, recorded=True)
    assert not list(tmp_path.iterdir())


def test_shares_that_someone_changed_are_refused_and_nothing_of_them_is_kept(
    small: LoadedModel, few: PromptSet, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    for number in (1, 2):
        work_on_shard(small, few[:2], whole, (number, 2), edits=EDITS[:1])
    told = {path.parent.name: json.loads(path.read_text()) for path in whole.glob("shard-*/done.json")}
    first, last = sorted(told)
    model = told[last]["model"]

    def refuse(match: str, **changes: dict[str, Any]) -> None:
        for name, content in told.items():
            (whole / name / "done.json").write_text(
                json.dumps({**content, **changes.get("both", {}), **changes.get(name, {})})
            )
        shelf = Workspace(tmp_path / "shelf")
        with pytest.raises(WorkspaceError, match=match):
            join_shards(whole, shelf)
        assert not shelf.items("evaluations")

    damaged = "expected the same rows of the same prompts"
    refuse(damaged, both={"refused": [[2, "why"]]})
    refuse(damaged, both={"owners": [2] * len(told[last]["owners"])})
    refuse(damaged, **{last: {"answers": told[last]["answers"][:1]}})
    refuse("not a whole finished share", both={"model": {**model, "chat_template": {}}})
    shutil.copytree(whole / first, whole / "shard-again")
    (whole / "shard-again" / "done.json").write_text(json.dumps(told[first]))
    refuse("A share in .* is there twice: expected one folder for share 1 of 2, got .*shard-again")


@pytest.mark.usefixtures("_loaded_once")
def test_a_job_array_by_the_command_line(tmp_path: Path) -> None:
    def strata(*words: str) -> Any:
        return CliRunner().invoke(cli.strata, words)

    for number in ("1/2", "2/2"):
        done = strata("work", "general", "4", "--shard", number, "--out", str(tmp_path), "-q")
        assert done.exit_code == 0, done.output
    assert f"strata join {tmp_path}" in done.stdout
    assert not Workspace().items("prompts"), "shares save no prompts of their own"
    joined = strata("join", str(tmp_path), "--json")
    rows = json.loads(joined.stdout)["rows"]
    assert [(row["edit"], row["domain"], row["n"]) for row in rows] == [
        ("without layers 4", "general", 45),
    ]
    for wrong in ("0/2", "3/2", "1", "x/y"):
        done = strata("work", "general", "4", "--shard", wrong, "--out", str(tmp_path))
        assert (done.exit_code, "expected i/n" in done.output) == (2, True)
