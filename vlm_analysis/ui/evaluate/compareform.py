"""The Evaluate page's question to many masks: which prompts choose, which report, what is compared, and what is left unfinished."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import streamlit as st

from vlm_analysis.model_info import ModelInfo
from vlm_analysis.selection.compared.findings import mask_table, telling
from vlm_analysis.selection.criteria.criteria import CRITERIA
from vlm_analysis.selection.strategies.domain_aware import DOMAIN_AWARE, READINGS, SHARES, TITLE, count_dropped
from vlm_analysis.selection.strategies.many import COMPARED, targets_of
from vlm_analysis.selection.strategies.strategies import STRATEGIES
from vlm_analysis.ui.common.clusterfield import cluster_address, where_it_runs
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.pace import seconds_a_pass
from vlm_analysis.ui.common.pickers import described, pick_named
from vlm_analysis.ui.common.promptpair import follow, remember, warn_same
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import bench, is_shown, live, model_slot, workspace
from vlm_analysis.ui.common.shell import next_step
from vlm_analysis.ui.common.text import NEEDS, escaped, what_it_does
from vlm_analysis.ui.common.work import Work, clustered, watched
from vlm_analysis.ui.evaluate.comparecolumns import column_config, mask_columns
from vlm_analysis.ui.evaluate.comparepresets import (
    CHOOSE,
    MASKS,
    REPORT,
    draw_presets,
    n_asked,
    possible_criteria,
    time_words,
    unless_set,
)
from vlm_analysis.ui.evaluate.comparerecover import ask_recoveries
from vlm_analysis.ui.evaluate.comparevision import ask_vision, scan_passes, with_beside
from vlm_analysis.words import counted
from vlm_analysis.workbench.bench import ALL_CRITERIA
from vlm_analysis.workbench.comparisons import Question, Unfinished, forget, unfinished
from vlm_analysis.workbench.details import count_domains
from vlm_analysis.workbench.workspace import Item

if TYPE_CHECKING:
    import pandas as pd

    from vlm_analysis.selection.compared.comparison import Comparison

FOLLOWED = "compare_followed"  # the session's prompts that the form was last set to
LEFT_BEHIND = "What was measured is kept: go on with it below."
SHOWN = 8
PAIR = (CHOOSE, REPORT)


def compare_form() -> None:
    """Draw what to compare and the button, the running job with its numbers so far, and comparisons left unfinished."""
    info, items = model_slot().info, {item.id: item for item in workspace().items("prompts")}
    if info is None:
        next_step("No model is loaded. Saved comparisons open without one.", "pages/1_model.py", "Load a model")
    elif not items:
        next_step("There are no prompts to compare on.", "pages/2_prompts.py", "Choose prompts")
    else:
        _form(info, items)
    job_panel("compare", LEFT_BEHIND, so_far)
    _left_unfinished(info, items)


def _form(info: ModelInfo, items: dict[str, Item]) -> None:
    follow(items, PAIR, FOLLOWED, apart=True)
    left, right = st.columns(2)
    words = "Layers are scored on these prompts, which are recorded first where that was not done yet."
    names = {name: described(item) for name, item in items.items()}
    choose = items[pick_named(left, "Choose masks on", CHOOSE, names, words)]
    report = items[pick_named(right, "Report on", REPORT, names, "Every mask answers these prompts.")]
    remember(choose, report, PAIR, FOLLOWED)
    if choose.prompts == report.prompts:
        warn_same(choose, PAIR)
    draw_presets(info, choose, report, lambda asked: _count(info, asked, count_domains(choose.details)))
    question = replace(_question(info, choose, report), recover=ask_recoveries(choose, report))
    question = replace(question, vision=ask_vision(info, choose))
    masks = with_beside(_count(info, question, count_domains(choose.details)) * (1 + len(question.recover)), question)
    _say_how_long(info, choose, report, question, masks)
    active = (view := current("compare")) is not None and view.active
    cluster = where_it_runs("compare")
    st.button(
        "Compare masks",
        type="primary",
        icon=":material/stacked_line_chart:",
        on_click=start,
        args=("compare", f"Comparing masks on {report.name}", _compare(choose, report, question), question),
        disabled=active or not masks,
    )
    if not question.masks:
        same_line(_line(choose, report, question, cluster))


def _say_how_long(info: ModelInfo, choose: Item, report: Item, question: Question, masks: int) -> None:
    """Say how many masks run on how many prompts, the most time that it takes, and what is measured before."""
    steps = "record the prompts, " + ("measure each layer's damage, " if "damage" in question.needs else "")
    more = scan_passes(info, choose) if question.vision else 0
    steps += "scan vision tokens, " if more else ""
    pass_s = seconds_a_pass(model_slot().fingerprint, report)
    time = time_words(question, masks, n_asked(choose, report), info.n_layers, pass_s, more)
    recovering = ", without the recoveries" if question.recover else ""
    st.caption(
        f"Up to {counted(masks, 'mask')} on {counted(int(report.details.get('n', 0)), 'prompt')}, {time}{recovering}; equal masks run "
        f"once, and what was measured before is not run again. First: {steps}where that was not done yet."
    )


def _line(choose: Item, report: Item, question: Question, cluster: str) -> str:
    """Return the line of the same comparison, without arguments that are the command's defaults."""
    criteria = [] if question.criteria == ALL_CRITERIA else list(question.criteria)
    strategies = [] if question.strategies == COMPARED else list(question.strategies)
    of: dict[str, Any] = {"compare": True} if choose.id == report.id else {"from": choose.id}
    of |= {"recover": list(question.recover), "vision": question.vision or None, "cluster": cluster}
    if question.preset:
        return line_of("sweep", report, **of, preset=question.preset)
    numbers: dict[str, Any] = {"most": question.most, "draws": question.n_draws, "memory": question.max_mib}
    return line_of(
        "sweep", report, **of, criterion=criteria, strategy=strategies, **numbers, unprotect=question.unprotect
    )


