"""What a comparison of many masks shows: retention over budgets, regimes, the front, and every mask in a table."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.intervals import LEAST_GROUPS
from vlm_analysis.evaluation.telling import telling_line, title_of
from vlm_analysis.selection.compared.answer import Answer, answer_of
from vlm_analysis.selection.compared.answerwords import choice_line, headline, tolerance_line
from vlm_analysis.selection.compared.comparison import CHOICE_METRICS, Comparison
from vlm_analysis.selection.compared.findings import (
    cost_curve,
    mask_table,
    retention_curves,
    telling,
)
from vlm_analysis.selection.compared.published import READING_OF, published_curves
from vlm_analysis.selection.compared.skipping import taken_line
from vlm_analysis.selection.compared.verdicts import (
    ALPHA,
    FAMILY,
    family_of,
    family_words,
    member_title,
    members_of,
    regime_words,
    regimes,
)
from vlm_analysis.selection.strategies.domain_aware import PAPER
from vlm_analysis.selection.strategies.many import RANDOM
from vlm_analysis.ui.common.address import follow, tell
from vlm_analysis.ui.common.downloads import PICTURE, offer_files
from vlm_analysis.ui.common.editor import edit
from vlm_analysis.ui.common.pickers import agree_on_model, edited_mask, open_or_stop, pick_item
from vlm_analysis.ui.common.session import model_slot
from vlm_analysis.ui.common.shell import go_on, say_set_aside
from vlm_analysis.ui.common.terms import explained
from vlm_analysis.ui.common.text import METRIC_HELP, does, escaped
from vlm_analysis.ui.evaluate.comparecolumns import column_config
from vlm_analysis.ui.evaluate.evaluateview import say_answer_source
from vlm_analysis.ui.evaluate.frontview import Y_MAX, draw_front
from vlm_analysis.words import METRIC_TITLES, counted, in_groups, joined

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_DOMAINS = 6
MOST_BANDS = 3
# How the cache tells parts of a comparison apart.
BY_DOMAINS: dict[str | type, Any] = {Comparison: lambda comparison: comparison.domains}
METRICS = ("exact_match", "token_agreement", "kl_to_dense", "answer_nll", *CHOICE_METRICS)
RULE = (
    "**Spread** is the standard deviation between the different masks that the family chooses (masks of several methods count once, the "
    "mean of random draws counts as one), **noise** what it stays below in 95 % of cases if all are equally good, **gain** the mean "
    "advantage of the same criteria with no two neighbours dropped, with its own 90 % interval. A budget is *ranking-sensitive* (R) where "
    "the spread is more than noise, *structure-dominated* (S) where spacing helps, *spacing hurts* (H) where it does harm, the larger of "
    "spread and gain deciding where both hold, and *converging* (C) otherwise: these prompts cannot tell the rankings apart there. The "
    f"tests behind all verdicts on this page (Cochran's Q; the signs of the gains) are corrected together, at {ALPHA:.0%}. Prompts that "
    f"share a picture are one group. There is no verdict for fewer than two methods, or fewer than {LEAST_GROUPS} groups of prompts that "
    "the dense model answers. The regimes are those of arXiv:2603.20275 but for *spacing hurts*; this rule, its numbers too, is our choice."
)


def compare_view() -> None:
    """Draw a saved comparison."""
    item = pick_item("comparisons", "Comparison", "Saved comparisons open without the model.")
    if item is None:
        st.caption("Nothing compared yet.")
        return
    comparison: Comparison = open_or_stop(item)
    _say_how_chosen(comparison)
    _say_answer(item.id, comparison)
    first = telling(comparison)
    if line := telling_line(first):
        st.info(escaped(line))
    metrics = [name for name in METRICS if name in comparison.scores] + [first] * (first not in METRICS)
    follow("metric", f"compare_metric:{item.id}", metrics)
    metric = st.segmented_control(
        "Retention of",
        metrics,
        default=first,
        required=True,
        format_func=METRIC_TITLES.__getitem__,
        key=f"compare_metric:{item.id}",
        persist_state="session",
        help=" ".join(
            f"**{METRIC_TITLES[name]}**: {METRIC_HELP[name]}" for name in METRICS if name in comparison.scores
        ),
    )
    tell("metric", metric)
    table = _table(item.id, metric, comparison)
    selection = comparison.only(_pick_domains(comparison, item.id))
    picked = _curves(selection, item.id, metric, _best_methods(comparison, table))
    _regimes(selection, item.id, metric)
    draw_front(comparison, item.id, metric, table, picked, selection.domains)
    _masks(comparison, table, metric)


def _say_how_chosen(comparison: Comparison) -> None:
    n = len(comparison.dense.by_prompt)
    if comparison.n_shared:
        st.warning(
            f"{comparison.n_shared} of the {counted(n, 'prompt')} reported on were also used to choose the masks, or "
            f"share a picture with one that "
            "was: the numbers flatter the rankings. Choose on one half and report on the other to know."
        )
    else:
        st.caption(f"{in_groups(n, comparison.dense.n_groups)}, none of which the masks were chosen on.")
    say_set_aside(comparison.dense.set_aside, n)
    say_answer_source(comparison.dense)
    if line := taken_line(comparison):
        st.caption(escaped(line))
    _say_what_is_missing(comparison)


def _say_answer(item_id: str, comparison: Comparison) -> None:
    """Say which layers can go, where masks were chosen on prompts of their own."""
    if comparison.choosing is None:
        return
    with suppress(EvaluationError):  # no mask drops a layer
        answer = _answer(item_id, comparison)
        st.subheader(escaped(headline(answer)), help=escaped(tolerance_line(answer)))
        st.caption(escaped(f"{choice_line(answer)} Drops {joined(answer.edit.dropped)}, by “{answer.method}”."))


@st.cache_resource(show_spinner=False, max_entries=4)
def _answer(item_id: str, _comparison: Comparison) -> Answer:
    return answer_of(_comparison)


def _say_what_is_missing(comparison: Comparison) -> None:
    """Name the methods without a mask at some budgets, and apart from them those without any, with the reason."""
    groups = comparison.ways.groupby("method")["budget"].agg(set)
    every = set().union(*groups)
    few: dict[str, list[str]] = {}
    none: dict[str, list[str]] = {}
    for method, reason in comparison.left_out.items():
        if lacking := sorted(every - groups.get(method, every)):
            few.setdefault(", ".join(map(str, lacking)), []).append(method)
        else:
            none.setdefault(reason, []).append(method)
    for budgets, methods in few.items():
        with st.expander(f"{counted(len(methods), 'method')} without a mask at budget {budgets}"):
            st.markdown(escaped("; ".join(methods)))
    if none:
        with st.expander(f"Why masks of {counted(sum(map(len, none.values())), 'method')} are missing"):
            for reason, methods in none.items():
                st.markdown(f"{escaped(reason)} — {escaped('; '.join(methods))}")


def _pick_domains(comparison: Comparison, item_id: str) -> Sequence[str]:
    """Return the domains to draw; where there are too many for one look, draw the choice of them."""
    known = comparison.domains
    if len(known) <= MOST_DOMAINS:
        return known
    first = known[:MOST_DOMAINS]
    picked = st.multiselect(
        "Domains drawn",
        known,
        default=first,
        key=f"compare_domains:{item_id}",
        max_selections=MOST_DOMAINS,
        persist_state="session",
        help=f"Curves and regimes are drawn of up to {MOST_DOMAINS} domains at a time; without a choice, of the first.",
    )
    shown = picked or first
    st.caption(
        f"{len(known) - len(shown)} of {counted(len(known), 'domain')} are not drawn. The worst domain and the table "
        f"of all masks count every one."
    )
    return shown


@st.cache_resource(show_spinner=False, max_entries=8, hash_funcs=BY_DOMAINS)
def _curve_frame(item_id: str, metric: str, drawn: Comparison) -> pd.DataFrame:
    return retention_curves(drawn, metric)


@st.cache_resource(show_spinner=False, max_entries=8, hash_funcs=BY_DOMAINS)
def _regime_frame(item_id: str, metric: str, family: tuple[str, ...], drawn: Comparison) -> pd.DataFrame:
    return regimes(drawn, metric, family)


@st.cache_resource(show_spinner=False, max_entries=4, hash_funcs=BY_DOMAINS)
def _curve_chart(
    item_id: str, metric: str, picked: tuple[str, ...], methods: tuple[str, ...], drawn: Comparison
) -> Figure:
    from vlm_analysis.figures.curves import retention_curve

    frame = _curve_frame(item_id, metric, drawn)
    published = pd.concat([published_curves(drawn, one) for one in methods]) if methods else None
    return retention_curve(frame, y_max=Y_MAX, bands=picked, cost=cost_curve(drawn), published=published)


def _pick_published(item_id: str) -> tuple[str, ...]:
    """Draw the choice of published curves; none is laid over the chart without it."""
    picked = st.pills(
        f"Published curves of other models, {PAPER}",
        list(READING_OF),
        selection_mode="multi",
        key=f"compare_published:{item_id}",
        help="Thin dashed lines: retention of Qwen3-VL-2B and 4B, tuned after pruning, over the dense models as they were; the mean over "
        "the paper's benchmarks is ours. A domain named math has its math benchmarks, every other its general ones.",
    )
    return tuple(picked)


@st.cache_resource(show_spinner=False, max_entries=4)
def _table(item_id: str, metric: str, _comparison: Comparison) -> pd.DataFrame:
    return mask_table(_comparison, metric)


def _curves(drawn: Comparison, item_id: str, metric: str, best: list[str]) -> tuple[str, ...]:
    """Draw retention over budgets; return the methods brought out, in the order of their colours."""
    frame = _curve_frame(item_id, metric, drawn)
    methods = [method for method in dict.fromkeys(frame["method"]) if method != RANDOM]
    choice = st.multiselect(
        "Methods with bands",
        methods,
        default=best[:MOST_BANDS],
        key=f"compare_methods:{item_id}",
        max_selections=MOST_BANDS,
        help="These are drawn with their 90 % interval over prompts, the others as thin grey lines with their names under the mouse. "
        "Given are the three that keep most of their worst domain on these prompts, mean over the budgets; methods that fall together "
        "with one of them are passed over.",
    )
    picked = tuple(method for method in methods if method in choice)
    published = _pick_published(item_id)
    st.plotly_chart(
        _curve_chart(item_id, metric, picked, published, drawn),
        key="compare-curves",
        config=PICTURE,
        alt="Retention over layers dropped, by method",
    )
    beyond = ""
    if (frame[["value", "high"]] > Y_MAX).any(axis=None):
        beyond = f" A triangle at the top is a value above {Y_MAX}, shown under the mouse; bands end there."
    explained(
        "[[retention|Pruned over dense score]]; the grey band is the range of the random draws, the dashed line the parameters left "
        "(right axis). Bands are 90 % [[interval|intervals]] over [[group|groups]] of these prompts: of right or wrong answers from "
        f"counts, else by Student's t; below {LEAST_GROUPS} groups there is "
        f"none. Above 1 the pruned model answers more prompts than the dense one.{beyond}"
    )
    return picked


def _best_methods(comparison: Comparison, table: pd.DataFrame) -> list[str]:
    """Return the methods in the order of their worst domain's retention, mean over budgets."""
    ways = comparison.ways[comparison.ways["method"] != RANDOM]
    kept = table.loc[ways["place"], [f"retention, {domain}" for domain in comparison.domains]]
    means = kept.set_axis(pd.MultiIndex.from_frame(ways[["method", "budget"]])).groupby(level=[0, 1]).mean()
    worst = means.min(axis=1).groupby("method").agg(["mean", "count"])
    full = worst[worst["count"] == worst["count"].max()]["mean"]  # a method that ends early is spared the steep part
    best = {means.loc[name].round(12).to_numpy().tobytes(): str(name) for name in full.sort_values(kind="stable").index}
    return list(best.values())[::-1]


