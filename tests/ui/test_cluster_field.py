"""The field of a cluster beside the jobs that can run on one: their lines, the refusal in words, and that a shared dashboard has none."""

from __future__ import annotations

import pytest
from acting import OpenPage, hold_bundled, press, put, ran, wait_for, words
from streamlit.testing.v1 import AppTest

from vlm_analysis.ui.common.session import workspace

SIMILARITY, MASKS, EVALUATE = "pages/3_similarity.py", "pages/4_masks.py", "pages/5_evaluate.py"
CONTEST = "pages/6_depth_or_width.py"
JOBS = [  # a job, its page, what leads to its form, its button and the command of its line
    ("record", SIMILARITY, {}, "Record", "record"),
    ("damage", SIMILARITY, {"similarity_tab": "Explain", "explain_view": "Against damage"}, "Measure damage", "sweep"),
    ("scan", SIMILARITY, {"similarity_tab": "Explain", "explain_view": "Skip-It"}, "Scan vision tokens", "scan"),
    ("search", MASKS, {"candidate_strategy": "greedy"}, "Search for a mask", "search"),
    ("compare", EVALUATE, {"evaluate_tab": "Many masks"}, "Compare masks", "sweep"),
    ("contest", CONTEST, {}, "Depth or width?", "contest"),
]


def lines(at: AppTest) -> list[str]:
    return [code.value for code in at.code if "--cluster" in code.value]


@pytest.mark.parametrize(("kind", "page", "steps", "button", "command"), JOBS, ids=[job[0] for job in JOBS])
def test_an_address_goes_into_the_line_and_the_job_and_what_is_none_is_refused_in_words(
    stocked: OpenPage, kind: str, page: str, steps: dict[str, str], button: str, command: str
) -> None:
    hold_bundled()
    before = {
        one: len(workspace().items(one))
        for one in ("recordings", "masks", "sweeps", "scans", "comparisons", "contests")
    }
    at = put(stocked(page), **steps)
    assert not lines(at)
    at.text_input(key=f"{kind}_cluster").set_value(" 10.0.0.5 ")
    (line,) = (one for one in lines(ran(at)) if one.startswith(f"strata {command} "))
    assert "--cluster 10.0.0.5" in line
    press(at, button)
    said = words(wait_for(at, "is no cluster")).replace("\\", "")
    assert "'10.0.0.5' is no cluster: expected auto, or host:port as `ray start --head` prints it." in said
    assert {one: len(workspace().items(one)) for one in before} == before


def test_an_address_stays_set_for_every_job_of_the_session(stocked: OpenPage) -> None:
    hold_bundled()
    at = stocked(SIMILARITY)
    at.text_input(key="record_cluster").set_value("auto")
    put(ran(at), similarity_tab="Explain", explain_view="Against damage")
    assert at.text_input(key="damage_cluster").value == "auto"
    at.text_input(key="damage_cluster").set_value("")
    assert not lines(ran(at))
    assert at.text_input(key="damage_cluster").value == ""


def test_a_shared_dashboard_has_no_such_field_and_measures_here(
    stocked: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRATA_SHARED", "1")
    hold_bundled()
    at = stocked(SIMILARITY)
    put(at, cluster_address="10.0.0.5:6379")
    assert any(button.label == "Record" for button in at.button)
    assert not [one for one in at.text_input if one.key == "record_cluster"]
    assert not lines(at)