def _question(info: ModelInfo, choose: Item, report: Item) -> Question:
    preset = st.toggle(
        f"Only the preset: {TITLE[0].lower()}{TITLE[1:]}",
        key="compare_preset",
        persist_state="session",
        help="Its six rankings at 10, 25 and 40 % of the pruneable layers, and nothing else. The claims of papers are tested on these.",
    )
    if preset:
        return Question(choose.id, report.id, (), (), 1, preset=DOMAIN_AWARE)
    if st.toggle(
        "Only my saved masks", key=MASKS, persist_state="session", help="Those for a model of as many layers."
    ):
        return Question(choose.id, report.id, (), (), 1, masks=_pick_saved(info))
    with st.expander("What is compared"):
        criteria = _ask_criteria(count_domains(choose.details) < 2)
        strategies = st.multiselect(
            "Strategies",
            [name for name, row in STRATEGIES.items() if row.needs != "model"],
            default=unless_set("compare_strategies", COMPARED),
            format_func=lambda name: STRATEGIES[name].title,
            key="compare_strategies",
            persist_state="session",
            help="“No two adjacent” beside “first k” is what the regimes are computed from. Searches measure the model again and "
            "again: the Masks page has them, and what they measured is known here.",
        )
        most, draws, memory = _ask_numbers(info)
        unprotect = st.checkbox(
            "Let protected layers go too",
            key="compare_unprotect",
            persist_state="session",
            help="First, last and DeepStack layers: dropping them mostly breaks the model.",
        )
    return Question(choose.id, report.id, tuple(criteria), tuple(strategies), most, draws, unprotect, memory)


def _pick_saved(info: ModelInfo) -> tuple[str, ...]:
    """Draw the choice of saved masks; returns their ids."""
    items = {item.id: item for item in workspace().items("masks") if item.details.get("n_layers") == info.n_layers}
    return tuple(
        st.multiselect(
            "Saved masks",
            list(items),
            default=list(items),
            format_func=lambda name: f"{items[name].name} · {what_it_does(items[name].details)}",
            key="compare_saved",
            help="Masks are made and saved on the Masks page.",
        )
    )


def _ask_criteria(one_domain: bool) -> list[str]:
    """Draw the choice of criteria."""
    criteria, key = possible_criteria(one_domain), f"compare_criteria:{one_domain}"
    costly = [f"{CRITERIA[name].title}: {NEEDS[CRITERIA[name].needs]}" for name in criteria if _costly(name)]
    return list(
        st.multiselect(
            "Criteria",
            criteria,
            default=unless_set(key, criteria),
            format_func=lambda name: CRITERIA[name].title,
            key=key,
            persist_state="session",
            help=f"Criteria that take a target are asked once for each domain. Some need more: {'; '.join(costly)}",
        )
    )