def _regimes(comparison: Comparison, item_id: str, metric: str) -> None:
    from vlm_analysis.figures.regimes import regime_chart

    st.subheader("Where the ranking matters")
    family = _pick_family(comparison, item_id)
    frame = _regime_frame(item_id, metric, family, comparison)
    for sentence in regime_words(frame):
        st.markdown(escaped(sentence))
    if not (frame["regime"] != "").any():
        st.caption(
            f"Verdicts need two methods at least, and {LEAST_GROUPS} groups of prompts that the dense model answers."
        )
        return
    st.caption(escaped(family_words(frame, family)))
    st.plotly_chart(regime_chart(frame), key="compare-regimes", config=PICTURE, alt="By budget: whether methods differ")
    st.caption(RULE)
    with st.expander("Numbers"):
        st.dataframe(frame, hide_index=True, width="stretch", alt="By budget: whether methods differ")


def _pick_family(comparison: Comparison, item_id: str) -> tuple[str, ...]:
    """Draw the choice of the methods that the verdicts are about; without a choice, the default."""
    usual = family_of(comparison)
    picked = st.multiselect(
        "Methods compared",
        members_of(comparison),
        default=usual,
        format_func=member_title,
        key=f"compare_family:{item_id}",
        persist_state="session",
        help="Which methods a verdict is about decides what it says: the more of them choose alike, the less they differ. Given are "
        f"{joined(member_title(name) for name in FAMILY)}, where they were compared; else the "
        "published methods stand in for them. Criteria count with “first k”.",
    )
    return family_of(comparison, picked) if picked else usual


