"""The Evaluate page's question to recovery: which ways, learnt on which prompts, measured on which others, and what it will take."""

from __future__ import annotations

import operator
from functools import reduce
from typing import Any

import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import StrataError
from vlm_analysis.progress import Cancelled
from vlm_analysis.prompts.opening import REPORT as REPORT_PACK, choosing_packs, open_prompts
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.recovery.solving import HOWS
from vlm_analysis.recovery.tunings import TARGETS, TUNINGS
from vlm_analysis.recovery.ways import THEN
from vlm_analysis.ui.common.jobs import current, start
from vlm_analysis.ui.common.pickers import described, pick_named
from vlm_analysis.ui.common.promptpair import split
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import bench, chosen, model_slot, runner, workspace
from vlm_analysis.ui.common.shell import next_step
from vlm_analysis.ui.common.terms import explained
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.common.work import BUNDLED, Work, watched
from vlm_analysis.ui.evaluate.inputs import EvaluateInputs
from vlm_analysis.words import counted, sentence
from vlm_analysis.workbench.evaluations import MAX_WRITTEN
from vlm_analysis.workbench.shelf import keep_prompts
from vlm_analysis.workbench.stories import packs_name
from vlm_analysis.workbench.workspace import Item

LEARN, REPORT = "recover_learn", "recover_report"
NO_TUNING = ""
LOOKING_S = 60.0  # how long the page waits for time and memory
REPAIRS = {
    "ridge": "a linear map of all channels",
    "scale": "a factor for each channel",
    "subspace": "Short-LVLM's: what the layer before writes along a few directions counts twice",
}
_PROBLEM = "recover_problem"
_NEEDS = "recover:needs"
Source = Item | tuple[str, ...]
"""Saved prompts, or the names of bundled packs."""


def recover_form(inputs: EvaluateInputs) -> None:
    """Draw what is recovered in which ways on which prompts, what that takes, and the button."""
    mask, info = inputs.mask, inputs.info
    if not inputs.ready or mask is None or info is None:
        return
    explained(
        "Fit what dropped layers did into the layers before them ([[repair]]: seconds), or train the layers that are left for a minute or "
        "more ([[tuning]]). What comes back is measured on prompts that nothing was learnt on: the [[ledger]]."
    )
    sources = _sources()
    if len(sources) < 2:
        next_step("It takes prompts to learn on, and others to report on.", "pages/2_prompts.py", "Choose prompts")
        return
    _begin_with(sources)
    left, right = st.columns(2)
    names = {one: _described(source) for one, source in sources.items()}
    learn = pick_named(left, "Learn on", LEARN, names, "Repairs and tuning see these prompts and their answers.")
    report = pick_named(
        right, "Report on", REPORT, names, "Others: each model answers these, and nothing is learnt on them."
    )
    ways = _pick_ways()
    responses = st.checkbox(
        "Write the responses",
        value=_count(sources[report]) <= MAX_WRITTEN,
        key=f"recover_responses:{report}",
        help="Shows what each model says where it is wrong. It takes far longer than scoring.",
    )
    if problem := st.session_state.pop("split_error", ""):
        st.error(escaped(problem))
    if learn == report:
        _say_same(sources[learn])
    is_fine = learn != report and bool(ways) and _say_needs(mask, sources[learn], sources[report], ways)
    view = current("recover")
    st.button(
        "Get it back",
        type="primary",
        icon=":material/healing:",
        on_click=start,
        args=(
            "recover",
            f"Getting back what {mask.name or 'the edited mask'} lost",
            _work(mask, sources[learn], sources[report], ways, responses),
            mask,
            (learn, report, ways, responses),
        ),
        disabled=not is_fine or (view is not None and view.active),
        help=None if ways else "Choose a repair or a tuning.",
    )
    if is_fine:
        from_these, on_those = (_word(sources[one]) for one in (learn, report))
        same_line(line_of("recover", from_these, mask, how=list(ways), report=on_those, no_responses=not responses))


def _sources() -> dict[str, Source]:
    """Return what there is to learn and report on, by its key: saved prompts, then the bundled packs."""
    packs = tuple(choosing_packs())
    bundled: dict[str, Source] = {"packs": packs, "reports": tuple(f"{pack}{REPORT_PACK}" for pack in packs)}
    items = {item.id: item for item in workspace().items("prompts")}
    for item in list(items.values()):
        for key, source in bundled.items():
            if item.name == _named(source):
                bundled[key] = items.pop(item.id)
                break
    return {**items, **bundled}


