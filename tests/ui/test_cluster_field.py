"""The field of a cluster beside Record: its line, its refusal in words, and that a shared dashboard has none."""

from __future__ import annotations

import pytest
from acting import OpenPage, hold_bundled, ran, wait_for, words

from vlm_analysis.ui.common.session import workspace

PAGE = "pages/3_similarity.py"


def test_an_address_goes_into_the_line_and_what_is_none_is_refused_in_words(stocked: OpenPage) -> None:
    hold_bundled()
    before = len(workspace().items("recordings"))
    at = stocked(PAGE)
    assert "--cluster" not in "".join(code.value for code in at.code)
    at.text_input(key="record_cluster").set_value(" 10.0.0.5 ")
    assert any("strata record" in code.value and "--cluster 10.0.0.5" in code.value for code in ran(at).code)
    next(button for button in at.button if button.label == "Record").click()
    said = words(wait_for(ran(at), "is no cluster")).replace("\\", "")
    assert "'10.0.0.5' is no cluster: expected auto, or host:port as `ray start --head` prints it." in said
    assert len(workspace().items("recordings")) == before


def test_a_shared_dashboard_has_no_such_field(stocked: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATA_SHARED", "1")
    hold_bundled()
    at = stocked(PAGE)
    assert any(button.label == "Record" for button in at.button)
    assert not [one for one in at.text_input if one.key == "record_cluster"]
