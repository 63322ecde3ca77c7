"""The list of jobs on every page: its order, cancelling one that waits, and the way to what a job made."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from acting import PATIENCE_S, OpenPage, ran, words
from streamlit.testing.v1 import AppTest

from vlm_analysis.progress import Progress
from vlm_analysis.ui.common.joblist import MOST_ENDED, in_order
from vlm_analysis.ui.common.jobs import Place
from vlm_analysis.ui.common.session import runner
from vlm_analysis.workbench.jobs import JobView

ENDS = threading.Event()
EVALUATE = Place("Evaluate", "pages/5_evaluate.py", {"evaluate_tab": "Cost"})


@pytest.fixture
def go() -> Iterator[threading.Event]:
    """Lets the job of `hold` end."""
    event = threading.Event()
    yield event
    event.set()


def hold(go: threading.Event) -> str:
    begun = threading.Event()

    def work(on_progress: Progress) -> None:
        on_progress(1, 4, "prompt 2 of 4")
        begun.set()
        assert go.wait(PATIENCE_S)

    job = runner().submit("record", "Recording *4* prompts", work, origin=Place("Similarity", "pages/3_similarity.py"))
    assert begun.wait(PATIENCE_S)
    return job


def button(at: AppTest, label: str, job: str) -> None:
    next(one for one in at.button if one.label == label and (one.key or "").endswith(job)).click()
    ran(at)


def test_what_runs_comes_first_then_what_waits_by_its_place_then_what_ended_last() -> None:
    view = JobView("", "k", "", "queued", created=0.0)
    ended = [replace(view, id=f"ended {at}", status="done", finished=float(at)) for at in range(MOST_ENDED + 2)]
    waits = [replace(view, id=f"waits {place}", position=place) for place in (2, 1)]
    listed = [one.id for one in in_order([*ended, *waits, replace(view, id="runs", status="running")])]
    assert listed == ["runs", "waits 1", "waits 2", *(f"ended {at}" for at in (6, 5, 4, 3, 2))]


def test_a_page_without_jobs_has_no_list(open_page: OpenPage) -> None:
    assert not any("Jobs" in one.label for one in open_page("pages/1_model.py").get("popover"))


def test_each_job_says_its_page_and_its_place_and_one_that_waits_never_runs_once_cancelled(
    open_page: OpenPage, go: threading.Event
) -> None:
    running, has_run = hold(go), threading.Event()
    waiting = runner().submit("cost", "Timing", lambda _: has_run.set(), origin=EVALUATE)
    at = open_page("pages/1_model.py")
    assert [bar.text for bar in at.get("progress")] == [
        r"Recording \*4\* prompts: prompt 2 of 4",
        "Timing: waiting, position 1 in the queue",
    ]
    assert {"Similarity", "Evaluate"} <= {caption.value for caption in at.caption}
    button(at, "Cancel", waiting)
    assert "Evaluate · cancelled before it began" in words(at)
    go.set()
    runner().wait(running, PATIENCE_S)
    assert runner().ask(lambda: not has_run.is_set())


def test_a_failed_job_shows_its_error(open_page: OpenPage) -> None:
    def work(_: Progress) -> None:
        raise OSError("<b>no</b>")

    runner().wait(runner().submit("cost", "Timing", work, origin=EVALUATE), PATIENCE_S)
    at = open_page("pages/1_model.py")
    assert "failed after 0 s" in words(at)
    assert "<b>no</b>" in at.code[0].value


def test_the_result_of_a_job_is_shown_on_its_page_and_tab_and_is_this_sessions(open_page: OpenPage) -> None:
    job = runner().submit("cost", "Timing", lambda _: None, origin=EVALUATE)
    runner().wait(job, PATIENCE_S)
    at = open_page("app.py")
    button(at, "Show result", job)
    assert at.title[0].value == "Evaluate"
    assert at.session_state["job:cost"] == job
    assert at.query_params["evaluate_tab"] == "Cost"


def drawn_while_a_job_ends() -> None:
    import time

    import streamlit as st
    import test_job_list

    from vlm_analysis.ui.common.jobs import job_panel, stand_on
    from vlm_analysis.ui.common.session import runner

    stand_on("Similarity", "pages/3_similarity.py")
    job = runner().latest("record")
    st.text(f"looked up while {job.status}")
    test_job_list.ENDS.set()
    while runner().get(job.id).active:
        time.sleep(0.01)
    job_panel("record")


def test_a_page_on_which_a_job_ends_while_it_is_drawn_is_drawn_again_with_its_result(open_page: OpenPage) -> None:
    open_page("pages/1_model.py")
    ENDS.clear()
    hold(ENDS)
    at = AppTest.from_function(drawn_while_a_job_ends, default_timeout=PATIENCE_S).run()
    assert not at.exception
    assert [text.value for text in at.text] == ["looked up while done"]
