"""What became of each answer, a card a prompt: its pictures, and what both models say, with the words that differ marked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import StrataError
from vlm_analysis.evaluation.answers import OUTCOMES, found
from vlm_analysis.evaluation.diff import Piece, word_diff
from vlm_analysis.evaluation.evaluation import ANSWERS, Evaluation
from vlm_analysis.evaluation.telling import GIVEN
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.ui.common.marks import MARKS, marked
from vlm_analysis.ui.common.promptcard import draw_prompt
from vlm_analysis.ui.common.session import opened, workspace
from vlm_analysis.ui.common.terms import explained
from vlm_analysis.ui.common.text import done_to, escaped
from vlm_analysis.ui.evaluate.asked import asked
from vlm_analysis.ui.evaluate.outcome import Outcome
from vlm_analysis.words import any_of, counted, sentence, total_of_domains
from vlm_analysis.workbench.written import written_responses

PAGE_SIZE = 12
COLOURS: dict[str, Any] = {"lost": "red", "gained": "green", "differs": "orange"}
COLOURS |= {"came back": "green", "still lost": "red", "broke": "red"}
UNKNOWN = "not written yet"
MARKED = "Words that only one of the two says are marked."
Ask = Callable[[str], None]
"""Goes to Ask both with the prompt of an id, as a button's callback."""


def draw_answers(outcome: Outcome, name: str, prompts: PromptSet | None, ask: Ask | None) -> None:
    """Draw the filters and the gallery of all answers that are left, the most harmed first.

    Args:
        name: tells the widgets of one evaluation from those of another.
        prompts: the evaluated prompts; None where they are not saved any more.
        ask: None where Ask both has other prompts or another mask.
    """
    st.subheader("What broke")
    evaluation = outcome.evaluation
    by_id = {} if prompts is None else {str(prompt.id): prompt for prompt in prompts}
    changes = _with_asked(_with_written(outcome.changes, evaluation), evaluation, by_id)
    st.text(_summary(changes, outcome.metric == "exact_match"))
    sides = {"dense_says": "Dense model", "edited_says": sentence(done_to(evaluation.edit))}
    advice = "tick “Write the responses” and evaluate again, or ask both."
    draw_gallery(changes, prompts, name, sides, OUTCOMES, f"The most harmed first. {MARKED}", advice, ask)


