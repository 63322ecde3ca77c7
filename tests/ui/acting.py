"""What the page tests do on a page, and read from it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Collection
from functools import cache
from typing import TYPE_CHECKING, Any

from streamlit.testing.v1 import AppTest

from vlm_analysis.ui.common.sent import Step
from vlm_analysis.ui.common.session import model_slot, runner, workspace
from vlm_analysis.workbench.jobs import JobView
from vlm_analysis.workbench.shelf import keep_recording
from vlm_analysis.workbench.slot import ModelSlot

if TYPE_CHECKING:
    from vlm_analysis import LoadedModel, PromptSet

OpenPage = Callable[[str], AppTest]
PATIENCE_S = 300  # for what takes seconds: a busy machine fails no test


def words(at: AppTest) -> str:
    """Return all text on the page."""
    parts = [at.markdown, at.caption, at.text, at.info, at.warning, at.error, at.success, at.subheader, at.title]
    drawn = [
        re.sub(r"<(style|script)>.*?</\1>|<span id=.*?</span>|<[^>]*>", "", one.proto.body, flags=re.S)
        for one in at.get("html")
    ]
    return "\n".join([*(str(element.value) for part in parts for element in part), *map(html.unescape, drawn)])


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
    """Send an edit as the strip in the browser does, and run the page."""
    there = strip(at)
    message = {"base": there["base"], "number": there["taken"] + 1, "dropped": list(dropped), "own": list(own)}
    message |= {"absent": there["absent"], "frozen": there["frozen"], "narrow": there["narrow"]}
    history = {
        "undo": [*there["undo"], [there[part] for part in Step._fields]],
        "redo": [],
    }
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
    from vlm_analysis import load_model

    return load_model()


def hold_bundled() -> None:
    """Put the bundled model into its place, loaded once for all pages; `load_bundled` loads it as a user does."""
    hold(_bundled())


def hold(loaded: LoadedModel) -> None:
    """Put a model into its place."""
    vars(model_slot()).update(vars(ModelSlot.holding(loaded)))


def hold_small(small: LoadedModel, prompts: PromptSet) -> None:
    """Put the model of eight layers into its place, with a recording of it in the workspace: what takes a pass a layer is short."""
    from vlm_analysis import record

    hold(small)
    keep_recording(workspace(), record(small, prompts), "of the small one")


def load_bundled(stocked: OpenPage) -> AppTest:
    """Load the bundled model on the Model page."""
    at = stocked("pages/1_model.py")
    next(button for button in at.button if button.label == "Load").click()
    return wait_for(ran(at), "Decoder layers that should stay")


def put(at: AppTest, **values: Any) -> AppTest:
    """Run the page with these choices made."""
    for key, value in values.items():
        at.session_state[key] = value
    return ran(at)


def chart(at: AppTest, place: int = -1) -> Any:
    return json.loads(at.get("plotly_chart")[place].proto.spec)


def press(at: AppTest, label: str) -> AppTest:
    next(button for button in at.button if button.label == label).click()
    return ran(at)


def finish(kind: str) -> None:
    """Wait until the newest job of a kind is done."""
    job = ended(kind)
    assert job.status == "done", job.error


def masks_of(at: AppTest) -> Any:
    """Return the table of masks."""
    return at.data_editor[0].value


def press_in_row(at: AppTest, key: str, name: str) -> AppTest:
    """Press a button of the table of masks, as the browser says it."""
    at.session_state[key] = {"row": masks_of(at)["name"].tolist().index(name), "label": ""}
    return ran(at)


def load_mask(at: AppTest, name: str = "Block influence") -> AppTest:
    """Take a mask of the table into the editor."""
    return press_in_row(at, "mask_load", name)
