"""The answers of prompts with their pivots marked: the marks of steps, near which width is protected."""

from __future__ import annotations

import html
from collections.abc import Sequence

import streamlit as st

from vlm_analysis.evaluation.pivots import PARTS, Pivot, find_pivots
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.ui.common.inputs import forget_unknown
from vlm_analysis.ui.common.pickers import open_or_stop
from vlm_analysis.ui.common.promptcard import draw_text
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import counted
from vlm_analysis.workbench.workspace import Item

MOST_LISTED = 200
MOST_SHOWN = 4000  # characters of an answer
NAMES = {
    "step": "step",
    "number": "numbered line",
    "order": "order",
    "therefore": "conclusion",
    "so": "conclusion",
    "equation": "equation",
}
STYLE = """<style>
.strata-answer { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; line-height: 2; }
.strata-answer mark { color: #10202c; background: #F0C36A; border-radius: 3px; padding: 0.1em 0.2em; font-weight: 600; }
.strata-answer mark small { font-weight: 400; margin-left: 0.3em; }
</style>"""


def draw_pivots(prompts: Item) -> None:
    """Draw an answer of the prompts with its pivots marked, those with most pivots first in the list."""
    prompt_set: PromptSet = open_or_stop(prompts)
    counts = _counts(prompts.id, prompt_set)
    marked = sum(count > 0 for count in counts)
    with_answer = sum(bool(prompt.answer) for prompt in prompt_set)
    if not marked:
        st.markdown(
            f"None of {counted(with_answer, 'reference answer')} has a mark of a step: there is nothing to protect, and all answer tokens "
            "count alike, but for long answers, which are split evenly."
        )
    order = sorted(range(len(counts)), key=lambda place: -counts[place])[:MOST_LISTED]
    forget_unknown("width_answer", order)
    place = st.selectbox(
        "Answer of the prompt",
        order,
        format_func=lambda one: f"{prompt_set[one].id} · {counted(counts[one], 'pivot')}",
        key="width_answer",
        help=f"{marked} of {with_answer} reference answers have pivots; those with most come first, at most {MOST_LISTED}.",
    )
    prompt = prompt_set[place]
    draw_text(prompt.question)
    if not prompt.answer:
        st.caption("No reference answer: the dense model's own response is scored, and its pivots count.")
        return
    pivots = find_pivots(prompt.answer)
    st.html(marked_html(prompt.answer, pivots))
    if pivots:
        told = ", ".join(f"“{prompt.answer[one.start : one.end].strip()}” ({NAMES[one.mark]})" for one in pivots[:12])
        st.caption(escaped(f"{counted(len(pivots), 'pivot')}: {told}{' and more' if len(pivots) > 12 else ''}."))
    else:
        st.caption(
            f"No pivot: nothing in this answer is protected. An answer of two windows or more is split into {PARTS} even parts instead."
        )


@st.cache_resource(show_spinner=False, max_entries=8)
def _counts(item_id: str, _prompts: PromptSet) -> list[int]:
    return [len(find_pivots(prompt.answer or "")) for prompt in _prompts]


def marked_html(answer: str, pivots: Sequence[Pivot]) -> str:
    """Return an answer as HTML with its pivots marked, each with its kind in words; all else is escaped.

    >>> marked_html("so 2", [Pivot("so", 0, 2)]).split("</style>")[1]
    '<p class="strata-answer"><mark>so<small>conclusion</small></mark> 2</p>'
    """
    shown, parts, at = answer[:MOST_SHOWN], [], 0
    for pivot in pivots:
        if pivot.start < at or pivot.end > len(shown):
            continue  # in one that is marked already, or behind what is shown
        parts.append(html.escape(shown[at : pivot.start]))
        parts.append(f"<mark>{html.escape(shown[pivot.start : pivot.end])}<small>{NAMES[pivot.mark]}</small></mark>")
        at = pivot.end
    rest = html.escape(shown[at:]) + (" …" if len(answer) > MOST_SHOWN else "")
    return f'{STYLE}<p class="strata-answer">{"".join(parts)}{rest}</p>'
