"""Damaged saved work is named on every page, and goes away at a click; a shared dashboard offers no path of the server."""

from __future__ import annotations

from pathlib import Path

import pytest
from acting import OpenPage, ran, words
from streamlit.testing.v1 import AppTest

from vlm_analysis import PruneMask
from vlm_analysis.ui.common.session import workspace
from vlm_analysis.workbench.shelf import keep_mask


def delete_all(at: AppTest) -> AppTest:
    next(button for button in at.button if button.label == "Delete it for good").click()
    return ran(at)


def test_a_damaged_sidecar_is_named_and_deleted_at_a_click(open_page: OpenPage, tmp_path: Path) -> None:
    whole = keep_mask(workspace(), PruneMask(16, (5,), name="whole"))
    folder = tmp_path / "home" / "masks"
    (folder / "20260101-000000-00000000.item.json").write_text("{")
    (folder / "odd.item.json").mkdir()
    at = open_page("pages/2_prompts.py")
    assert "expected the description of a saved item" in words(at)
    delete_all(delete_all(at))
    assert not workspace().damaged()
    assert "expected the description" not in words(ran(at))
    assert workspace().items("masks") == [whole]


def test_an_item_whose_file_is_damaged_is_named_where_it_can_be_deleted(open_page: OpenPage) -> None:
    item = keep_mask(workspace(), PruneMask(16, (5,), name="spoilt"))
    item.path.write_text("{}")
    at = ran(open_page("pages/7_export.py"))
    assert "spoilt: " in words(at)
    delete_all(at)
    assert workspace().items("masks") == []
    assert "spoilt" not in words(ran(at))


@pytest.mark.parametrize("shared", [True, False])
def test_a_shared_dashboard_offers_no_path_hub_id_or_code(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    monkeypatch.setenv("STRATA_SHARED", "1" if shared else "")
    for page in ("pages/1_model.py", "pages/2_prompts.py"):
        at = open_page(page)
        assert ("This dashboard is shared" in words(at)) == shared
        if page.startswith("pages/1"):
            kinds = at.get("button_group")[0]
            labels = [option.content for option in kinds.proto.options]
            assert any("Hub" in label or "this machine" in label for label in labels) != shared
        else:
            at.session_state["way-in"] = "Open a file or folder"
            assert bool(ran(at).text_input) != shared