def _chosen_by(comparison: Comparison) -> pd.Series:
    """Return by a mask's place the first method that chooses it, and how many more do."""
    methods = comparison.ways.groupby("place")["method"].agg(["first", "nunique"])
    more = methods["nunique"].map(lambda number: f" and {number - 1} more" if number > 1 else "")
    return methods["first"] + more


def _masks(comparison: Comparison, table: pd.DataFrame, metric: str) -> None:
    """Draw all masks, sortable; the one that is clicked goes into the editor."""
    st.subheader("All masks")
    only = st.toggle(
        "Only the front over all domains and the parameters",
        key="compare_only_front",
        help="Masks that no other mask beats in every domain and in parameters together.",
    )
    shown = (table[table["on_front"]] if only else table).sort_values(
        ["worst", "budget"], ascending=[False, False], kind="stable"
    )
    kept = [f"retention, {domain}" for domain in comparison.domains]
    others = ("kl_to_dense", "nll_above_dense", "token_agreement", "parameters_left", "on_front", "methods")
    event = st.dataframe(
        shown.assign(chosen_by=_chosen_by(comparison)),
        hide_index=True,
        width="stretch",
        column_config=column_config(comparison.domains, metric),
        column_order=["budget", "dropped", "chosen_by", "worst", *kept, *others],
        on_select="rerun",
        selection_mode="single-row",
        key="compare-table",
        alt="All masks with what they keep",
    )
    rows = event["selection"]["rows"]
    model = comparison.dense.model
    if rows and rows[0] < len(shown):
        mask = comparison.masks[int(shown.index[rows[0]])]
        st.markdown(f"Chosen: **{escaped(mask.name)}**, {escaped(does(mask))}.")
        allowed = agree_on_model(model, model_slot().info, "This mask", "compare")
        st.button(
            "Load into the editor", icon=":material/edit:", on_click=edit, args=(mask, model), disabled=not allowed
        )
        if edited_mask() == mask:
            st.caption("It is in the editor.")
            go_on("pages/4_masks.py", "Go on to Masks")
    else:
        st.caption(
            "Tick a row at its left to load its mask into the editor. Click a heading to sort. Retention is of "
            f"{title_of(metric)}."
        )
    offer_files(shown, "masks")
