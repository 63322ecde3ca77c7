"""The pages name the prompts that a recording or an evaluation had to set aside."""

from __future__ import annotations

from dataclasses import replace

from acting import OpenPage, words

from vlm_analysis import LoadedModel
from vlm_analysis.ui.common.session import workspace
from vlm_analysis.workbench.shelf import find_dense, keep_evaluation, keep_recording, open_item

ASIDE = {"odd": "Prompt 'odd' cannot be prepared: too flat.", "far": "Prompt 'far' is too long."}


def test_the_similarity_page_names_them(stocked: OpenPage, loaded: LoadedModel) -> None:
    at = stocked("pages/3_similarity.py")
    assert "set aside" not in words(at)
    recording = open_item(workspace().items("recordings")[0])
    keep_recording(workspace(), replace(recording, set_aside=ASIDE), "with less")
    said = words(stocked("pages/3_similarity.py")).replace("\\", "")
    assert "2 of 8 prompts were set aside:" in said
    assert all(reason in said for reason in ASIDE.values())


def test_the_evaluate_page_compares_what_both_have_and_names_the_rest(stocked: OpenPage, loaded: LoadedModel) -> None:
    shelf = workspace()
    pruned = next(open_item(item) for item in shelf.items("evaluations") if "five" in item.name)
    dense_item = find_dense(shelf, loaded.fingerprint, pruned.prompts)
    assert dense_item is not None
    lost = pruned.by_prompt["id"][1]
    table = pruned.by_prompt.drop(index=1).reset_index(drop=True)
    keep_evaluation(shelf, replace(pruned, by_prompt=table, set_aside={lost: f"Prompt {lost!r} is gone."}), "with less")
    said = words(stocked("pages/5_evaluate.py")).replace("\\", "")
    assert "1 of 6 prompts was set aside:" in said
    assert f"Prompt {lost!r} is gone." in said
    assert "By domain: " in said
