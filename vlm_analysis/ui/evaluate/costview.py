"""The Cost tab: what a mask saves, in weights at once, and in time once it is measured."""

from __future__ import annotations

from contextlib import suppress

import pandas as pd
import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.cost import (
    PHASES,
    ROUNDS,
    Cost,
    cost_frame,
    flops_without,
    quartiles,
    ratio_of_medians,
    speedup,
    was_disturbed,
    weights_without,
)
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.ui.common.downloads import PICTURE, offer_files
from vlm_analysis.ui.common.held import untimed
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import bench, live, model_slot, opened, workspace
from vlm_analysis.ui.common.shell import say_set_aside
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.common.work import watched
from vlm_analysis.ui.evaluate.inputs import EvaluateInputs
from vlm_analysis.words import counted
from vlm_analysis.workbench.costs import alike, find_costs

_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
FLOPS_HELP = (
    "Of one token in the decoder layers: two for each of their parameters. What attention does with the tokens before, the embedding, the "
    "head and the vision tower are not in it; of layers with experts all experts are."
)
PREFILL_HELP = (
    "Of its pass in the decoder layers and, where they are known, in those of the vision encoder, by formula, mean over the timed prompts. "
    "What stands before and behind these layers is not in it."
)
CACHE_HELP = "Bytes of the keys and values that are kept behind its pass, mean over the timed prompts."
_WORDS = {"prefill": "A prompt's pass (prefill)", "decode": "Writing (decode)"}


def cost_view(inputs: EvaluateInputs) -> None:
    """Draw the weights a mask saves, the button that measures time, and what was measured on this model and mask last."""
    mask = inputs.mask
    model = inputs.info or (mask.model if mask is not None else None)
    if mask is None or model is None:
        return
    prompts = None if inputs.prompts is None else inputs.prompts.prompts
    costs, problems = find_costs(workspace(), model.fingerprint, prompts, opened=opened)
    cost = next((cost for cost in costs if cost.edit == mask), None)
    _weights(model, mask, cost)
    _ask(inputs, mask)
    job_panel("cost", "The rounds that were finished are kept.", _so_far)
    for problem in problems:
        st.warning(escaped(problem))
    if cost is None:
        st.caption("No time was measured for this mask on these prompts yet.")
        return
    _times(cost)
    _picture(cost, alike(costs, cost))


def _weights(model: ModelInfo, mask: Edit, cost: Cost | None) -> None:
    """Draw parameters and bytes: as measured, else as counted when the model was loaded."""
    try:
        parameters, sizes = _counted(model, mask) if cost is None else (cost.n_parameters, cost.n_bytes)
    except EvaluationError as error:
        st.caption(escaped(error))
        return
    with st.grid(4, min_column_width=170):
        _saved("Decoder layers", (mask.n_layers, len(mask.kept)), f"{len(mask.kept)}", "")
        _saved("Parameters", parameters, f"{parameters[1] / 1e6:,.2f} M", "")
        if sizes is None:
            st.metric(
                "Weights", "not known", help="Of quantised weights the bytes are counted when the cost is measured."
            )
        else:
            _saved("Weights", sizes, _size(sizes[1]), " bytes")
        with suppress(EvaluationError):  # of a saved cost whose model was not counted
            flops = flops_without(model, mask)
            _saved("FLOPs a token", flops, f"{flops[1] / 1e6:,.2f} M", "", FLOPS_HELP)
        if cost is not None and cost.all_flops is not None:
            dense, edited = map(int, cost.all_flops)
            _saved("FLOPs of a prompt", (dense, edited), f"{edited / 1e6:,.0f} M", "", PREFILL_HELP)
        if cost is not None and cost.cache_bytes is not None:
            _saved("Cache of a prompt", cost.cache_bytes, _size(cost.cache_bytes[1]), " bytes", CACHE_HELP)
    st.caption(
        f"Parameters {parameters[0]:,} → {parameters[1]:,}"
        + (f"; weights {sizes[0]:,} → {sizes[1]:,} bytes in {escaped(model.dtype)}" if sizes else "")
        + ". Weights that are shared count once."
    )


def _counted(model: ModelInfo, mask: Edit) -> tuple[tuple[int, int], tuple[int, int] | None]:
    parameters, sizes = weights_without(model, mask)
    held = model_slot().held
    quantised = held is not None and held.quantiser is not None
    return parameters, None if quantised else sizes


def _saved(label: str, both: tuple[int, int], value: str, unit: str, about: str | None = None) -> None:
    less = both[0] - both[1]
    with st.container(border=True, height="stretch", gap="xsmall"):
        st.metric(label, value, help=about)
        st.caption(f"{less:,}{unit} fewer ({less / both[0]:.1%})")


def _size(n_bytes: int) -> str:
    size, unit = next((one for one in _UNITS if n_bytes >= one[0]), (1, "bytes"))
    return f"{n_bytes / size:,.2f} {unit}"


