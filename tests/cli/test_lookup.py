"""What arguments name: ids, names, files and layers; and mistakes, each one message with code 2, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from vlm_analysis import PromptSet, PruneMask, StrataError, cli, save_mask, write_prompts
from vlm_analysis.cli.lookup import find_edits, find_prompts, layers_in
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.workbench.shelf import keep_mask, keep_prompts, open_item
from vlm_analysis.workbench.workspace import Workspace

HOSTILE = (
    "[bold red]x[/]",
    "../../not there",
    "a" * 10_000,
    "\x1b[2J",
    "--",
    "x; rm -rf y",
    "{0.__class__}",
    "%s",
    "\0",
)


def strata(*words: str) -> Result:
    return CliRunner().invoke(cli.strata, words)


@pytest.fixture
def shelf(few: PromptSet) -> Workspace:
    made = Workspace()
    keep_prompts(made, few, "few")
    keep_mask(made, PruneMask(16, (5, 9), name="five and nine"))
    return made


def test_prompts_are_packs_files_folders_names_or_ids(shelf: Workspace, few: PromptSet, tmp_path: Path) -> None:
    (item,) = shelf.items("prompts")
    assert find_prompts(shelf, "few") == find_prompts(shelf, item.id) == item
    table = write_prompts(few[:2], tmp_path / "own")
    for text in (str(tmp_path / "own"), str(table)):
        assert len(open_item(find_prompts(shelf, text))) == 2
    both = find_prompts(shelf, "math, general")
    assert both.name == "Bundled packs: general, math"
    assert find_prompts(shelf, "general,math") == both


def test_a_source_says_what_it_was_read_as_and_what_was_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{"from": "human", "value": "<image>why?"}, {"from": "gpt", "value": "so"}]
    rows = [{"image": "a.png", "conversations": turns}, *[{"conversations": turns}] * 12]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    find_prompts(Workspace(), str(folder / "train.jsonl"))
    read_as, left_out = [line.split(": ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert read_as == "read as LLaVA conversations: 'conversations' with 'from' and 'value'"
    assert left_out.startswith("12 rows are left out (2, 3, 4, 5, 6, 7 and 6 more), the first: the row has no image")
    (folder / "mine.csv").write_text("image,question\na.png,why?\n")
    find_prompts(Workspace(), str(folder / "mine.csv"))
    assert capsys.readouterr().err == ""


def test_edits_are_layers_dense_files_names_or_ids(shelf: Workspace, tmp_path: Path) -> None:
    (item,) = shelf.items("masks")
    save_mask(PruneMask(16, (1, 2)), tmp_path / "m.json")
    asked = ["five and nine", item.id, "3,5-7", "dense", str(tmp_path / "m.json")]
    dropped = [edit.dropped for edit in find_edits(shelf, asked, lambda: ModelInfo("any", "", 16))]
    assert dropped == [(5, 9), (5, 9), (3, 5, 6, 7), (), (1, 2)]


def test_a_saved_thing_called_like_layers_is_meant_before_them(shelf: Workspace) -> None:
    keep_mask(shelf, PruneMask(16, (4,), name="3,5"))
    (found,) = find_edits(shelf, ["3,5"], lambda: ModelInfo("any", "", 16))
    assert found.dropped == (4,)


@pytest.mark.parametrize("text", ["", "a", "3,", "-1", "1.5", "3 5", "١", "0x3", "9" * 5000])
def test_other_texts_are_no_layers(text: str) -> None:
    assert layers_in(text) in (None, (1,))


@pytest.mark.parametrize("text", ["7-5", "0-99999999999"])
def test_impossible_ranges_are_refused(text: str) -> None:
    with pytest.raises(StrataError, match="names no layers"):
        layers_in(text)


def test_an_ambiguous_name_lists_the_ids(shelf: Workspace) -> None:
    other = keep_mask(shelf, PruneMask(16, (1,), name="five and nine"))
    done = strata("show", "five and nine")
    assert done.exit_code == 2
    assert "is the name of 2 saved items" in done.stderr
    assert all(item.id in done.stderr for item in shelf.items("masks"))
    assert strata("show", other.id).exit_code == 0


def test_what_is_both_a_file_and_saved_asks_which(
    shelf: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few").mkdir()
    with pytest.raises(StrataError, match="both a file and saved"):
        find_prompts(shelf, "few")


def test_a_name_of_another_kind_and_a_model_s_folder_say_what_they_are(shelf: Workspace, tmp_path: Path) -> None:
    swapped = strata("evaluate", "five and nine", "few")
    assert (swapped.exit_code, "got one of the saved masks" in swapped.stderr) == (2, True)
    (tmp_path / "config.json").write_text("{}")
    shown = strata("show", str(tmp_path))
    assert (shown.exit_code, "--model" in shown.stderr) == (2, True)


def test_a_folder_that_holds_something_is_refused_before_the_model_is_loaded(shelf: Workspace, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    done = strata("export", "five and nine", str(tmp_path), "--model", "no such model")
    assert (done.exit_code, "expected a new or empty folder" in done.stderr) == (2, True)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("command", ["rank", "show", "record", "evaluate"])
def test_hostile_names_are_one_message_with_what_there_is(shelf: Workspace, command: str, name: str) -> None:
    done = strata(command, "--", name, *(["5"] if command == "evaluate" else []))
    assert done.exit_code == 2, done.exception
    assert done.stdout == ""
    assert len(done.stderr) < 3000
    assert "\x1b" not in done.stderr
    assert "Traceback" not in done.stderr
    if command == "record":
        assert shelf.items("prompts")[0].id in done.stderr


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in ("--", "\0")])
def test_what_has_a_hostile_name_is_found_by_it(shelf: Workspace, name: str) -> None:
    keep_mask(shelf, PruneMask(16, (4,), name=name))
    done = strata("show", "--kind", "masks", "--", name)
    assert done.exit_code == 0, done.stderr
    assert "drops 1 of 16 layers: 4" in done.stdout


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("x.xlsx", "expected a name ending in .csv, .parquet, .html"),
        ("x", "got ''"),
        (".", "got the folder"),
        (f"{'x' * 300}.csv", "expected a path that can be written"),
        ("full/x.csv", "expected a path that can be written"),
    ],
)
def test_an_out_that_cannot_be_written_is_refused_before_anything_runs(
    shelf: Workspace, tmp_path: Path, out: str, said: str
) -> None:
    (tmp_path / "full").write_text("a file")
    done = strata("record", "few", "--out", f"{tmp_path}/{out}")
    assert done.exit_code == 2
    assert said in done.stderr
    assert not shelf.items("recordings")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep", "few"], "of one kind"),
        (["sweep", "few", "5", "--leave-one-out"], "of one kind"),
        (["sweep", "few", "5", "--most", "3"], "apply to comparisons"),
        (["sweep", "few", "5", "--recover", "ridge"], "--recover, --vision and --time-front apply to comparisons"),
        (["sweep", "few", "5", "--out", "x.npz"], "expected a name ending in .csv"),
        (["cost", "few", "5", "6", "--line"], "takes one EDIT"),
        (["search", "few", "--damage", "nonsense"], "Unknown damage"),
        (["ask", "few", "5", "--prompt", "nobody"], "There is no prompt 'nobody'"),
        (["ask", "few", "5", "--image", "nowhere.png"], "nowhere.png"),
        (["show", "--kind", "nonsense"], "There is no such kind"),
    ],
)
def test_mistakes_are_named_before_the_model_is_loaded(
    shelf: Workspace, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    from vlm_analysis.workbench.slot import ModelSlot

    monkeypatch.setattr(ModelSlot, "load", lambda *_: pytest.fail("the model was loaded"))
    done = strata(*words)
    assert done.exit_code == 2, done.exception
    assert said in done.stderr
