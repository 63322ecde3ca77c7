"""Damaged saved work: where it is named, with the button that deletes it."""

from __future__ import annotations

import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.ui.common.session import unopened, workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.workbench.workspace import Damaged, Item

MOST_SHOWN = 20


def draw_damaged() -> None:
    """Draw the saved items that cannot be listed, and those that could not be opened since the server started."""
    listed: list[tuple[Damaged | Item, str]] = [(one, one.reason) for one in workspace().damaged()]
    listed += [
        (item, reason)
        for item, reason in unopened().values()
        if item.path.is_relative_to(workspace().root / item.kind) and item.path.exists()
    ]
    if problem := st.session_state.pop("damaged:problem", ""):
        st.error(escaped(problem))
    if not listed:
        return
    with st.expander(f"Damaged saved work ({len(listed)})", icon=":material/warning:", key="damaged"):
        for one, reason in listed[:MOST_SHOWN]:
            st.warning(escaped(reason))
            name = one.id if isinstance(one, Item) else one.sidecar
            if name:
                key = f"discard:{one.kind}:{name}"
                st.button("Delete it for good", icon=":material/delete:", key=key, on_click=_delete, args=(one,))


def _delete(one: Damaged | Item) -> None:
    """Delete a damaged item; what goes wrong is said in the next run."""
    try:
        if isinstance(one, Item):
            workspace().delete(one)
            unopened().pop((one.kind, one.id), None)
        else:
            workspace().discard(one)
    except StrataError as error:
        st.session_state["damaged:problem"] = str(error)
