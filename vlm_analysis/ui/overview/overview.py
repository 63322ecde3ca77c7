"""The Overview's parts: the stages with their state, the demo, and its story."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st
from streamlit.errors import StreamlitPageNotFoundError

from vlm_analysis.errors import StrataError
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.pickers import edited_mask, pick_item
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import bench, choose, chosen, model_slot, take_result, workspace
from vlm_analysis.ui.common.shell import go_on
from vlm_analysis.ui.common.text import escaped, layer_list
from vlm_analysis.ui.common.work import job
from vlm_analysis.workbench.stories import PARTS, open_saved_story, stories
from vlm_analysis.workbench.workspace import Item

if TYPE_CHECKING:
    from vlm_analysis.export.story import Story

DEMO, OWN = "demo", "story"


def stages() -> None:
    """Draw one card a stage of the flow: what is there, or what to do."""
    info = model_slot().info
    state = {
        ("Model", "pages/1_model.py"): "none loaded" if info is None else f"{info.name}, {info.n_layers} layers",
        ("Prompts", "pages/2_prompts.py"): _name(chosen("prompts"), "no set yet"),
        ("Recording", "pages/3_similarity.py"): _name(chosen("recordings"), "nothing recorded"),
        ("Mask", "pages/4_masks.py"): _mask_state(),
        ("Evaluation", "pages/5_evaluate.py"): _name(chosen("evaluations"), "nothing evaluated"),
    }
    for column, ((stage, page), text) in zip(st.columns(len(state)), state.items(), strict=True):
        with column, st.container(border=True, height="stretch"):
            try:
                st.page_link(page, label=f"**{stage}**")
            except StreamlitPageNotFoundError:
                st.markdown(f"**{stage}**")
            st.text(text)


def _name(item: Item | None, empty: str) -> str:
    return empty if item is None else item.name


def _mask_state() -> str:
    edited, item = edited_mask(), chosen("masks")
    if edited is not None and edited.budget:
        return f"in the editor{f', {edited.name}' if edited.name else ''}: drops {layer_list(edited.dropped)}"
    return "no mask yet" if item is None else f"saved, {item.name}: drops {layer_list(item.details.get('dropped', []))}"


def demo_card() -> None:
    """Draw the demo's button, its progress, and the question where another model would have to make room."""
    info, busy = model_slot().info, (view := current(DEMO)) is not None and view.active
    other = info is not None and info.name != "pocket-vl"
    with st.container(border=True):
        left, right = st.columns([3, 1], vertical_alignment="center")
        left.markdown(
            "**See it work.** The demo takes Pocket-VL, a small model that comes with Strata, and 90 drawn prompts about "
            "looking and about arithmetic; records how much each layer does, lets several methods drop layers, and "
            "measures what breaks. Nothing is downloaded."
        )
        allowed = not other or left.checkbox(
            f"Unload {escaped(info.name if info else '')} for the demo", key="demo_unload"
        )
        right.button(
            "Try the demo",
            type="primary",
            icon=":material/play_arrow:",
            on_click=start,
            args=(DEMO, "Demo", job(bench().demo)),
            disabled=busy or not allowed,
            width="stretch",
            help="Takes under a minute on two processor cores.",
        )
        same_line(line_of("demo", model=False))
        job_panel(DEMO)


def own_story_card() -> None:
    """Draw the button that tells the same story of the loaded model on the prompts in use."""
    info, prompts = model_slot().info, chosen("prompts")
    if info is None or prompts is None:
        return
    about, busy = f"{info.name} on {prompts.name}", (view := current(OWN)) is not None and view.active
    with st.container(border=True):
        left, right = st.columns([3, 1], vertical_alignment="center")
        left.markdown(
            f"**The same with your own.** Compares the methods on **{escaped(about)}**: records, drops 1 to half of the layers "
            "by each method, and measures what breaks."
        )
        right.button(
            "Tell its story",
            icon=":material/auto_stories:",
            on_click=start,
            args=(OWN, f"Story of {about}", job(bench().tell_story, prompts), prompts.id, info.fingerprint),
            disabled=busy,
            width="stretch",
            help="About fifty evaluations of the prompts; on a large model that takes long. Cancel at any time.",
        )
        job_panel(OWN)


def story_view() -> None:
    """Draw the story chosen, or say that there is none yet."""
    from vlm_analysis.export.story import story_sections
    from vlm_analysis.export.story_forms import story_html

    for kind in (DEMO, OWN):
        if (item := take_result(kind)) is not None:
            _go_on_with(item)
    item = pick_item("stories", "Story", "The demo's and your own. Each opens without the model.", stories(workspace()))
    if item is None:
        st.caption("No result yet. Try the demo, or start with a model of your own on the Model page.")
        return
    try:
        story = _opened_story(item.id, str(workspace().root), item)
    except StrataError as error:
        st.error(escaped(error))
        return
    left, right = st.columns([3, 1], vertical_alignment="center")
    left.subheader(escaped(story.title))
    right.download_button(
        "Download as HTML",
        data=lambda: story_html(story),
        file_name="strata-story.html",
        mime="text/html",
        icon=":material/download:",
        on_click="ignore",
        width="stretch",
        help="One file with all pictures that opens without a network.",
    )
    for index, section in enumerate(story_sections(story)):
        with st.container(border=True):
            st.markdown(f"**{escaped(section.heading)}**")
            st.text(section.text)
            if section.figure is not None:
                st.plotly_chart(section.figure, key=f"story-{index}", config={"displayModeBar": False})
            if section.table is not None:
                widths = {name: st.column_config.TextColumn(width="medium") for name in section.table.columns[1:]}
                st.dataframe(section.table, hide_index=True, width="stretch", row_height=64, column_config=widths)

    go_on("pages/5_evaluate.py", "Compare all criteria and strategies under Many masks")


def _go_on_with(story: Item) -> None:
    """Work with a story that was just made, and with its recording, mask and evaluation on the other pages."""
    choose("stories", story)
    choose("comparisons", story)
    for kind in PARTS:
        if (part := workspace().find(kind, str(story.details.get(kind)))) is not None:
            choose(kind, part)


@st.cache_resource(show_spinner=False, max_entries=4)
def _opened_story(item_id: str, root: str, _item: Item) -> Story:
    return open_saved_story(workspace(), _item)
