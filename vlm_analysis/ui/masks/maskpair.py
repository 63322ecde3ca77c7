"""Two masks side by side: the layers in which they differ, the paired difference, and the answers that part them, with pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.evaluation.intervals import LEAST_GROUPS
from vlm_analysis.evaluation.paired import EVERY, paired_differences, parted
from vlm_analysis.evaluation.telling import title_of
from vlm_analysis.prompts.prompts import Prompt
from vlm_analysis.recording.recording import Recording
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.promptcard import draw_prompt, draw_text
from vlm_analysis.ui.common.session import bench, model_slot, opened, workspace
from vlm_analysis.ui.common.text import escaped, layer_list
from vlm_analysis.ui.common.work import job
from vlm_analysis.ui.masks.maskrows import MaskRow
from vlm_analysis.ui.masks.measured import Measured
from vlm_analysis.words import counted, in_groups, total_of_domains
from vlm_analysis.workbench.written import written_responses

CARDS = 6  # prompts in view of each side


def draw_pair(one: MaskRow, other: MaskRow, measured: Measured, recording: Recording) -> None:
    """Draw two masks beside each other."""
    from vlm_analysis.figures.heatmaps import edit_strips

    st.subheader(f"{escaped(one.name)} and {escaped(other.name)}", anchor=False)
    strips = edit_strips(
        [(row.name, row.mask) for row in (one, other)], recording.n_layers, locks=recording.model.locks
    )
    st.plotly_chart(strips, key="mask-pair", config={"displayModeBar": False}, alt="Layers that the two masks drop")
    a, b = set(one.mask.dropped), set(other.mask.dropped)
    for row in (one, other):
        if not row.mask.is_mask:
            st.text(f"{row.name} {row.mask.words()}")
    st.text(
        f"Both drop: {layer_list(sorted(a & b))}\nOnly {one.name} drops: {layer_list(sorted(a - b))}\n"
        f"Only {other.name} drops: {layer_list(sorted(b - a))}"
    )
    pair = [measured.evaluations.get(row.mask.key) for row in (one, other)]
    if measured.known is None or pair[0] is None or pair[1] is None:
        lacking = [escaped(row.name) for row, found in zip((one, other), pair, strict=True) if found is None]
        st.caption(
            f"Not evaluated on these prompts: {' and '.join(lacking)}. Evaluate the ticked masks to see what parts them."
        )
        return
    _differences(one, other, pair[0], pair[1], measured)
    _answers(one, other, pair[0], pair[1], measured)


def _differences(one: MaskRow, other: MaskRow, first: Evaluation, second: Evaluation, measured: Measured) -> None:
    """Say what of the dense model each keeps, and the paired difference with its interval, a line a domain."""
    assert measured.known is not None
    table = paired_differences(first, second, measured.known.dense, measured.metric)
    every = total_of_domains([name for name in table["domain"] if name != EVERY])
    lines = [difference_words(row, one.name, other.name, every) for row in table.to_dict(orient="records")]
    st.markdown("\n".join(f"- {escaped(line)}" for line in lines))
    st.caption(
        f"Retention of {title_of(measured.metric)}, its difference prompt by prompt, with the 90 % interval by Student's t over groups. "
        "Each interval holds for itself."
    )


def difference_words(row: Mapping[Any, Any], one: str, other: str, every: str) -> str:
    """Return in a sentence what two masks keep on a domain and by how much they differ.

    Args:
        row: a row of `paired_differences`.
        every: what all prompts together are called.
    """
    where = f"{row['domain'] or every} ({in_groups(int(row['n']), int(row['groups']))})"
    if pd.isna(row["difference"]):
        return f"{where}: retention is not defined, as the dense model has no right answer there."
    kept = f"{one} keeps {row['one']:.0%}, {other} {row['other']:.0%}"
    if pd.isna(row["low"]):
        why = f"it takes {LEAST_GROUPS} groups" if row["groups"] < LEAST_GROUPS else "no group parts them"
        return f"{where}: {kept}: {100 * row['difference']:+.0f} points; no interval, {why}."
    verdict = "more than chance" if row["low"] > 0 or row["high"] < 0 else "these prompts do not tell them apart"
    ends = f"{100 * row['low']:+.0f} to {100 * row['high']:+.0f}"
    return f"{where}: {kept}: {100 * row['difference']:+.0f} points, 90 % interval {ends}: {verdict}."


def _answers(one: MaskRow, other: MaskRow, first: Evaluation, second: Evaluation, measured: Measured) -> None:
    """Draw the prompts that part the two: those that one keeps and the other breaks, then the other way round."""
    assert measured.known is not None
    assert measured.prompts is not None
    table = parted(first, second, measured.known.dense, measured.metric)
    if table.empty:
        st.caption("No answer parts them: what one breaks the other breaks too.")
        return
    try:
        prompts = {prompt.id: prompt for prompt in opened(measured.prompts)}
    except StrataError as error:
        st.error(escaped(error))
        return
    written = {row.id: _written(row, measured) for row in (one, other)}
    for kept, broken, side in ((one, other, "one"), (other, one, "other")):
        rows = table[table["keeps"] == side]
        if rows.empty:
            continue
        st.markdown(f"**{escaped(kept.name)} keeps, {escaped(broken.name)} breaks: {counted(len(rows), 'answer')}**")
        _offer_writing(broken, written[broken.id], [str(name) for name in rows["id"]], measured)
        for begin in range(0, min(len(rows), CARDS), 3):
            for column, (_, row) in zip(st.columns(3), rows.iloc[begin : begin + 3].iterrows(), strict=False):
                with column, st.container(border=True, height="stretch"):
                    _card(prompts.get(str(row["id"])), str(row["id"]), kept, broken, written, measured)
        if len(rows) > CARDS:
            with st.expander(f"{len(rows) - CARDS} more"):
                st.dataframe(
                    rows.iloc[CARDS:][["id", "domain", "gap"]],
                    hide_index=True,
                    width="stretch",
                    alt=f"More answers that {kept.name} keeps and {broken.name} breaks",
                )
    job_panel("write")


def _written(row: MaskRow, measured: Measured) -> dict[str, str]:
    """Return by prompt what the model wrote with this mask, wherever that is kept."""
    assert measured.known is not None
    model = measured.known.dense.model.fingerprint
    return written_responses(workspace(), model, measured.fingerprint, row.mask, opened)


def _card(
    prompt: Prompt | None,
    prompt_id: str,
    kept: MaskRow,
    broken: MaskRow,
    written: Mapping[str, Mapping[str, str]],
    measured: Measured,
) -> None:
    """Draw one prompt with the answers of the dense model and of both masks."""
    assert measured.known is not None
    if prompt is None:
        st.text(prompt_id)
    else:
        draw_prompt(prompt)
    frame = measured.known.dense.by_prompt.set_index("id")
    right = measured.metric == "exact_match"
    dense = str(frame.loc[prompt_id, "response"] or "") if "response" in frame else ""
    texts = {"Dense": dense or (str(frame.loc[prompt_id, "answer"]) if right else "")}
    texts[kept.name] = written[kept.id].get(prompt_id, "") or (texts["Dense"] if right else "")
    texts[broken.name] = written[broken.id].get(prompt_id, "")
    for name, text in texts.items():
        st.caption(escaped(name))
        draw_text(text or "not written yet")


def _offer_writing(row: MaskRow, written: Mapping[str, str], ids: list[str], measured: Measured) -> None:
    """Draw the button that lets the model write what it answers with this mask, where that is not there."""
    if all(name in written for name in ids) or measured.prompts is None:
        return
    here = model_slot().fingerprint == st.session_state.mask_model.fingerprint
    st.button(
        f"Write the answers of {escaped(row.name)}",
        key=f"write:{row.id}",
        icon=":material/edit_note:",
        on_click=start,
        args=(
            "write",
            f"Writing the answers of {row.name}",
            job(bench().evaluate, measured.prompts, row.mask, row.name, responses=True),
            measured.prompts.id,
            row.mask.key,
        ),
        disabled=not here or ((view := current("write")) is not None and view.active),
        help="What the model says with this mask where it is not exactly right. It takes far longer than scoring."
        if here
        else "The recording's model is not loaded: load it on the Model page.",
    )
