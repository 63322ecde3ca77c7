"""The document of what is saved: its pictures and its recording are found, and its own line makes it again."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from compared import made
from rankings import full_recording
from tables import BLUE
from typer.testing import CliRunner

from vlm_analysis import Prompt, PromptSet, cli
from vlm_analysis.export.document.document import Cover
from vlm_analysis.export.document.page import document_html
from vlm_analysis.export.document.price import Price
from vlm_analysis.selection.compared.comparison import RESPONSES
from vlm_analysis.workbench.documents import document_for
from vlm_analysis.workbench.shelf import keep_comparison, keep_prompts, keep_recording
from vlm_analysis.workbench.workspace import Item, Workspace


@pytest.fixture
def saved() -> tuple[Workspace, Item]:
    """A comparison of two budgets on four prompts, with its prompts and its recording."""
    shelf = Workspace()
    prompts = PromptSet(
        [Prompt((BLUE,), "what colour?", domain, str(row)) for row, domain in enumerate(("art", "art", "math", "math"))]
    )
    recording = full_recording(n_prompts=4, n_layers=8, domains=("art", "math"))
    scores = {("one", "first-k", 1): np.array([1.0, 1, 1, 1]), ("one", "first-k", 2): np.array([0.0, 1, 1, 1])}
    responses = pd.DataFrame([(1, "0", "what colour?", "blue", "red")], columns=list(RESPONSES))
    comparison = replace(made(scores, list(prompts.domains * 2)), responses=responses, layer_shares=np.full(8, 0.1))
    parts = {
        "prompts": keep_prompts(shelf, prompts, "four").id,
        "recordings": keep_recording(shelf, recording, "four").id,
    }
    return shelf, keep_comparison(shelf, comparison, "toy on four", **parts)


def test_a_saved_comparison_is_told_with_its_pictures_and_why(saved: tuple[Workspace, Item]) -> None:
    told = document_for(*saved, budget=2)
    assert [card.picture.startswith("data:image/webp") for step in told.steps for card in step.cards] == [True]
    assert len(told.steps) == 5  # mask, curve, examples, similarity, difference


def test_without_its_prompts_and_recording_it_is_told_in_words(saved: tuple[Workspace, Item]) -> None:
    shelf, item = saved
    for kind in ("prompts", "recordings"):
        for part in shelf.items(kind):
            shelf.delete(part)
    told = document_for(shelf, item, budget=2)
    assert [card.picture for step in told.steps for card in step.cards] == [""]
    assert len(told.steps) == 3


def test_the_line_in_a_document_writes_the_same_document(
    saved: tuple[Workspace, Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cover, price = Cover("-- mine; rm 'x'", "Ada", "today"), Price(0.5, 0, "EUR")
    told = document_for(*saved, budget=2, cover=cover, price=price)
    done = CliRunner().invoke(cli.strata, shlex.split(told.command)[1:])
    assert done.exit_code == 0, done.output
    assert told.steps[0].sentence.replace("\u00a0", " ") in done.output
    assert (tmp_path / "report.html").read_text("utf-8") == document_html(told)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing",), "expected the name or id of a saved comparison"),
        (("toy on four", "--budget", "7"), "among 1, 2, got 7"),
        (("toy on four", "--price-in", "0"), "not both 0"),
        (("toy on four", "--title", "t" * 201), "title is too long"),
        (("toy on four", "--out", "report.pdf"), "expected a name ending in .html"),
    ],
)
def test_what_cannot_be_told_is_one_message(
    saved: tuple[Workspace, Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.strata, ["report", *words])
    assert done.exit_code == 2
    assert said in done.output
    assert not list(tmp_path.glob("*.html"))
