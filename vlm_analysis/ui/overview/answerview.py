"""The answer on the Overview: a sentence, its curve with a slider, the mask, six answers, and why. All parts move with the slider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import StrataError
from vlm_analysis.evaluation.cost import Cost
from vlm_analysis.prompts.prompts import Prompt
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.compared.answer import Answer, Example, answer_of
from vlm_analysis.selection.compared.answerwords import (
    choice_line,
    difference_title,
    examples_title,
    headline,
    provenance,
    retention_title,
    similarity_title,
    tolerance_line,
)
from vlm_analysis.selection.compared.comparison import Comparison
from vlm_analysis.ui.common import drafts
from vlm_analysis.ui.common.downloads import PICTURE
from vlm_analysis.ui.common.editor import edit
from vlm_analysis.ui.common.marks import MARKS, marked
from vlm_analysis.ui.common.promptcard import draw_text, picture_alt
from vlm_analysis.ui.common.session import opened, workspace
from vlm_analysis.ui.common.terms import explained
from vlm_analysis.ui.common.text import edit_line, escaped
from vlm_analysis.ui.overview.report import hand_on
from vlm_analysis.words import counted, sentence
from vlm_analysis.workbench.costs import find_costs
from vlm_analysis.workbench.workspace import Item

LAYERS, SMALLER, FASTER = "layers", "% smaller", "% faster"
COLOURS: dict[str, Any] = {"lost": "red", "gained": "green", "kept": "blue"}
PICTURE_PX = 88
MASKS = "pages/4_masks.py"


@st.fragment
def answer_view(item: Item, comparison: Comparison, recording: Recording) -> None:
    """Draw the answer of a saved comparison at the budget of its slider; only this part runs again when the slider moves."""
    key = f"answer-budget:{item.id}"
    costs = tuple(_costs(comparison))
    first = _answer(item.id, None, _timed(costs), comparison, costs)
    if st.session_state.get(key) not in first.budgets:
        st.session_state[key] = first.budget
    answer = _answer(item.id, st.session_state[key], _timed(costs), comparison, costs)
    st.subheader(escaped(headline(answer)), help=escaped(tolerance_line(answer)))
    st.caption(escaped(choice_line(answer)))
    _curve(answer)
    _slider(first, key)
    _strip(answer)
    _examples(answer, _prompts(item))
    _why(answer, recording)
    hand_on(item, answer.budget)
    _provenance(answer, item)


def answer_so_far(job_id: str, comparison: Comparison) -> None:
    """Draw what a comparison answers whose responses and times are still measured by this job."""
    answer = _answer(job_id, None, "", comparison, ())
    st.markdown(f"**{escaped(headline(answer))}**")
    st.caption(f"{escaped(choice_line(answer))} What the pruned models say, and times, are still measured.")
    _curve(answer, "answer-so-far")


@st.cache_resource(show_spinner=False, max_entries=64)
def _answer(item_id: str, budget: int | None, timed: str, _comparison: Comparison, _costs: tuple[Cost, ...]) -> Answer:
    return answer_of(_comparison, budget, costs=_costs)


def _costs(comparison: Comparison) -> list[Cost]:
    """Return what was timed of the comparison's masks, the newest first."""
    keys = {mask.key for mask in comparison.masks}
    found, _ = find_costs(workspace(), comparison.dense.model.fingerprint, None, opened=opened)
    return [cost for cost in found if cost.edit.key in keys]


def _timed(costs: tuple[Cost, ...]) -> str:
    return " ".join(f"{cost.edit.key}:{cost.prefill_ms.sum()}" for cost in costs)


def _curve(answer: Answer, key: str = "answer-curve") -> None:
    from vlm_analysis.figures.answers import answer_curve

    st.markdown(f"**{escaped(retention_title(answer))}**")
    figure = answer_curve(answer.curve, answer.others, answer.budget)
    st.plotly_chart(figure, key=key, config=PICTURE, alt=retention_title(answer))


def _slider(first: Answer, key: str) -> None:
    """Draw the slider of the budget and what it counts in."""
    if len(first.budgets) < 2:
        st.caption(
            "One mask was compared, so there is no slider. Try the demo again, or tell the story again, for one."
        )
        return
    labels = _labels(first)
    left, right = st.columns([3, 7], vertical_alignment="bottom")
    unit = left.segmented_control(
        "Count in",
        list(labels),
        default=LAYERS,
        required=True,
        key="answer-unit",
        persist_state="session",
        help="Layers dropped, parameters saved, or how much faster a forward pass is.",
    )
    widget = f"{key}:{unit}"  # a slider whose words change starts anew in the browser, so each unit has its own
    st.session_state[widget] = st.session_state[key]
    right.select_slider(
        "Budget",
        first.budgets,
        format_func=lambda budget: labels[unit][budget],
        key=widget,
        on_change=_slid,
        args=(widget, key),
        help=escaped(tolerance_line(first)),
    )


def _slid(widget: str, key: str) -> None:
    """Keep the budget of a slider, as its callback."""
    st.session_state[key] = st.session_state[widget]


def _labels(answer: Answer) -> dict[str, dict[int, str]]:
    """Return the words for each budget, by unit; "% faster" only where times are known."""
    rows = answer.curve[answer.curve["budget"] > 0].drop_duplicates("budget").sort_values("budget")
    saved, times = (dict(zip(answer.budgets, rows[name].tolist(), strict=True)) for name in ("saved", "times"))
    layers = {budget: counted(budget, "layer") for budget in answer.budgets}
    labels = {LAYERS: layers}
    labels[SMALLER] = {budget: f"{100 * share:.0f} % smaller · {layers[budget]}" for budget, share in saved.items()}
    if rows["times"].notna().all():
        labels[FASTER] = {
            budget: f"{100 * (ratio - 1):.0f} % faster · {layers[budget]}" for budget, ratio in times.items()
        }
    return labels


