"""What the tests of the Prompts page do with its tabs and with the table of images."""

from __future__ import annotations

import io

from PIL import Image
from streamlit.testing.v1 import AppTest

from vlm_analysis.ui.common.drafts import Draft


def ran(at: AppTest) -> AppTest:
    at.run()
    assert not at.exception
    return at


def go(at: AppTest, tab: str) -> AppTest:
    at.session_state["way-in"] = tab
    return ran(at)


def png(color: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(buffer, format="PNG")
    return buffer.getvalue()


def upload(at: AppTest, *files: tuple[str, bytes]) -> AppTest:
    """Hand files to the one uploader that is drawn."""
    go(at, "Your images")
    at.file_uploader[0].set_value([(name, data, "image/png") for name, data in files])
    return ran(at)


def edit(at: AppTest, rows: dict[int, dict[str, object]]) -> AppTest:
    """Type into the table of drafts."""
    key = f"drafts-{at.session_state['drafts:version']}"
    at.session_state[key] = {"edited_rows": rows, "added_rows": [], "deleted_rows": []}
    return ran(at)


def press(at: AppTest, key: str) -> AppTest:
    at.button(key=key).click()
    return ran(at)


def drafts(at: AppTest) -> tuple[Draft, ...]:
    return at.session_state["drafts:shown"]
