"""What the page tests do on a page, and read from it."""

from __future__ import annotations

import time
from collections.abc import Callable

from streamlit.testing.v1 import AppTest

OpenPage = Callable[[str], AppTest]


def words(at: AppTest) -> str:
    """Return all text on the page."""
    parts = [at.markdown, at.caption, at.text, at.info, at.warning, at.error, at.success, at.subheader, at.title]
    return "\n".join(str(element.value) for part in parts for element in part)


def ran(at: AppTest) -> AppTest:
    at.run()
    assert not at.exception, at.exception
    return at


def wait_for(at: AppTest, text: str, seconds: float = 60) -> AppTest:
    """Run the page until it says `text`, as its own polling would."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if text in words(ran(at)):
            return at
        time.sleep(0.05)
    raise AssertionError(f"{text!r} never came; the page says:\n{words(at)}")


def load_bundled(stocked: OpenPage) -> AppTest:
    """Load the bundled model on the Model page."""
    at = stocked("pages/1_model.py")
    next(button for button in at.button if button.label == "Load").click()
    return wait_for(at, "Decoder layers that should stay")
