"""The Prompts page's way to a dataset of the Hub: what it holds first, then one split of it."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.progress import Progress
from vlm_analysis.prompts.hubdata import Fetched, HubDataset, fetch_split, hub_dataset
from vlm_analysis.prompts.hubsplits import HubSplit
from vlm_analysis.ui.common.incoming import bring, draw_incoming
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.common.work import Work
from vlm_analysis.words import counted

FETCH = "fetch"
MB = 1_000_000
_LISTED, _BROUGHT = "hub:listed", "hub:brought"


def hub_tab() -> None:
    """Draw the field for a dataset's id, what it holds, and the button that fetches a split; what was fetched is brought."""
    _id_form()
    listed: HubDataset | str | None = st.session_state.get(_LISTED)
    if isinstance(listed, str):
        st.error(escaped(listed))
    elif listed is not None:
        _splits(listed)
    view = job_panel(FETCH, "Files that were fetched whole are kept.")
    if view is not None and view.status == "done" and st.session_state.get(_BROUGHT) != view.id:
        st.session_state[_BROUGHT] = view.id
        bring(*view.result)
        st.rerun()
    if draw_incoming() is not None:
        st.rerun()


def _id_form() -> None:
    with st.form("hub", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input(
            "Dataset of the Hub",
            placeholder="owner/name",
            key="hub-id",
            help="Its files, sizes and licence are listed first. Nothing of it is fetched before you choose a split.",
        ).strip()
        pressed = st.form_submit_button("List it", icon=":material/list:", key="hub-button")
    if pressed:
        with st.spinner(f"Asking the Hub for {escaped(name)}"):
            try:
                st.session_state[_LISTED] = hub_dataset(name)
            except StrataError as error:
                st.session_state[_LISTED] = str(error)


def _splits(dataset: HubDataset) -> None:
    """Draw what a dataset holds and the choice of a split."""
    total = sum(dataset.sizes.values()) / MB
    licence = f"licence {dataset.licence}" if dataset.licence else "no licence named"
    st.markdown(
        f"**{escaped(dataset.id)}**: {counted(len(dataset.sizes), 'file')}, {total:,.0f} MB in all, {escaped(licence)}"
    )
    rows = [(split.config, split.name, len(split.files), split.n_bytes / MB) for split in dataset.splits]
    st.dataframe(
        pd.DataFrame(rows, columns=["Configuration", "Split", "Parquet files", "MB"]),
        hide_index=True,
        column_config={"MB": st.column_config.NumberColumn(format="%.1f")},
        alt="Splits of the dataset",
    )
    by_path = {split.path: split for split in dataset.splits}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        path = st.selectbox("Split", list(by_path), key="hub-split", help="Only this one is fetched.")
        split = by_path[path]
        st.button(
            f"Fetch it, {split.n_bytes / MB:,.1f} MB",
            type="primary",
            icon=":material/download:",
            on_click=start,
            args=(FETCH, f"Fetching {dataset.id}, {path}", _fetch(dataset, split), dataset.id, dataset.revision, path),
            disabled=(view := current(FETCH)) is not None and view.active,
            key="hub-fetch",
        )


def _fetch(dataset: HubDataset, split: HubSplit) -> Work:
    """Return the job that fetches a split; its result is what `bring` takes."""

    def work(progress: Progress) -> tuple[str, Fetched]:
        return f"{dataset.id} {split.path}", fetch_split(dataset, split, progress)

    return work