def _ask_numbers(info: ModelInfo) -> tuple[int, int, int]:
    """Draw the largest budget, the number of random draws and the memory in MiB."""
    left, middle, right = st.columns(3)
    free = len(info.locks.free)
    most = left.slider(
        "Largest budget, layers",
        1,
        max(2, info.n_layers - 1),
        unless_set(key := f"compare_most:{info.n_layers}", max(1, min(info.n_layers // 2, free))),
        key=key,
        persist_state="session",
        help="All numbers of dropped layers from 1 to this are compared.",
    )
    draws = middle.slider(
        "Random draws at each budget",
        1,
        20,
        unless_set("compare_draws", 5),
        key="compare_draws",
        persist_state="session",
        help="The grey band.",
    )
    memory = right.select_slider(
        "Memory for shared states, MiB",
        [64, 256, 1024, 4096, 16384],
        1024,
        key="compare_memory",
        persist_state="session",
        help="States at which masks branch off are kept up to this; with less, layers are run again instead.",
    )
    return most, draws, memory


def _costly(criterion: str) -> bool:
    return CRITERIA[criterion].needs in ("attention", "damage")


def _count(info: ModelInfo, question: Question, n_domains: int) -> int:
    """Return how many ways to a mask a question has at most."""
    if question.masks:
        return len(question.masks)
    if question.preset:
        counts = {count_dropped(info.n_layers, share) for share in SHARES} if info.n_layers > 2 else set()
        of_targets = sum(row.of_target for row in READINGS.values())
        return len(counts - {0}) * (of_targets * n_domains + len(READINGS) - of_targets - 1 + question.n_draws)
    free = len(info.locks.keeping(unprotect=question.unprotect).free)
    budgets = min(question.most, free)
    domains = [str(number) for number in range(n_domains)]
    scores = sum(len(targets_of(name, domains)) for name in question.criteria)
    number = 0
    for strategy in question.strategies:
        row = STRATEGIES[strategy]
        number += scores if row.needs == "scores" else question.n_draws if "seed" in row.takes else 1
    return number * budgets


def _compare(choose: Item, report: Item, question: Question) -> Work:
    own = bench()
    return clustered(cluster_address(), own, watched("compare", own.compare, choose, report, **question.options))


def so_far() -> None:
    """Draw the best masks on the prompts that were scored so far."""
    partial = live().get("compare")
    if partial is None:
        return
    (partial,) = partial
    metric, table = _best(partial)
    st.caption(
        f"So far, on {counted(len(partial.dense.by_prompt), 'prompt')}, the masks that keep most of their worst domain:"
    )
    st.dataframe(
        mask_columns(table),
        hide_index=True,
        width="stretch",
        column_config=column_config(partial.domains, metric),
        alt="The best masks so far",
    )


@lru_cache(maxsize=1)
def _best(partial: Comparison) -> tuple[str, pd.DataFrame]:
    """Return the score that tells of a comparison, and its best masks; once for what is drawn every other second."""
    metric = telling(partial)
    table = mask_table(partial, metric).sort_values(["worst", "budget"], ascending=[False, False])
    return metric, table.head(SHOWN)


def _left_unfinished(info: ModelInfo | None, items: dict[str, Item]) -> None:
    """Draw the comparisons that were cancelled or interrupted, with the way to finish each."""
    if (view := current("compare")) is not None and view.active:
        return
    for comparison in unfinished(workspace()):
        if not is_shown(comparison):
            continue
        question = comparison.question
        words, go_on, drop = st.columns([4, 1, 1], vertical_alignment="center")
        here = info is not None and info.fingerprint == comparison.model
        lacks = _lacks(comparison, here, items)
        words.info(
            f"Unfinished: masks on {escaped(comparison.name)}, model {escaped(comparison.model_name)} ({comparison.model[:8]}). "
            f"What was measured is kept. {lacks}",
            icon=":material/pending:",
        )
        if not lacks:
            choose, report = items[question.choose], items[question.report]
            go_on.button(
                "Go on",
                key=f"go-on:{comparison.folder.name}",
                on_click=start,
                args=("compare", f"Comparing masks on {report.name}", _compare(choose, report, question), question),
                width="stretch",
            )
        drop.button(
            "Forget it", key=f"forget:{comparison.folder.name}", on_click=forget, args=(comparison,), width="stretch"
        )


def _lacks(comparison: Unfinished, here: bool, items: dict[str, Item]) -> str:
    """Return what is missing to finish it; "" where nothing is."""
    if not here:
        return "Load its model to go on."
    gone = {comparison.question.choose, comparison.question.report} - set(items)
    return "Its prompts were deleted: it cannot go on." if gone else ""
