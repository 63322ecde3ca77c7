"""What the page tests do on a page, and read from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from functools import cache
from typing import Any

from streamlit.testing.v1 import AppTest

from vlm_analysis import LoadedModel, load_model
from vlm_analysis.ui.common.session import model_slot, runner
from vlm_analysis.workbench.jobs import JobView
from vlm_analysis.workbench.slot import ModelSlot

OpenPage = Callable[[str], AppTest]
PATIENCE_S = 300  # for what takes seconds: a busy machine fails no test


def words(at: AppTest) -> str:
    """Return all text on the page."""
    parts = [at.markdown, at.caption, at.text, at.info, at.warning, at.error, at.success, at.subheader, at.title]
    return "\n".join(str(element.value) for part in parts for element in part)


def folder_input(at: AppTest) -> Any:
    """Return the box for the folder of a checkpoint."""
    return next(one for one in at.text_input if one.label == "New folder")


def ran(at: AppTest) -> AppTest:
    at.run()
    assert not at.exception, at.exception
    return at


def strip(at: AppTest) -> dict[str, Any]:
    """Return what the strip on the page was given."""
    return json.loads(at.get("bidi_component")[0].proto.json)


def send(at: AppTest, dropped: Collection[int], own: Collection[int] = (), **changes: Any) -> AppTest:
    """Send a mask as the strip in the browser does, and run the page."""
    there = strip(at)
    message = {"base": there["base"], "number": there["taken"] + 1, "dropped": list(dropped), "own": list(own)}
    history = {"undo": [*there["undo"], [there["dropped"], there["own"]]], "redo": []}
    at.session_state["mask_strip"] = {"sent": message | history | {"scale": "fixed", "pinned": []} | changes}
    return ran(at)


def ended(kind: str) -> JobView:
    """Wait until the newest job of a kind has ended; return it."""
    job = runner().latest(kind)
    assert job is not None, f"no job {kind!r} was started"
    seen = runner().wait(job.id, PATIENCE_S)
    assert seen is not None
    assert not seen.active, f"{kind!r} never ended"
    return seen


def settled(at: AppTest) -> AppTest:
    """Run the page when all jobs have ended, as its own polling would."""
    for job in runner().list(active=True):
        runner().wait(job.id, PATIENCE_S)
    return ran(at)


def wait_for(at: AppTest, text: str) -> AppTest:
    """Run the page until the jobs that it started have ended and it says `text`."""
    for _ in range(3):  # one that takes a result may start a job, and draws what it chose in its next run
        if text in words(settled(at)):
            return at
    raise AssertionError(f"{text!r} never came; the page says:\n{words(at)}")


@cache
def _bundled() -> LoadedModel:
    return load_model()


def hold_bundled() -> None:
    """Put the bundled model into its place, loaded once for all pages; `load_bundled` loads it as a user does."""
    vars(model_slot()).update(vars(ModelSlot.holding(_bundled())))


def load_bundled(stocked: OpenPage) -> AppTest:
    """Load the bundled model on the Model page."""
    at = stocked("pages/1_model.py")
    next(button for button in at.button if button.label == "Load").click()
    return wait_for(ran(at), "Decoder layers that should stay")