def _ask(inputs: EvaluateInputs, mask: Edit) -> None:
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    rounds = right.number_input(
        "Rounds",
        1,
        50,
        ROUNDS,
        key="cost_rounds",
        persist_state="session",
        help="How often each prompt is run on each model. Fewer rounds end sooner and give wider intervals.",
    )
    line = left.toggle(
        "Measure other budgets too",
        key="cost_line",
        persist_state="session",
        help="Up to five masks from few layers to half of them, for the picture: those of this mask first, then others that may go. "
        "It takes up to three times as long.",
    )
    view, prompts = current("cost"), inputs.prompts
    work = None if prompts is None else watched("cost", bench().measure_cost, prompts, mask, line=line, rounds=rounds)
    label = f"Timing {mask.name or 'the edited mask'}"
    st.button(
        "Measure cost",
        icon=":material/timer:",
        on_click=start,
        args=("cost", label, work, mask, prompts.id if prompts else "", line, rounds),
        disabled=not inputs.ready or work is None or (view is not None and view.active),
        help="A first look of some 20 s shows rough numbers. Then up to 8 of the prompts run once to warm up and "
        f"{counted(rounds, 'time')} in turn on the dense and the pruned model, and both write 32 tokens each time.",
    )
    if inputs.ready:
        same_line(line_of("cost", prompts, mask, line=line, rounds=rounds if rounds != ROUNDS else None))


def _so_far() -> None:
    """Draw the times of the rounds so far while others run."""
    now = live().get("cost")
    if now is None:
        return
    (cost,) = now
    st.caption(
        f"So far, {counted(cost.rounds, 'round')} over {counted(cost.n_prompts, 'prompt')} with "
        f"{counted(cost.new_tokens, 'token')} written for each:"
    )
    _time_table(cost)


def _times(cost: Cost) -> None:
    """Draw dense and pruned times, their ratio with its interval in words, and how they were measured."""
    st.subheader("Time")
    say_set_aside(cost.set_aside, cost.n_prompts)
    _time_table(cost)
    for phase in PHASES:
        st.markdown(_sentence(cost, phase))
    for phase in filter(lambda phase: was_disturbed(cost, phase), PHASES):
        st.warning(
            f"{_WORDS[phase]}: by the medians of all rounds the pruned model is {ratio_of_medians(cost, phase):.2f} × as fast, by the "
            f"rounds' own ratios {speedup(cost, phase)[0]:.2f} ×. Other work disturbed the machine: measure again when it is idle."
        )
    st.caption(
        "Dense and pruned run in turn within a round: “times as fast” is the median of the rounds' own ratios, not the ratio of the "
        "two medians beside it. "
        f"Medians with quartiles of {counted(cost.rounds, 'round')} over {counted(cost.n_prompts, 'prompt')} of "
        f"{cost.prompt_tokens:.0f} tokens on average, one at a time, {counted(cost.new_tokens, 'token')} written for each, on "
        f"{escaped(cost.device)} with {counted(cost.threads, 'CPU thread')}. A pass includes the vision tower. "
        "Dense and pruned took turns, but "
        "other work on this machine still disturbs the times: measure "
        "again when it is idle."
    )


def _time_table(cost: Cost) -> None:
    st.dataframe(
        pd.DataFrame([_row(cost, phase) for phase in PHASES]),
        hide_index=True,
        width="stretch",
        column_config={
            "ratio": st.column_config.TextColumn(
                "times as fast",
                help="Median of the rounds' own ratios, which is not the ratio of the two medians, with a 90 % bootstrap interval "
                "over rounds.",
            ),
            "expected": st.column_config.TextColumn(
                help="If each dropped layer saves the share of the time it was measured to take, and all else stays."
            ),
        },
        alt="Time of the dense and the pruned model",
    )


def _row(cost: Cost, phase: str) -> dict[str, str]:
    prefill = phase == "prefill"
    unit, dense, pruned = ("ms", *cost.prefill_ms) if prefill else ("tokens/s", *cost.tokens_per_s)
    value, low, high = speedup(cost, phase)
    expected = cost.expected_prefill_ms if prefill else cost.expected_tokens_per_s
    return {
        "phase": f"{_WORDS[phase]}, {unit}",
        **{name: _spread(*quartiles(times)) for name, times in (("dense", dense), ("pruned", pruned))},
        "ratio": f"{value:.2f} × ({low:.2f} to {high:.2f})",
        "expected": "–" if untimed(cost.edit, cost) else f"{expected:.4g}",
    }


def _spread(low: float, middle: float, high: float) -> str:
    return f"{middle:.4g} ({low:.4g} to {high:.4g})"


def _sentence(cost: Cost, phase: str) -> str:
    value, low, high = speedup(cost, phase)
    text = f"**{_WORDS[phase]}** is {value:.2f} × as fast (90 % interval {low:.2f} to {high:.2f})"
    if low <= 1 <= high:
        text += ", which may be no difference at all"
    if untimed(cost.edit, cost):
        return f"{text}."
    return f"{text}; the dropped layers' own times let expect {1 / cost.expected_share(phase):.2f} ×."


def _picture(cost: Cost, costs: list[Cost]) -> None:
    from vlm_analysis.figures.savings import cost_chart

    frame = cost_frame(costs)
    st.plotly_chart(
        cost_chart(frame, cost.edit.n_layers),
        key="cost-chart",
        config=PICTURE,
        alt="Time relative to the dense model over decoder layers dropped, measured and expected",
    )
    st.caption(
        f"{counted(len(costs), 'measured mask')} of this model on these prompts. Bars: quartiles of the rounds. "
        "Points below the dashed line save more than their layers' own time, points above it less."
        + (" Open points do more than drop decoder layers: hover says what." if (frame["more"] != "").any() else "")
    )
    with st.expander("Numbers"):
        offer_files(frame, "costs")
