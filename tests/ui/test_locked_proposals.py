"""Layers that the user locked in the strip stay in every proposal of the Masks page, and in the lines that make the same."""

from __future__ import annotations

import json

from acting import OpenPage, ended, hold_small, ran, send
from typer.testing import CliRunner

from vlm_analysis import LoadedModel, PromptSet, cli
from vlm_analysis.edits.ownlocks import own_locks
from vlm_analysis.ui.common.editor import CANDIDATES
from vlm_analysis.ui.common.session import workspace
from vlm_analysis.workbench.shelf import open_item

PAGE = "pages/4_masks.py"


def test_a_search_keeps_the_locked_layers_and_so_does_its_line(
    stocked: OpenPage, small: LoadedModel, few: PromptSet
) -> None:
    hold_small(small, few)
    at = stocked(PAGE)
    at.session_state["candidate_strategy"], at.session_state["candidate_budget"] = "greedy", 1
    found: list[tuple[int, ...]] = []
    for _ in range(2):  # the layer that the first search drops is locked, and sought again without it
        send(at, (), own=[layer for mask in found for layer in mask])
        next(button for button in at.button if button.label == "Search for a mask").click()
        ran(at)
        assert ended("search").status == "done"
        mask = open_item(workspace().items("masks")[0])
        found.append(mask.dropped)
    assert found[0] != found[1]
    assert own_locks(mask) == found[0]
    line = next(code.value for code in ran(at).code if code.value.startswith("strata search"))
    assert f"--keep {found[0][0]}" in line


def test_candidates_keep_the_locked_layers_and_so_do_their_lines(stocked: OpenPage) -> None:
    at = stocked(PAGE)
    free = at.session_state[CANDIDATES]["Block influence"].dropped
    send(at, (), own=free[:2])
    candidates = at.session_state[CANDIDATES]
    assert not any(set(free[:2]) & set(mask.dropped) for mask in candidates.values())
    line = next(line for code in at.code for line in code.value.splitlines() if "--criterion block-influence" in line)
    done = CliRunner().invoke(cli.strata, [*line.split()[1:], "--json"])
    assert json.loads(done.stdout)["key"] == candidates["Block influence"].key


def test_a_text_that_names_no_layers_to_keep_is_refused(stocked: OpenPage) -> None:
    stocked(PAGE)
    done = CliRunner().invoke(cli.strata, ["mask", "a recording", "--keep", "seven"])
    assert done.exit_code == 2
    assert "--keep names no layers: expected layers like 3,5-7, got 'seven'" in done.stderr
