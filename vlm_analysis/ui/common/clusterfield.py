"""Where a job measures: on this machine, or on those of a Ray cluster, whose address is the session's on all pages."""

from __future__ import annotations

import streamlit as st

from vlm_analysis.guard.shared import is_shared

ADDRESS = "cluster_address"


def cluster_address() -> str:
    """Return the address of the session's cluster; "" where this machine measures, as a shared dashboard always does."""
    return "" if is_shared() else str(st.session_state.get(ADDRESS, ""))


def where_it_runs(kind: str) -> str:
    """Draw the field of the cluster beside a job of this kind, open where one is set; return its address, "" for this machine.

    A shared dashboard has no such field.
    """
    if is_shared():
        return ""
    key, address = f"{kind}_cluster", cluster_address()
    st.session_state[key] = address  # it may have been typed beside another job
    with st.expander("Where it runs", expanded=bool(address)):
        st.text_input(
            "Ray cluster",
            key=key,
            placeholder="none: on this machine",
            on_change=_take,
            args=(key,),
            help="The address of a Ray cluster whose machines measure, as 10.0.0.5:6379, or auto for the one on this machine. Its numbers "
            "are those of this machine. Needs the package ray: pip install '.[cluster]'. It stays set for this session, on all pages.",
        )
    return address


def _take(key: str) -> None:
    st.session_state[ADDRESS] = st.session_state[key].strip()
