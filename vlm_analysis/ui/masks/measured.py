"""What was measured of masks on the prompts in hand: opened where it is known, and a button that measures the rest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.evaluation.telling import telling_score_of
from vlm_analysis.recording.recording import Recording
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.sameline import layers_text, line_of, same_line
from vlm_analysis.ui.common.session import bench, chosen, model_slot, workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.common.work import job
from vlm_analysis.ui.masks.maskrows import Numbers, numbers_of
from vlm_analysis.words import counted, duration
from vlm_analysis.workbench.known import Known, find_known
from vlm_analysis.workbench.workspace import Item

State = tuple[Any, ...]


@dataclass(eq=False)
class Measured:
    """The prompts in hand, and what is known of masks on them.

    Attributes:
        prompts: None where there are none in hand.
        known: None where the dense model was not evaluated on them.
        numbers, evaluations: by an edit's key, of those looked up.
        metric: the score of which retention is taken, the same for all rows.
        why_not: why nothing is known, with the way to it; "".
    """

    prompts: Item | None
    known: Known | None
    state: State
    why_not: str = ""
    metric: str = "exact_match"
    numbers: dict[str, Numbers] = field(default_factory=dict)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return "" if self.prompts is None else self.prompts.name

    @property
    def prompts_id(self) -> str:
        return "" if self.prompts is None else self.prompts.id

    @property
    def fingerprint(self) -> str:
        return "" if self.prompts is None else str(self.prompts.prompts)

    @property
    def domains(self) -> tuple[str, ...]:
        """Return the domains of the prompts, in their order; none where the dense model was not evaluated."""
        return () if self.known is None else tuple(map(str, self.known.dense.by_domain.index))

    @property
    def n_prompts(self) -> int:
        return 0 if self.known is None else len(self.known.dense.by_prompt)

    def look_up(self, masks: Sequence[Edit]) -> None:
        """Open what is known of these masks."""
        if self.known is None or self.prompts is None:
            return
        keys = tuple(dict.fromkeys(mask.key for mask in masks))
        self.metric, self.numbers, self.evaluations = _looked_up(
            (self.prompts.id, self.known.dense.model.fingerprint, *self.state), keys, self.known, masks
        )


@st.cache_resource(show_spinner=False, max_entries=16)
def _looked_up(
    state: State, keys: tuple[str, ...], _known: Known, _masks: Sequence[Edit]
) -> tuple[str, dict[str, Numbers], dict[str, Evaluation]]:
    """Return the score that tells something of all these masks, and the numbers of those that are known."""
    different = {mask.key: mask for mask in _masks}
    opened = {key: _known.evaluation(mask) for key, mask in different.items()}
    there = {key: evaluation for key, evaluation in opened.items() if evaluation is not None}
    metric = telling_score_of(_known.dense, *there.values())
    return metric, {key: numbers_of(one, _known.dense, metric) for key, one in there.items()}, there


def measured_here(recording: Recording) -> Measured:
    """Return what is known of the recording's model on the prompts in hand; nothing is measured."""
    prompts = chosen("prompts")
    if prompts is None:
        return Measured(None, None, (), "there are no prompts in hand. Choose some on the Prompts page.")
    state = _state()
    known = _known(str(workspace().root), recording.model.fingerprint, prompts.id, state, prompts)
    why = (
        ""
        if known is not None
        else f"the dense model has not answered {escaped(prompts.name)} yet. Evaluate a mask, and it does."
    )
    return Measured(prompts, known, state, why)


@st.cache_resource(show_spinner=False, max_entries=4)
def _known(root: str, model: str, prompts_id: str, state: State, _prompts: Item) -> Known | None:
    return find_known(workspace(), model, _prompts)


def _state() -> State:
    """Return what changes where anything is measured: the saved evaluations, and when each file of scores was written last."""
    shelf = workspace()
    saved = tuple(item.id for item in shelf.items("evaluations"))
    written = []
    for path in sorted((shelf.root / "scores").glob("*/scores.sqlite*")):
        try:
            status = os.stat(path)
        except OSError:
            continue  # folded into the file beside it meanwhile
        written.append((str(path), status.st_mtime_ns, status.st_size))
    return saved, tuple(written)


def draw_evaluating(measured: Measured, ticked: Sequence[Edit], shown: Sequence[Edit]) -> None:
    """Draw the button that evaluates the ticked masks, or all that are shown, as far as they are not; with its time and its job."""
    masks = _lacking(measured, ticked or shown)
    if masks and measured.prompts is not None:
        prompts = measured.prompts
        label = f"Evaluate {counted(len(masks), 'ticked mask' if ticked else 'shown mask')}"
        st.button(
            f"{label}{_time(measured, len(masks))}",
            key="evaluate_masks",
            icon=":material/fact_check:",
            on_click=start,
            args=(
                "masks",
                f"Evaluating {counted(len(masks), 'mask')} on {prompts.name}",
                job(bench().scores, prompts, masks),
                prompts.id,
                [mask.key for mask in masks],
            ),
            disabled=bool(_missing(measured)) or ((view := current("masks")) is not None and view.active),
            help=_missing(measured)
            or "What masks have in common runs once. What is measured is kept, also where it is cancelled.",
        )
        if missing := _missing(measured):
            st.caption(missing)
        else:
            same_line(line_of("sweep", prompts, *[layers_text(mask) if mask.is_mask else mask for mask in masks]))
    job_panel("masks", "What was measured is kept: evaluate again to go on.")


def _lacking(measured: Measured, masks: Sequence[Edit]) -> list[Edit]:
    different = {mask.key: mask for mask in masks if not mask.is_dense and mask.key not in measured.numbers}
    return list(different.values())


def _missing(measured: Measured) -> str:
    fingerprint = st.session_state.mask_model.fingerprint
    return (
        ""
        if model_slot().fingerprint == fingerprint
        else "Evaluating needs the recording's model: load it on the Model page."
    )


def _time(measured: Measured, n_masks: int) -> str:
    """Return how long it takes at most, where evaluations were seen with this model; "" where none was."""
    prompts = measured.prompts
    n_prompts = 0 if prompts is None else prompts.details.get("n", 0)
    if prompts is None or not isinstance(n_prompts, int) or _missing(measured):
        return ""
    each = model_slot().seen.expected_s(str(prompts.prompts), n_prompts)
    return "" if each is None else f" (about {duration(each * n_masks)})"
