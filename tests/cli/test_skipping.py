"""Vision tokens that skip layers, on the command line: masks with them, and scans that are saved are opened."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from probed import made_probe
from rankings import full_recording
from scanned import made_scan
from typer.testing import CliRunner

from vlm_analysis import Edit, LoadedModel, PromptSet, PruneMask, cli, early_exit, freeze, late_entry
from vlm_analysis.evaluation.scan import DENSE
from vlm_analysis.workbench.shelf import keep, keep_prompts, keep_recording, open_item
from vlm_analysis.workbench.workspace import Workspace

N = 9


@pytest.fixture
def shelf() -> Workspace:
    made = Workspace()
    keep_recording(made, full_recording(), "mine")
    return made


def strata(*words: str) -> Any:
    return CliRunner().invoke(cli.strata, words)


def made(shelf: Workspace, *words: str) -> Edit:
    done = strata("mask", "mine", *words, "--json")
    assert done.exit_code == 0, done.output
    edit: Edit = open_item(next(one for one in shelf.items("masks") if one.id == json.loads(done.stdout)["id"]))
    return edit


def test_vision_tokens_skip_layers_alone_and_beside_dropped_ones(shelf: Workspace) -> None:
    assert made(shelf, "--late-entry", "2", "--early-exit", "7", "--freeze", "4-5") == (
        late_entry(N, 2) + early_exit(N, 7) + freeze(N, [4, 5])
    )
    edit = made(shelf, "--drop", "3", "--early-exit", "6", "--form", "sliced", "--no-deepstack")
    assert edit == PruneMask(N, [3]) + early_exit(N, 6, form="sliced", deepstack=False)
    assert edit.name == "drops 3, hides vision tokens in layers 6-8 without DeepStack (sliced)"
    both = made(shelf, "--budget", "2", "--late-entry", "1")
    assert (both.budget, both.gone) == (2, both.dropped)
    assert not both.is_mask
    assert made(shelf, "--late-entry", "2", "--name", "late").name == "late"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--freeze", "x"), "--freeze names no layers"),
        (("--late-entry", "10"), r"expected a layer in 0..9, got 10"),
        (("--form", "sliced"), "expected --late-entry, --early-exit or --freeze, got none"),
        (("--late-entry", "2", "--form", "quick"), "expected one of masked, sliced"),
        (("--late-entry", "2", "--freeze", "0"), "both absent and frozen"),
        (("--late-entry", "2", "--span-by-similarity"), "sets entry and exit itself"),
        (("--late-entry", "5", "--early-exit", "3"), "expected --late-entry below --early-exit, got 5 and 3"),
        (("--late-entry", "0"), "No layer is skipped: expected --late-entry above 0, --early-exit below 9"),
        (("--early-exit", "9"), "No layer is skipped"),
    ],
)
def test_what_makes_no_sense_is_refused(shelf: Workspace, words: tuple[str, ...], said: str) -> None:
    done = strata("mask", "mine", *words)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


def test_vision_tokens_can_be_hidden_in_every_layer_where_that_is_said(shelf: Workspace) -> None:
    assert made(shelf, "--early-exit", "0") == early_exit(N, 0) == made(shelf, "--late-entry", "9")


def test_a_table_of_the_layers_says_what_vision_tokens_do(shelf: Workspace, tmp_path: Any) -> None:
    done = strata("mask", "mine", "--early-exit", "7", "--freeze", "4", "--out", str(tmp_path / "layers.parquet"))
    assert done.exit_code == 0, done.output
    table = pd.read_parquet(tmp_path / "layers.parquet")
    assert list(table["vision"]) == ["full"] * 4 + ["frozen", "full", "full", "absent", "absent"]


def test_a_scan_that_is_saved_is_shown_and_chosen_from(
    loaded: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr("vlm_analysis.models.load.load_model", lambda source, **_: loaded)
    shelf = Workspace()
    prompts = keep_prompts(shelf, few, "few")
    keep(shelf, "scans", made_scan(loaded.info, few, lambda layer: (20 - layer) / 1000), "s")
    done = strata("scan", "few", "--exit-bound", "0.007", "--freeze-least", "2", "--json", "--quiet")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["kind"], told["name"], len(told["rows"])) == ("scans", "s", 3 * 49)
    chosen = [open_item(one) for one in shelf.items("masks")]
    assert {one["id"] for one in told["chosen"]} == {one.id for one in shelf.items("masks")}
    assert set(chosen) == {early_exit(16, 13, form="sliced"), freeze(16, [14, 15], form="sliced")}
    assert [one["by"] for one in told["chosen"]] == [
        "KL at the last prompt token, dense ‖ edited: 0.007 nats",
        "KL at the last prompt token, edited ‖ dense: at most 0.006 nats in each of 2 layers alone",
    ]
    shares = {(row["way"], row["layer"]): row["flops_share"] for row in told["rows"]}
    assert shares[DENSE, -1] == 1 > shares["early exit", 0]
    recording = replace(
        full_recording(6, 16), model=replace(loaded.info, tower=None), prompt_ids=tuple(str(one.id) for one in few)
    )
    keep_recording(shelf, recording, "r")
    predicted = strata("scan", "few", "--conditions", "r", "--quiet")
    assert predicted.exit_code == 0, predicted.output
    assert "Geometric change and measured damage" in predicted.stdout
    assert "The answers cannot be probed: math: expected two answers" in predicted.stdout
    probe = replace(
        made_probe(loaded.info, tuple(one.domain for one in few)),
        prompts=str(prompts.prompts),
        ids=tuple(str(one.id) for one in few),
        tasks=tuple(one.task or "" for one in few),
        groups=few.groups.names,
    )
    keep(shelf, "probes", probe, "kept")
    predicted = strata("scan", "few", "--conditions", "r", "--quiet")
    assert "Change of the probe's log loss and measured damage" in predicted.stdout
    done = strata("probe-answers", "few", "--target", "math", "--json", "--quiet")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["name"], len(told["rows"])) == ("kept", 3 * 2 * 16)
    row = next(row for row in told["rows"] if (row["domain"], row["token_group"], row["layer"]) == ("math", "text", 5))
    losses = probe.log_loss[1, 5][:, [place for place, one in enumerate(few) if one.domain == "math"]]
    assert row["informational"] == pytest.approx(float((losses[0] - losses[1]).mean()))
    for what in ("kept", str(shelf.items("probes")[0].path)):
        assert "the most frequent is right for 50%" in strata("show", what).stdout
    shown = strata("show", "s")
    assert "late entry, answer KL" in shown.stdout
    assert strata("show", str(shelf.items("scans")[0].path)).exit_code == 0
