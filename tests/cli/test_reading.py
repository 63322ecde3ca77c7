"""How a file of prompts is read, said on the command line: formats, columns, folders of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from vlm_analysis import PromptSet, cli
from vlm_analysis.cli.lookup import find_prompts
from vlm_analysis.workbench.shelf import keep_prompts, open_item
from vlm_analysis.workbench.workspace import Workspace


def strata(*words: str) -> Result:
    return CliRunner().invoke(cli.strata, words)


@pytest.fixture
def table(folder: Path) -> Path:
    """A table of strange columns, apart from its pictures."""
    (folder / "tables").mkdir()
    path = folder / "tables" / "strange.csv"
    path.write_text("foto,frage,sorte\na.png,What?,one\nb.png,Why?,two\nc.png,Where?,two\n")
    return path


COLUMNS = ("--columns", "image=foto", "--columns", "question=frage", "--domain", "sorte")


def test_columns_domain_and_images_are_named(table: Path) -> None:
    shown = strata("show", str(table), *COLUMNS, "--images", str(table.parents[1]))
    assert shown.exit_code == 0, shown.output
    assert "What?" in shown.output
    reading = {"columns": {"image": "foto", "question": "frage"}, "domain": "sorte", "images": str(table.parents[1])}
    prompts = open_item(find_prompts(Workspace(), str(table), reading=reading))
    assert prompts.domains == ("one", "two")


def test_rows_left_out_are_told_by_reason(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.write_text("image,question\n../a.png,What?\nx.png,Why?\ny.png,Where?\n")
    find_prompts(Workspace(), str(table))
    told = capsys.readouterr().err
    assert "2 rows are left out (2, 3), the first: " in told
    assert "x.png" in told


@pytest.mark.parametrize("pair", ["question", "=frage", "question="])
def test_a_pair_that_is_none_is_one_message(table: Path, pair: str) -> None:
    shown = strata("show", str(table), "--columns", pair)
    assert shown.exit_code == 2
    assert "--columns takes pairs: expected OURS=THEIRS" in shown.output


def test_what_is_no_file_is_not_read_in_another_way(few: PromptSet) -> None:
    shelf = Workspace()
    keep_prompts(shelf, few, "few")
    for words in (("sweep", "few", "3"), ("sweep", "general", "3"), ("show", "few")):
        shown = strata(*words, "--format", "llava", "--turns", "last")
        assert shown.exit_code == 2
        assert "expected a file or folder for --format, --turns, got none" in shown.output


@pytest.mark.parametrize("command", ["record", "evaluate", "sweep", "search", "cost", "ask", "show"])
def test_every_command_that_takes_prompts_takes_how_they_are_read(command: str) -> None:
    told = strata(command, "--help").output
    assert all(option in told for option in ("--format", "--columns", "--images", "--domain", "--turns"))


def test_advice_is_given_in_options(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = strata("record", str(table)).output
    assert "name yours: --columns image=… --columns question=…. A CSV" in told
    assert "open_prompts" not in told
    told = strata("show", str(table), "--columns", "frage=question", "--columns", "foto=image").output
    assert "--columns could not be used" in told
    assert "Name ours first, then yours: --columns question=frage." in told
    assert (
        "--images 'nowhere' could not be opened" in strata("show", str(table), *COLUMNS, "--images", "nowhere").output
    )
    table.write_text("image,question\n../a.png,What?\nx.png,Why?\n")
    find_prompts(Workspace(), str(table))
    assert capsys.readouterr().err.endswith("name that: --images ….\n")