def _begin_with(sources: dict[str, Source]) -> None:
    """Choose the packs and their fellows for the bundled model, else the prompts in use and the newest others, unless chosen before."""
    now = chosen("prompts")
    bundled = model_slot().arguments[0] == BUNDLED or now is None
    in_use = "packs" if bundled or now is None else now.id
    others = [key for key in sources if key not in (in_use, "packs", "reports")]
    report = "reports" if bundled else next(iter(others), in_use)
    for key, first in ((LEARN, in_use), (REPORT, report)):
        if st.session_state.get(key) not in sources:
            st.session_state[key] = first


def _named(source: Source) -> str:
    return source.name if isinstance(source, Item) else packs_name(source)


def _described(source: Source) -> str:
    return described(source) if isinstance(source, Item) else _named(source)


def _word(source: Source) -> str:
    """Return what the command line calls prompts."""
    return source.id if isinstance(source, Item) else ",".join(source)


def _pick_ways() -> tuple[str, ...]:
    """Draw the choice of repairs and of a tuning; returns the ways, in the order in which the ledger has them."""
    left, right = st.columns(2)
    repairs = left.multiselect(
        "Repairs",
        list(HOWS),
        default=None if "recover_repairs" in st.session_state else ["ridge"],
        key="recover_repairs",
        persist_state="session",
        help=" ".join(f"**{sentence(name)}**: {about}." for name, about in REPAIRS.items()),
    )
    tuning = right.selectbox(
        "Short fine-tuning",
        [NO_TUNING, *TUNINGS],
        format_func=lambda name: name or "none",
        key="recover_tuning",
        persist_state="session",
        help=" ".join(f"**{sentence(name)}**: {TARGETS[one.targets]}." for name, one in TUNINGS.items()),
    )
    both = [f"{repair}{THEN}{tuning}" for repair in repairs] if tuning else []
    return (*repairs, *([tuning] if tuning else []), *both)


def _count(source: Source) -> int:
    return int(source.details.get("n", 0)) if isinstance(source, Item) else len(_packs(source))


def _say_same(source: Source) -> None:
    """Say that nothing is to be learnt and reported on the same prompts, and offer halves of saved ones."""
    left, right = st.columns([4, 1], vertical_alignment="center")
    left.warning("These are the same prompts: what is learnt on them says nothing of others. Report on others.")
    if isinstance(source, Item):
        right.button(
            "Split in halves",
            icon=":material/splitscreen:",
            on_click=split,
            args=(source, (LEARN, REPORT)),
            width="stretch",
            help="Saves two prompt sets, each with half of every domain's prompts, and chooses them here.",
            key="recover_split",
        )


def _say_needs(mask: Edit, learn: Source, report: Source, ways: tuple[str, ...]) -> bool:
    """Say what it will take, or why it cannot be measured; returns whether it can, as far as is known."""
    rows = 2 + len(ways) + any(THEN in way or way in TUNINGS for way in ways)
    says = f"{counted(rows, 'model')}: dense, cut, {', '.join(ways)}{', and the dense one tuned alike' if rows > 2 + len(ways) else ''}"
    key = (model_slot().fingerprint, mask.key, _named(learn), _named(report), ways)
    known: dict[Any, tuple[bool, str]] = st.session_state.setdefault(_NEEDS, {})
    if key not in known and not runner().busy:
        ask = bench().recovery_needs
        try:
            with st.spinner("Looking at time and memory"):
                needs = runner().ask(lambda: ask(mask, _opened(learn), _opened(report), ways), timeout_s=LOOKING_S)
            known[key] = True, needs.words()
        except StrataError as error:
            known[key] = False, str(error)
        except (TimeoutError, Cancelled, RuntimeError):
            pass
    fine, words = known.get(key, (True, "Time and memory are told when no job runs."))
    if fine:
        st.caption(escaped(f"{says} · {words}"))
    else:
        st.error(escaped(words))
    return fine


def _work(mask: Edit, learn: Source, report: Source, ways: tuple[str, ...], responses: bool) -> Work:
    measure, shelf = bench().measure_recovery, workspace()

    def kept(source: Source) -> Item:
        return source if isinstance(source, Item) else keep_prompts(shelf, _packs(source), _named(source))

    def call(**callbacks: Any) -> Any:
        return measure(mask, kept(learn), kept(report), ways, responses=responses, **callbacks)

    return watched("recover", call)


def _opened(source: Source) -> PromptSet | Item:
    return source if isinstance(source, Item) else _packs(source)


@st.cache_resource(show_spinner=False)
def _packs(names: tuple[str, ...]) -> PromptSet:
    return reduce(operator.add, map(open_prompts, names))
