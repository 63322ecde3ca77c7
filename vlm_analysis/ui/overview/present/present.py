"""The component that shows a document's presentation over the whole window (present.js)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st
from streamlit.components import v2


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


_component = v2.component("strata.present", html="<dialog></dialog>", css=_read("present.css"), js=_read("present.js"))


def present(page: str, on_end: Callable[[], None]) -> None:
    """Show a page of `document_html` that begins with its presentation, in the dashboard's light or dark; `on_end` is called at its end."""
    scheme = "dark" if st.context.theme.type == "dark" else "light"
    _component(key="presentation", data={"page": page, "scheme": scheme}, on_ended_change=on_end)
