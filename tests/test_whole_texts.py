"""What a page cuts can be seen whole there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vlm_analysis.ui.common import drafts, promptcard, recent, shell
from vlm_analysis.words import MOST_LISTED

REASONS = [f"reason {number}" for number in range(MOST_LISTED + drafts.MAX_NOTES + 2)]
LONG = "word " * 200
PATH = f"/models/{'deep/' * 30}end"


@pytest.mark.parametrize(
    ("module", "draw", "whole"),
    [
        (shell, lambda: shell.say_set_aside(dict(enumerate(REASONS))), "\n".join(REASONS)),
        (drafts, lambda: drafts.draw_notes("Left out", REASONS), "\n".join(REASONS)),
        (promptcard, lambda: promptcard.draw_text(LONG), LONG),
    ],
    ids=["prompts set aside", "notes of an upload", "a long text"],
)
def test_what_is_cut_is_drawn_whole_behind_a_button(
    monkeypatch: pytest.MonkeyPatch, module: object, draw: Callable[[], None], whole: str
) -> None:
    said: list[str] = []
    monkeypatch.setattr(shell.st, "text", said.append)
    draw()
    assert said[-1] == whole


def test_the_help_of_recent_paths_has_those_that_are_cut_whole() -> None:
    about = recent._about({"one": PATH, "two": "pocket-vl"})
    assert recent.escaped(PATH) in about
    assert "pocket" not in about
