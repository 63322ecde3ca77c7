"""`strata show FILE`: what a file is read as and what is left out, masks of other tools, and one reason where it is of no kind."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from rankings import full_recording
from typer.testing import CliRunner, Result

from vlm_analysis import PruneMask, cli, mask_to_csv, save_mask, save_recording
from vlm_analysis.saved import kind_in

TURNS = [{"from": "human", "value": "<image>why?"}, {"from": "gpt", "value": "so"}]
KINDS = (
    "expected prompts, a recording, a mask, an evaluation, a scan, a probe of answers, a cost, a comparison, a contest or a ledger of "
    "recovery, got"
)


def strata(*words: object) -> Result:
    return CliRunner().invoke(cli.strata, [str(word) for word in words])


def test_prompts_say_what_they_are_read_as_and_what_is_left_out(folder: Path) -> None:
    rows = [{"image": "a.png", "conversations": TURNS}, {"conversations": TURNS}, {"conversations": TURNS}]
    (folder / "train.json").write_text(json.dumps(rows))
    shown = strata("show", folder / "train.json", "--json")
    read_as, left_out = [line.split(": ", 1)[1] for line in shown.stderr.splitlines()]
    assert read_as == "read as LLaVA conversations: 'conversations' with 'from' and 'value'"
    assert left_out.startswith("2 rows are left out (2, 3), the first: the row has no image")
    told = json.loads(shown.stdout)
    assert f"read as {told['read_as']}" == read_as
    assert [problem["row"] for problem in told["problems"]] == [2, 3]
    (folder / "mine.csv").write_text("image,question\na.png,why?\n")
    assert strata("show", folder / "mine.csv").stderr == ""


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("t.csv", "a,b\n1,2\n", "got none of these. Read as prompts: "),
        ("t.json", '{"a": 1}', "got none of these. Read as prompts: "),
        ("t.json", '[{"a": 1}]', "got none of these. Read as prompts: "),
        ("t.json", '["a"]', "got none of these. Read as prompts: "),
        ("t.json", "{", "got none of these. Read as prompts: "),
        ("t.npz", "no zip", "got another file, or a damaged one. Name one of these."),
        ("t.md", "# notes", "got another file, or a damaged one. Name one of these."),
        ("t.json", '{"kind": "strata-mask", "schema_version": 1}', "The mask cannot be read: expected numbering"),
        ("t.json", '{"kind": "strata-cost", "schema_version": 1}', "t.json is not a whole cost: "),
        ("t.json", '{"pruning_type": "MLP_GLU", "layer_indices": [3]}', "t.json is not a mask: expected whole layers"),
        ("t.txt", "no list", "t.txt is not a mask: expected layer numbers"),
    ],
)
def test_what_cannot_be_shown_has_one_reason(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_text(text)
    shown = strata("show", tmp_path / name)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert not re.search(r"is no (mask|evaluation|cost|recording|comparison)\b", shown.stderr)
    assert reason in shown.stderr
    assert (KINDS in shown.stderr) == reason.startswith("got")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.txt", "--prune-layers 3,4\n", "llama.cpp's list"),
        ("m.txt", "3,4", "optipfair's list"),
        ("m.json", "[3, 4]", "optipfair's list"),
    ],
)
def test_a_list_is_shown_without_the_number_of_layers_and_says_how_to_give_it(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    unknown = "does not say how many layers the model has"
    assert strata("show", path).stdout == f"{name}: drops layers 3 and 4\nRead as {words}, which {unknown}.\n"
    assert json.loads(strata("show", path, "--json").stdout) == {"dropped": [3, 4], "n_layers": None, "read_as": words}
    written = strata("show", path, "--out", tmp_path / "again.json")
    assert (written.exit_code, (tmp_path / "again.json").exists()) == (2, False)
    assert f"{unknown}. Name a recording of the model: strata mask RECORDING --drop {path}" in written.stderr


def test_masks_and_recordings_are_known_by_what_they_say(tmp_path: Path) -> None:
    mask = PruneMask(9, (3, 4))
    save_mask(mask, tmp_path / "m.json")
    (tmp_path / "m.csv").write_text(mask_to_csv(mask))
    save_recording(full_recording(3), tmp_path / "r.npz")
    assert "drops 2 of 9 layers: 3, 4" in strata("show", tmp_path / "m.json").stdout
    assert "drops 2 of 9 layers: 3, 4\nRead as a CSV of layers." in strata("show", tmp_path / "m.csv").stdout
    assert "similarity of each layer" in strata("show", tmp_path / "r.npz").stdout
    np.savez(tmp_path / "other.npz", meta=np.arange(3))
    assert [kind_in(tmp_path / name) for name in ("m.json", "m.csv", "other.npz", "nowhere.json")] == [
        "strata-mask",
        "",
        "",
        "",
    ]