def draw_gallery(
    changes: pd.DataFrame,
    prompts: PromptSet | None,
    name: str,
    sides: Mapping[str, str],
    outcomes: Mapping[str, str],
    says: str,
    advice: str,
    ask: Ask | None = None,
) -> None:
    """Draw the filters, and a card for each answer that is left.

    Args:
        changes: rows of `answer_changes`.
        prompts, name, ask: as of `draw_answers`.
        sides: the columns with what models say, by which title each stands on the card; the first is what others are compared with.
        outcomes: what each outcome means, in the order of the filter.
        says: stands above the cards, with terms marked.
        advice: how what was not written is written.
    """
    by_id = {} if prompts is None else {str(prompt.id): prompt for prompt in prompts}
    if prompts is None:
        st.caption("The prompts are not saved any more: their pictures and questions are not shown.")
    shown, key = _filtered(changes, {name: prompt.question for name, prompt in by_id.items()}, name, outcomes)
    if shown.empty:
        st.caption("No answer fits. Take a filter away.")
        return
    explained(
        f"{says} [[answer_nll|NLL]]: the answer's above the dense model's, and [[kl_to_dense|KL]] to the dense model, in nats a token. "
        f"{_unwritten(shown, list(sides), advice)}"
    )
    grid = st.container()
    n_pages = -(-len(shown) // PAGE_SIZE)
    page = st.pagination(n_pages, key=key) if n_pages > 1 else 1
    with grid, st.grid(4, min_column_width=230):
        for row in shown.iloc[(page - 1) * PAGE_SIZE : page * PAGE_SIZE].to_dict("records"):
            with st.container(border=True, height="stretch", gap="xsmall"):
                _card(row, by_id.get(str(row["id"])), sides, ask, name)


def _summary(changes: pd.DataFrame, exact_tells: bool) -> str:
    counts = changes["outcome"].value_counts()
    if not exact_tells:
        return (
            f"In {counts.get('differs', 0)} of {counted(len(changes), 'answer')} the pruned model chooses another token than the dense "
            "one somewhere."
        )
    lost, gained, right = counts.get("lost", 0), counts.get("gained", 0), int(changes["dense_exact"].sum())
    missed = len(changes) - right
    text = f"Of {counted(right, 'prompt')} that the dense model answers exactly {lost} {_is(lost)} lost"
    text += f"; of {missed} that it misses {gained} {_is(gained)} now answered." if missed else "; it misses none."
    given = changes["answer_source"] == GIVEN
    if given.all():
        return text
    return (
        f"{text} With an answer of their own: {int((given & (changes['outcome'] == 'lost')).sum())} of "
        f"{int((given & changes['dense_exact']).sum())} are lost; the others are scored on what the dense model says itself."
    )


def _is(n: int) -> str:
    return "is" if n == 1 else "are"


def _with_written(changes: pd.DataFrame, evaluation: Evaluation) -> pd.DataFrame:
    """Return the rows with responses that other evaluations, or stories, hold of the same models, where this one has none."""
    for column, edit in (("dense_says", Edit(evaluation.edit.n_layers)), ("edited_says", evaluation.edit)):
        if changes[column].isna().any():
            said = written_responses(workspace(), evaluation.model.fingerprint, evaluation.prompts, edit, opened)
            texts = [
                said.get(name) if text is None else text
                for name, text in changes[["id", column]].itertuples(index=False)
            ]
            changes = changes.assign(**{column: pd.Series(texts, index=changes.index, dtype=object)})
    return changes


def _with_asked(changes: pd.DataFrame, evaluation: Evaluation, by_id: Mapping[str, Prompt]) -> pd.DataFrame:
    """Return the rows with responses of Ask both where it asked these very prompts, which are longer than an evaluation's may be."""
    here = [(key, kept) for key, kept in asked().items() if key.model == evaluation.model.fingerprint]
    if not here or not by_id:
        return changes
    dense = {(key.image_hashes, key.question): kept.dense for key, kept in here}
    edited = {(key.image_hashes, key.question): kept.pruned for key, kept in here if key.edit == evaluation.edit.key}
    asks = [_asks(by_id.get(str(name))) for name in changes["id"]]
    for column, said in (("dense_says", dense), ("edited_says", edited)):
        texts = [said.get(key, text) if key else text for key, text in zip(asks, changes[column], strict=True)]
        changes = changes.assign(**{column: pd.Series(texts, index=changes.index, dtype=object)})
    return changes


def _asks(prompt: Prompt | None) -> tuple[tuple[str, ...], str] | None:
    if prompt is None:
        return None
    try:
        return prompt.image_hashes, prompt.question
    except StrataError:  # a picture is gone
        return None


def _filtered(
    changes: pd.DataFrame, questions: Mapping[str, str], name: str, meanings: Mapping[str, str]
) -> tuple[pd.DataFrame, str]:
    """Draw the filters; returns the rows that are left, and a key that differs for other filters."""
    counts = changes["outcome"].value_counts()
    outcomes = [outcome for outcome in meanings if outcome in counts]
    domains = list(dict.fromkeys(changes["domain"]))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        outcome = st.segmented_control(
            "Answers",
            ["", *outcomes],
            default="",
            required=True,
            format_func=lambda one: f"{sentence(one) or 'All'} ({counts[one] if one else len(changes)})",
            key=f"gallery-outcome:{name}",
            help=" ".join(f"**{sentence(one)}**: {meanings[one]}" for one in outcomes),
        )
        whole = total_of_domains(domains, "All domains")
        domain = ""
        if len(domains) > 1:
            domain = st.selectbox(
                "Domain", ["", *domains], format_func=lambda one: one or whole, key=f"gallery-domain:{name}", width=220
            )
        search = st.text_input(
            "Search",
            placeholder="words of a question or an answer",
            key=f"gallery-search:{name}",
            icon=":material/search:",
            width=320,
            help="Looks through all prompts, not only those in view: ids, questions, answers and what both models say.",
        )
    shown = found(changes, questions, outcome=outcome, domain=domain, search=search)
    if len(shown) < len(changes):
        st.caption(f"{len(shown)} of {counted(len(changes), 'answer')}")
    return shown, f"gallery-page:{name}:{outcome}:{domain}:{search}"


def _unwritten(shown: pd.DataFrame, sides: list[str], advice: str) -> str:
    """Return how many prompts lack a response, and how they come to it; "" where none does."""
    n = int(shown[sides].isna().any(axis=1).sum())
    if not n:
        return ""
    lack = f"{counted(n, 'prompt')} here {'lacks' if n == 1 else 'lack'} a response"
    return f"{lack}: {advice}"


def _card(row: Mapping[Any, Any], prompt: Prompt | None, sides: Mapping[str, str], ask: Ask | None, name: str) -> None:
    """Draw one answer."""
    st.badge(str(row["outcome"]), color=COLOURS.get(str(row["outcome"]), "gray"))
    if prompt is None:
        st.text(str(row["id"]))
    else:
        draw_prompt(prompt)
    if prompt is None or row["answer_source"] != GIVEN:
        answers = row[ANSWERS] or [row["answer"]]
        given = sentence(any_of(len(answers)))
        st.caption(given if row["answer_source"] == GIVEN else f"Scored on the {row['answer_source']}")
        st.text("\n".join(map(str, answers)))
    first, *others = [row[column] for column in sides]
    pairs = [
        word_diff(first, other) if None not in (first, other) else (_plain(first), _plain(other)) for other in others
    ]
    shown = [pairs[0][0] if len(pairs) == 1 else _plain(first), *(pair[1] for pair in pairs)]
    for title, pieces, colour in zip(sides.values(), shown, (MARKS[0], *[MARKS[1]] * len(others)), strict=True):
        st.caption(title)
        st.markdown(f"*{UNKNOWN}*" if pieces is None else marked(pieces, colour))
    if row["edited_choice"] is not None:
        st.caption(f"Most likely choice: {escaped(row['dense_choice'] or '?')} → {escaped(row['edited_choice'])}")
    st.caption(
        f"NLL {row['extra_nll']:+.3g} · KL {row['kl_to_dense']:.3g} · {row['token_agreement']:.0%} of tokens agree"
    )
    if ask is not None:
        st.button(
            "Ask both",
            icon=":material/compare_arrows:",
            on_click=ask,
            args=(str(row["id"]),),
            key=f"ask:{name}:{row['id']}",
        )


def _plain(text: str | None) -> list[Piece] | None:
    return None if text is None else [Piece(text, False)]
