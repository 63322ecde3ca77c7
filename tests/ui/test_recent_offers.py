"""Recent models and folders on the pages: one press fills the form, and a shared server offers no path."""

from __future__ import annotations

import pytest
from acting import OpenPage, ran

from vlm_analysis.ui.common.session import workspace
from vlm_analysis.workbench.recent import RecentModel, note_folder, note_model


def test_a_recent_model_fills_the_form_with_its_options(open_page: OpenPage) -> None:
    open_page("pages/1_model.py")
    note_model(workspace(), RecentModel("owner/vlm", "vlm", {"revision": "v2", "device": "cpu", "dtype": "bfloat16"}))
    at = open_page("pages/1_model.py")
    at.button_group(key="model_recent").set_value("owner/vlm")
    ran(at)
    assert (at.text_input(key="model_hub").value, at.text_input(key="model_revision").value) == ("owner/vlm", "v2")
    assert (at.selectbox(key="model_device").value, at.selectbox(key="model_dtype").value) == ("cpu", "bfloat16")


def test_a_shared_server_offers_no_recent_path(open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    open_page("pages/1_model.py")
    note_model(workspace(), RecentModel("/home/me/secret", "mine", {}))
    note_folder(workspace(), "/home/me/data")
    monkeypatch.setenv("STRATA_SHARED", "1")
    for page in ("pages/1_model.py", "pages/2_prompts.py"):
        at = open_page(page)
        assert not [group for group in at.button_group if "recent" in str(group.key)]
