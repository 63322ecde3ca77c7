"""The Prompts page's probe suites: pictures without questions, of which the same few tasks are asked."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.guard.shared import is_shared
from vlm_analysis.prompts.images import IMAGE_SUFFIXES
from vlm_analysis.prompts.problems import problem_lines
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.prompts.sources import ARCHIVE_SUFFIXES
from vlm_analysis.prompts.suites import SUITES, Pictures, probe_prompts
from vlm_analysis.ui.common.incoming import use
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import chosen
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import counted
from vlm_analysis.workbench.shelf import open_item

SOURCES = ["Upload", "Folder", "Prompts in use"]


def suites_tab() -> None:
    """Draw the choice of suites and of pictures, and the button that makes prompts of them."""
    st.markdown(
        "The same few tasks, asked of every picture: then a heatmap of layers × tasks shows which layers a task needs, whatever the "
        "questions are. Nothing is scored, so no answers are needed."
    )
    picked = st.pills(
        "Suites",
        list(SUITES),
        selection_mode="multi",
        default=list(SUITES),
        format_func=lambda name: SUITES[name].title,
        key="suites",
        help="A suite becomes a domain. The tasks are those of arXiv:2603.20275; the wording is ours.",
    )
    with st.expander("What is asked"):
        for name in picked:
            rows = [f"- **{escaped(task)}**: {escaped(question)}" for task, question in SUITES[name].tasks.items()]
            st.markdown("\n".join([f"{SUITES[name].title}, {SUITES[name].source}:", *rows]))
    pictures, name = _ask_pictures()
    pressed = st.button(
        "Make the prompts",
        type="primary",
        icon=":material/quiz:",
        key="use-suites",
        disabled=pictures is None or not picked,
    )
    if pressed and pictures is not None:
        _take(pictures, list(picked), name)
    if isinstance(pictures, Path):
        same_line(line_of("record", pictures, suite=list(picked)))


def _ask_pictures() -> tuple[Pictures | None, str]:
    """Draw where the pictures come from; return them, None without any, and the name of the set."""
    sources = [one for one in SOURCES if one != "Folder" or not is_shared()]
    source = st.segmented_control(
        "Pictures from",
        sources,
        default="Upload",
        required=True,
        key="suite-source",
        help="Pictures only; no table is read.",
    )
    if source == "Upload":
        uploads = st.file_uploader(
            "Your pictures: drag them, a zip or a tar here, or browse",
            type=[ending.removeprefix(".") for ending in (*IMAGE_SUFFIXES, *ARCHIVE_SUFFIXES)],
            accept_multiple_files=True,
            key="suite-uploads",
        )
        return [(one.name, one.getvalue()) for one in uploads] or None, "My pictures"
    if source == "Folder":
        path = st.text_input(
            "Folder of pictures on this machine",
            placeholder="/data/photos",
            key="suite-folder",
            help="On the machine that Strata runs on; pictures at any depth, or a zip or tar of them.",
        ).strip(" \t\"'")
        return (Path(path), Path(path).name) if path else (None, "")
    item = chosen("prompts")
    if item is None:
        st.caption("No prompts are in use: choose some first, in another tab.")
        return None, ""
    return open_item(item), item.name


def _take(pictures: Pictures, suites: list[str], name: str) -> None:
    try:
        with st.spinner("Looking at the pictures"):
            prompts = probe_prompts(pictures, suites)
    except StrataError as error:
        st.error(escaped(error))
        return
    item = use(prompts, f"{name}, probe suite {' and '.join(suites)}")
    if item is not None:
        _said(prompts)


def _said(prompts: PromptSet) -> None:
    n_pictures = len({prompt.image_hashes for prompt in prompts})
    n_tasks = len({(prompt.domain, prompt.task) for prompt in prompts})
    st.success(
        escaped(
            f"{counted(n_pictures, 'picture')} × {counted(n_tasks, 'task')}: {counted(len(prompts), 'prompt')}, in use now."
        ),
        icon=":material/check:",
    )
    for line in problem_lines(prompts.problems):
        st.warning(escaped(line))
    st.page_link("pages/3_similarity.py", label="Record them, and see layers × tasks", icon=":material/grid_on:")
