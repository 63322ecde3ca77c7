"""Layers of the vision encoder on the command line: their ranking, and the option that drops some."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rankings import full_recording, with_tower
from typer.testing import CliRunner, Result

from vlm_analysis import PruneMask, Recording, Tower, cli, open_edit, save_recording
from vlm_analysis.model_info import TowerInfo

TOWER = TowerInfo(5, protected={0: "first"}, locked={2: "DeepStack: read"}, unread=(4,))
COSINES = np.random.default_rng(5).uniform(0.2, 0.99, (6, 5))


def strata(*words: object, code: int = 0) -> Result:
    done = CliRunner().invoke(cli.strata, [str(word) for word in words])
    assert done.exit_code == code, (done.stdout, done.stderr)
    return done


@pytest.fixture
def made() -> Recording:
    """A recording of six prompts with five layers in the vision encoder: one is protected, one locked, and one is not read."""
    return with_tower(full_recording(6), COSINES, TOWER)


@pytest.fixture
def recording(made: Recording, tmp_path: Path) -> Path:
    return save_recording(made, tmp_path / "made.npz")


def by_hand(rows: list[int]) -> list[float]:
    """Return the block influence of each layer over some prompts in plain Python; that of the unread layer is 0."""
    means = [sum(float(COSINES[row, layer]) for row in rows) / len(rows) for layer in range(5)]
    return [1 - mean for mean in means[:4]] + [0.0]


@pytest.mark.parametrize("domain", [None, "maps"])
def test_rank_prints_the_block_influence_of_each_layer_and_which_go_first(
    recording: Path, made: Recording, domain: str | None
) -> None:
    rows = [row for row, name in enumerate(made.domains) if domain in (None, name)]
    options = [] if domain is None else ["--domain", domain]
    expected = by_hand(rows)
    found = json.loads(strata("rank", recording, "--tower", *options, "--json").stdout)["tower"]
    np.testing.assert_allclose(found["values"], expected, rtol=1e-12)
    assert found["order"] == sorted((1, 3, 4), key=lambda layer: expected[layer])
    assert found["stays"] == {"0": "first", "2": "DeepStack: read"}
    said = strata("rank", recording, "--tower", *options).stdout
    assert f"The least goes first: {', '.join(map(str, found['order']))}" in said
    assert all(f"{value:.4f}" in said for value in expected)
    assert "Layer 2 stays: DeepStack: read" in said
    assert "Layer 4: nothing reads what comes out" in said


def test_the_ranking_is_written_as_a_table(recording: Path, tmp_path: Path) -> None:
    strata("rank", recording, "--tower", "--out", tmp_path / "rank.csv")
    lines = (tmp_path / "rank.csv").read_text().splitlines()
    assert lines[0] == "criterion,layer,score,goes,stays"
    assert [line.split(",")[-1] for line in lines[1:]] == ["protected", "", "locked", "", ""]


def test_a_recording_without_such_numbers_cannot_be_ranked_and_says_so(tmp_path: Path) -> None:
    plain = save_recording(full_recording(6), tmp_path / "plain.npz")
    said = " ".join(strata("rank", plain, "--tower", code=2).stderr.split())
    assert (
        "The vision encoder cannot be scored: expected its similarity in the recording, got none. Record again" in said
    )
    said = " ".join(strata("mask", plain, "--drop-tower", "1", code=2).stderr.split())
    assert "--drop-tower cannot be used: expected a vision encoder whose layers can be dropped" in said


def test_show_prints_their_similarity_by_domain_and_writes_it_with_the_other_measures(
    recording: Path, made: Recording, tmp_path: Path
) -> None:
    out = tmp_path / "shown.parquet"
    shown = strata("show", recording, "--out", out)
    of_domain = json.loads(strata("show", recording, "--json").stdout)["tower_similarity"]
    rows = pd.read_parquet(out).query("token_group == 'vision encoder'").set_index(["domain", "layer"])["cosine"]
    for domain in made.domain_names:
        of = [row for row, name in enumerate(made.domains) if name == domain]
        means = [math.fsum(float(COSINES[row, layer]) for row in of) / len(of) for layer in range(5)]
        np.testing.assert_allclose(of_domain[domain], means, rtol=1e-12)
        np.testing.assert_allclose(rows[domain], means, rtol=1e-12)
        assert all(f"{mean:.4f}" in shown.stdout for mean in means)


def test_a_ranking_is_written_as_rows(recording: Path, tmp_path: Path) -> None:
    expected = by_hand(list(range(6)))
    for ending, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        out = tmp_path / f"ranked.{ending}"
        strata("rank", recording, "--tower", "--out", out)
        table = read(out)
        np.testing.assert_allclose(table["score"], expected, rtol=1e-12)
        assert table["layer"].tolist() == [0, 1, 2, 3, 4]
        assert table["stays"].fillna("").tolist() == ["protected", "", "locked", "", ""]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--criterion", "damage-kl"),
        ("--target", "maps"),
        ("--other", "math"),
        ("--weight", 0.6),
        ("--token-group", "text"),
        ("--share", 0.25),
        ("--delta", 0.1),
        ("--seed", 3),
    ],
)
def test_options_that_change_nothing_beside_it_are_refused(recording: Path, option: str, value: object) -> None:
    said = " ".join(strata("rank", recording, "--tower", option, value, code=2).stderr.split())
    assert f"expected no {option} beside it" in said


def test_all_such_options_are_named_at_once(recording: Path) -> None:
    said = " ".join(strata("rank", recording, "--tower", "--seed", 3, "--weight", 0, code=2).stderr.split())
    assert "expected no --weight, --seed beside it" in said


def test_layers_are_dropped_alone_and_beside_decoder_layers_and_parts(recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "edit.json"
    assert (
        "drops layers 1 and 3 of the vision encoder"
        in strata("mask", recording, "--drop-tower", "1,3", "--out", out).stdout
    )
    alone = open_edit(out)
    assert alone.changes == (Tower(5, (1, 3)),)
    assert alone.name == "Drops layers 1 and 3 of the vision encoder"
    strata("mask", recording, "--drop-tower", "1,3", "--drop", "4", "--out", out)
    assert open_edit(out) == PruneMask(9, (4,)) + alone
    strata("mask", recording, "--drop-tower", "3", "--criterion", "block-influence", "--budget", "2", "--out", out)
    both = open_edit(out)
    assert (len(both.dropped), Tower(5, (3,)) in both.changes) == (2, True)


def test_a_locked_layer_is_refused_with_the_reason_and_a_protected_one_is_warned_of(
    recording: Path, tmp_path: Path
) -> None:
    said = " ".join(strata("mask", recording, "--drop-tower", "2", code=2).stderr.split())
    assert "Layer 2 of the vision encoder cannot be dropped: DeepStack: read. Take it out of the edit." in said
    done = strata("mask", recording, "--drop-tower", "0,1", "--out", tmp_path / "m.json")
    assert done.stderr == "Layers of the vision encoder that should stay are dropped: layer 0 (first)\n"
    assert strata("mask", recording, "--drop-tower", "1").stderr == ""


@pytest.mark.parametrize("budget", ["inf", "9" * 5000, "2.5"])
def test_a_budget_in_layers_that_is_not_whole_is_refused(recording: Path, budget: str) -> None:
    assert "A budget in layers is a whole number" in strata("mask", recording, "--budget", budget, code=2).stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x", "--drop-tower names no layers"),
        ("9" * 5000, "--drop-tower names no layers"),
        ("5", "expected whole numbers 0..4"),
    ],
)
def test_layers_that_are_not_there_are_refused(recording: Path, text: str, reason: str) -> None:
    assert reason in " ".join(strata("mask", recording, "--drop-tower", text, code=2).stderr.split())
