"""The Overview's parts: the answer of a story, the demo, the same for one's own, and the stages with their state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.errors import StreamlitPageNotFoundError

from vlm_analysis.errors import StrataError
from vlm_analysis.selection.compared.answerwords import choice_line, headline
from vlm_analysis.ui.common.downloads import PICTURE
from vlm_analysis.ui.common.editor import edit
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.pickers import edited_mask, pick_item
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import bench, choose, chosen, live, model_slot, opened, take_result, workspace
from vlm_analysis.ui.common.shell import go_on
from vlm_analysis.ui.common.text import does, escaped, what_it_does
from vlm_analysis.ui.common.work import BUNDLED, watched
from vlm_analysis.ui.overview.answerview import answer_so_far, answer_view
from vlm_analysis.ui.overview.report import hand_on
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
    if edited is not None and not edited.is_dense:
        return f"in the editor{f', {edited.name}' if edited.name else ''}: {does(edited)}"
    return "no mask yet" if item is None else f"saved, {item.name}: {what_it_does(item.details)}"


def demo_card() -> None:
    """Draw the demo's button, its progress, and the question where another model would have to make room; a link once there is a story."""
    told, view = bool(stories(workspace())), current(DEMO)
    busy = view is not None and view.active
    if told and not busy:
        _demo_button(st.container(horizontal=True, vertical_alignment="center"), False, "tertiary")
        job_panel(DEMO, so_far=lambda: _so_far(DEMO))
        return
    with st.container(border=True):
        left, right = st.columns([3, 1], vertical_alignment="center")
        left.markdown(
            "**See it work.** The demo takes Pocket-VL, a small model that comes with Strata, and 180 drawn prompts about "
            "looking and about arithmetic. On one half several methods choose layers to drop; on the other half it measures what "
            "stays. Nothing is downloaded."
        )
        _demo_button(right, busy, "primary", left)
        same_line(line_of("demo", model=False), key="demo_line")
        job_panel(DEMO, so_far=lambda: _so_far(DEMO))


def _demo_button(
    place: DeltaGenerator, busy: bool, look: Literal["primary", "tertiary"], beside: DeltaGenerator | None = None
) -> None:
    info = model_slot().info
    other = info is not None and info.name != BUNDLED
    allowed = not other or (beside or place).checkbox(
        f"Unload {escaped(info.name if info else '')} for the demo", key="demo_unload"
    )
    place.button(
        "Try the demo",
        type=look,
        icon=":material/play_arrow:",
        on_click=start,
        args=(DEMO, "Demo", watched(DEMO, bench().demo)),
        disabled=busy or not allowed,
        width="stretch" if look == "primary" else "content",
        help="Takes under a minute on two processor cores.",
    )


def own_story_card() -> None:
    """Draw the button that tells the same story of the loaded model on the prompts in use."""
    info, prompts = model_slot().info, chosen("prompts")
    if info is None or prompts is None:
        return
    about, busy = f"{info.name} on {prompts.name}", (view := current(OWN)) is not None and view.active
    with st.container(border=True):
        left, right = st.columns([3, 1], vertical_alignment="center")
        left.markdown(
            f"**The same with your own.** Compares the methods on **{escaped(about)}**: records one half, drops 1 to half of the layers "
            "by each method, and measures on the other half what stays."
        )
        right.button(
            "Tell its story",
            icon=":material/auto_stories:",
            on_click=start,
            args=(OWN, f"Story of {about}", watched(OWN, bench().tell_story, prompts), prompts.id, info.fingerprint),
            disabled=busy,
            width="stretch",
            help="About fifty evaluations of the prompts; on a large model that takes long. Cancel at any time.",
        )
        job_panel(OWN, so_far=lambda: _so_far(OWN))


def _so_far(kind: str) -> None:
    """Draw the answer of a running job as soon as its masks are measured."""
    partial, view = live().get(kind), current(kind)
    if partial is not None and view is not None:
        answer_so_far(view.id, partial[0])


def story_view() -> None:
    """Draw the answer of the story chosen, then which it is, or say that there is none yet."""
    for kind in (DEMO, OWN):
        if (item := take_result(kind)) is not None:
            _go_on_with(item)
    answer = st.container()
    if not stories(workspace()):
        st.caption("No result yet. Try the demo, or start with a model of your own on the Model page.")
        return
    item = pick_item("stories", "Story", "The demo's and your own. Each opens without the model.", stories(workspace()))
    if item is None:
        return
    try:
        story = _opened_story(item.id, str(workspace().root), item)
        with answer:
            if item.kind == "stories":
                _story_of_0_1(story, item)
            else:
                answer_view(item, opened(item), story.recording)
    except StrataError as error:
        answer.error(escaped(error))
        return
    go_on("pages/5_evaluate.py", "Compare all criteria and strategies under Many masks")


def _story_of_0_1(story: Story, item: Item) -> None:
    """Draw a story that version 0.1 saved: the answer of its one mask, and its pictures."""
    from vlm_analysis.export.story import answer_in, story_sections

    answer = answer_in(story)
    st.subheader(escaped(headline(answer)))
    st.caption(
        f"{escaped(choice_line(answer))} Version 0.1 kept one mask with its scores, so there is no slider: try the demo again for one."
    )
    hand_on(item, None)
    for index, section in enumerate(story_sections(story)):
        with st.container(border=True):
            st.markdown(f"**{escaped(section.heading)}**")
            st.text(section.text)
            if section.figure is not None:
                st.plotly_chart(section.figure, key=f"story-{index}", config=PICTURE, alt=section.heading)
            if section.table is not None:
                widths = {name: st.column_config.TextColumn(width="medium") for name in section.table.columns[1:]}
                st.dataframe(
                    section.table,
                    hide_index=True,
                    width="stretch",
                    row_height=64,
                    column_config=widths,
                    alt=section.heading,
                )


def _go_on_with(story: Item) -> None:
    """Work with a story that was just made, and with its recording, mask and evaluation on the other pages."""
    choose("stories", story)
    choose("comparisons", story)
    for kind in PARTS:
        if (part := workspace().find(kind, str(story.details.get(kind)))) is not None:
            choose(kind, part)
    mask = workspace().find("masks", str(story.details.get("masks")))
    if mask is not None:
        kept = opened(mask)
        edit(kept, kept.model)


@st.cache_resource(show_spinner=False, max_entries=4)
def _opened_story(item_id: str, root: str, _item: Item) -> Story:
    return open_saved_story(workspace(), _item)