def _strip(answer: Answer) -> None:
    """Draw the mask, and the button that takes it into the editor."""
    from vlm_analysis.figures.answers import in_line
    from vlm_analysis.figures.heatmaps import edit_strips

    left, right = st.columns([4, 1], vertical_alignment="center")
    left.markdown(f"**{escaped(edit_line(answer.edit))}**")
    right.button(
        "Edit this mask",
        icon=":material/edit:",
        key="answer-edit",
        on_click=_edit,
        args=(answer.edit, answer),
        width="stretch",
        help="Takes it into the mask editor; Undo there brings the mask before it back.",
    )
    if st.session_state.pop("answer-go", False):
        st.switch_page(MASKS)
    figure = in_line(edit_strips([("mask", answer.edit)], answer.edit.n_layers, locks=answer.model.locks))
    figure.update_yaxes(ticktext=["mask"]).update_layout(height=120)
    st.plotly_chart(figure, key="answer-strip", config=PICTURE, alt=f"The mask: {edit_line(answer.edit)}")


def _edit(mask: Edit, answer: Answer) -> None:
    edit(mask, answer.model)
    st.session_state["answer-go"] = True


def _prompts(item: Item) -> Mapping[str, Prompt]:
    """Return the reported prompts by id; none where they are not saved any more."""
    saved = workspace().find("prompts", str(item.details.get("prompts")))
    try:
        return {} if saved is None else {str(prompt.id): prompt for prompt in opened(saved)}
    except StrataError:
        return {}


def _examples(answer: Answer, prompts: Mapping[str, Prompt]) -> None:
    """Draw a card an example: picture, question, and what both models say."""
    st.markdown(f"**{escaped(examples_title(answer))}**")
    if not answer.examples:
        st.caption("No answers were kept with this comparison.")
        return
    with st.grid(3, min_column_width=230):
        for example in answer.examples:
            with st.container(border=True, height="stretch", gap="xsmall"):
                _card(example, prompts.get(example.id))


def _card(example: Example, prompt: Prompt | None) -> None:
    st.badge(sentence(example.outcome), color=COLOURS[example.outcome])
    with st.container(horizontal=True):
        _picture(prompt)
        with st.container(width="stretch", gap="xsmall"):
            draw_text(example.question)
            for title, pieces, colour in zip(("Before", "After"), (example.dense, example.edited), MARKS, strict=True):
                st.markdown(f":small[:gray[{title}]] {marked(pieces, colour)}")


def _picture(prompt: Prompt | None) -> None:
    if prompt is None:
        st.caption("The picture is not saved any more.")
        return
    try:
        hashes = prompt.image_hashes
        if hashes:
            st.image(drafts.preview(hashes[0], prompt, 0), width=PICTURE_PX, alt=picture_alt(prompt, 0))
    except StrataError as error:
        st.caption(escaped(error))


def _why(answer: Answer, recording: Recording) -> None:
    """Draw what layers do to their input, by domain, their columns below the mask's."""
    from vlm_analysis.export.story import domain_rows
    from vlm_analysis.figures.answers import in_line
    from vlm_analysis.figures.heatmaps import difference_heatmap, similarity_heatmap

    names, locks = recording.domain_names, recording.model.locks
    st.markdown(f"**Why: {escaped(similarity_title(recording)[:1].lower() + similarity_title(recording)[1:])}**")
    figure = similarity_heatmap(domain_rows(recording), names, dropped=answer.edit.dropped, locks=locks)
    st.plotly_chart(in_line(figure), key="answer-similarity", config=PICTURE, alt=similarity_title(recording))
    explained(
        "[[similarity|Cosine]] of each [[layer|layer's]] input and output, from 0 to 0.999. × is dropped; [[protected|P stays]]: the "
        "first, the last, and vision layers."
    )
    if len(names) != 2:
        return
    gap = recording.layer_similarity(names[0]) - recording.layer_similarity(names[1])
    st.markdown(f"**{escaped(difference_title(recording))}**")
    figure = in_line(difference_heatmap(gap[None], ["difference"])).update_layout(height=110)
    st.plotly_chart(figure, key="answer-difference", config=PICTURE, alt=difference_title(recording))
    st.caption(escaped(f"Similarity on {names[0]} minus similarity on {names[1]}: blue layers change {names[0]} more."))


def _provenance(answer: Answer, item: Item) -> None:
    with st.expander("Where this comes from"):
        rows = [
            *provenance(answer),
            ("Kept, by domain", _kept_words(answer)),
            ("Saved", item.created[:16].replace("T", " ")),
        ]
        for name, prompts in (("Prompts to choose", "chosen_on"), ("Prompts to report", "prompts")):
            saved = workspace().find("prompts", str(item.details.get(prompts)))
            rows += [(name, saved.name)] if saved is not None else []
        st.table(pd.DataFrame(rows, columns=["", " "]).set_index("").map(escaped), alt="Where this answer comes from")


def _kept_words(answer: Answer) -> str:
    """Return each domain's counts and retention, with its interval."""
    words = []
    for one in answer.kept:
        counts = f"{one.stay} of {one.of} stay, {one.gained} gained, " if answer.metric == "exact_match" else ""
        interval = "" if np.isnan(one.low) else f" (90 % interval {100 * one.low:.0f} to {100 * one.high:.0f} %)"
        value = "not defined" if np.isnan(one.value) else f"{100 * one.value:.0f} %"
        words.append(f"{one.domain}: {counts}retention {value}{interval}")
    return "; ".join(words)
