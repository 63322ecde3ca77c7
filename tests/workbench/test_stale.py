"""What version 0.1 measured with marks of pictures taken for text is not taken for what is asked now, and is told apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from tables import RED

from vlm_analysis import Prompt, PromptSet
from vlm_analysis.edits.edit import Edit
from vlm_analysis.workbench.details import edit_details
from vlm_analysis.workbench.shelf import find_dense, keep_prompts
from vlm_analysis.workbench.stale import KNOWN, is_stale
from vlm_analysis.workbench.workspace import Item, Workspace

MARKED, PLAIN = (
    PromptSet([Prompt((RED,), question, id="1", answer="a")]) for question in ("what is <image>?", "what?")
)


@pytest.fixture
def shelf(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home")


def dense_item(shelf: Workspace, prompts: PromptSet, **more: str) -> Item:
    """Save a sidecar as that of a dense evaluation; without `more` as version 0.1 did."""

    def write(path: Path) -> None:
        path.write_text("{}")

    details = {**edit_details(Edit(16)), **more}
    return shelf.save(
        "evaluations", "dense", write, prompts=prompts.fingerprint, model="m" * 64, model_name="m", details=details
    )


@pytest.mark.parametrize("prompts", [MARKED, PLAIN], ids=["marked", "plain"])
def test_only_what_0_1_measured_of_prompts_with_marks_is_stale(shelf: Workspace, prompts: PromptSet) -> None:
    old, new = dense_item(shelf, prompts), dense_item(shelf, prompts, **KNOWN)
    assert not is_stale(shelf, old)  # its prompts are not saved
    saved = keep_prompts(shelf, prompts, "asked")
    assert [is_stale(shelf, item) for item in (old, new, saved)] == [prompts is MARKED, False, False]


def test_a_stale_dense_evaluation_is_not_found(shelf: Workspace) -> None:
    keep_prompts(shelf, MARKED, "marked")
    dense_item(shelf, MARKED)
    assert find_dense(shelf, "m" * 64, MARKED.fingerprint) is None
    new = dense_item(shelf, MARKED, **KNOWN)
    assert find_dense(shelf, "m" * 64, MARKED.fingerprint) == new
