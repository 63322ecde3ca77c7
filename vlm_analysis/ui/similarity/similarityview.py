"""The Similarity page's pictures of one recording: layers by domain, every measure, spans, and the numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import streamlit as st

from vlm_analysis.export.story import domain_rows
from vlm_analysis.recording.findings import similarity_finding
from vlm_analysis.recording.measures import DELTAS, MEASURES, SHARES
from vlm_analysis.recording.recording import Recording
from vlm_analysis.recording.tables import measure_table, prompt_table, span_table
from vlm_analysis.recording.tasks import task_similarity, task_table, tasks_of
from vlm_analysis.recording.towertable import has_tower, tower_table
from vlm_analysis.ui.common.downloads import PICTURE, offer_table
from vlm_analysis.ui.common.terms import explained
from vlm_analysis.ui.common.text import GROUP_HELP, escaped
from vlm_analysis.ui.similarity.layercard import layer_card, take_layer
from vlm_analysis.ui.similarity.titles import CKA, MEASURE_TITLES
from vlm_analysis.words import TOKEN_GROUPS, counted, total_of_domains

CKA_FORMULA = "Σ HSIC(x, y) / √(Σ HSIC(x, x) · Σ HSIC(y, y)), unbiased, summed over prompts"
HEATMAP = "similarity-heatmap"
CELL_PX, BESIDE_CELLS_PX = 60, 190  # the width from which a number fits a cell; that of names and the colour bar
CKA_SOURCE = "arXiv:1905.00414, minibatch form of arXiv:2010.15327; one prompt is one batch (our choice)"


def token_group(key: str) -> str:
    """Draw the switch between token groups and say what the chosen one holds."""
    order = ["all", *(group for group in TOKEN_GROUPS if group != "all")]
    group = st.segmented_control(
        "Tokens", order, default="all", required=True, key=key, help="Which tokens the numbers are averaged over."
    )
    explained(f"[[tokens_{group}|{group}]]: {GROUP_HELP[group]}")
    return group


def heatmap(recording: Recording, group: str) -> None:
    """Draw what the recording tells as a title, then layers × domains or tasks; a click opens a layer's card."""
    from vlm_analysis.figures.heatmaps import similarity_heatmap, task_heatmap

    if finding := similarity_finding(recording, group):
        st.markdown(f"#### {escaped(finding)}")
    rows, fitted = _ask_looks(recording)
    looks = {"locks": recording.model.locks, "fitted": fitted, "written": True, "clickable": True}
    if rows == "tasks":
        tasks = tasks_of(recording)
        figure = task_heatmap(task_similarity(recording, group), list(tasks), **looks)
        least = min(map(len, tasks.values()))
        st.caption(
            f"{counted(len(tasks), 'task')}, of {counted(least, 'prompt')} at least: few prompts make a row of noise."
        )
    else:
        figure = similarity_heatmap(domain_rows(recording, group), recording.domain_names, **looks)
    _write_where_cells_are_wide(recording.n_layers)
    st.plotly_chart(
        figure,
        key=HEATMAP,
        config=PICTURE,
        on_select=lambda: take_layer(HEATMAP),
        selection_mode="points",
        alt=finding or "Similarity of each layer's input and output by domain",
    )
    explained(
        "[[similarity|Cosine]] of a layer's true input and raw output in float32, mean over a prompt's tokens, then over prompts with "
        "equal weight. "
        + (
            "The colours go from the least to the largest value here, and compare with no other picture. "
            if fitted
            else "The colours are the same for every model and recording, so that two pictures compare. "
        )
        + "P marks [[protected|layers that should stay]]."
    )
    layer_card(recording, group)


def _ask_looks(recording: Recording) -> tuple[str, bool]:
    """Draw what the rows are, where the prompts have tasks, and which scale the colours are on."""
    line, rows = st.container(horizontal=True), "domains"
    if recording.tasks:
        rows = line.segmented_control(
            "Rows",
            ["domains", "tasks"],
            default="domains",
            required=True,
            key="similarity_rows",
            help="A row for each domain, or for each task in it.",
        )
    scale = line.segmented_control(
        "Colours",
        ["fixed", "this recording"],
        default="fixed",
        required=True,
        key="similarity_colours",
        persist_state="session",
        help="**fixed**: from cosine 0 to 0.999, the same for every recording. **this recording**: from the least to the largest value.",
    )
    return rows, scale == "this recording"


def _write_where_cells_are_wide(n_layers: int) -> None:
    """Show the numbers in the cells only where the browser makes each at least 60 px wide."""
    wide = n_layers * CELL_PX + BESIDE_CELLS_PX
    st.html(
        f"<style>.st-key-{HEATMAP} {{ container-type: inline-size; }} .st-key-{HEATMAP} .heatmap-label {{ display: none; }} "
        f"@container (min-width: {wide}px) {{ .st-key-{HEATMAP} .heatmap-label {{ display: inline; }} }}</style>"
    )


def missing_tokens(recording: Recording, group: str) -> None:
    """Say which prompts could not be counted, where numbers were not finite, and where sink tokens lead a mean astray."""
    absent = recording.n_prompts - recording.prompts_with(None, group)
    if absent:
        st.caption(
            f"Left out: {absent} of {counted(recording.n_prompts, 'prompt')}, without a token of the group “{group}”."
        )
    broken = int(recording.rows["nonfinite"].sum())
    if broken:
        layers = np.flatnonzero(recording.rows["nonfinite"].sum(axis=0))
        st.warning(
            f"{broken} token cosines were not finite, in layers {layers.tolist()}. They are shown as missing, not replaced."
        )
    sinks = recording.rows["sinks"] > 0
    share = sinks.any(axis=1).mean()
    if share > 0.5:
        layers = np.flatnonzero(sinks.mean(axis=0) > 0.5)
        st.caption(
            f":material/warning: Sink tokens: in {share:.0%} of prompts a token's norm is over 20 times its layer's median (mostly in "
            f"layers {layers.tolist() or 'that differ by prompt'}). Such a token hardly turns, and lifts a mean over few tokens."
        )


def contrast(recording: Recording, group: str) -> None:
    """Draw the difference of two domains, chosen on the spot."""
    from vlm_analysis.figures.heatmaps import difference_heatmap

    names = list(recording.domain_names)
    st.markdown("**Where two domains part**")
    if len(names) < 2:
        st.caption("There is one domain in this recording; record prompts of two to compare them.")
        return
    left, right = st.columns(2)
    one = left.selectbox("Domain", names, index=0, key="contrast_one")
    other = right.selectbox("minus domain", names, index=1, key="contrast_other")
    gap = recording.layer_similarity(one, group) - recording.layer_similarity(other, group)
    st.plotly_chart(
        difference_heatmap(gap[None], [f"{one} − {other}"]),
        key="similarity-contrast",
        config=PICTURE,
        alt=f"Similarity on {one} minus similarity on {other}, by layer",
    )
    st.caption(f"Blue: the layer works harder on {escaped(one)} prompts. Orange: harder on {escaped(other)} prompts.")


def measures(recording: Recording, group: str) -> None:
    """Draw any recorded measure by domain, with its formula and source."""
    from vlm_analysis.figures.recorded import measure_heatmap

    there = [name for name in MEASURE_TITLES if recording.has("hsic" if name == CKA else name)]
    first = min(there.index("update") if "update" in there else 0, len(there) - 1)
    name = st.selectbox("Measure", there, index=first, format_func=MEASURE_TITLES.__getitem__, key="measure")
    which = _third_axis(name)
    names = recording.domain_names
    values = np.stack([_measure(recording, name, domain, group, which) for domain in names])
    figure = measure_heatmap(values, names, name, locks=recording.model.locks)
    st.plotly_chart(
        figure, key="measure-heatmap", config=PICTURE, alt=f"{MEASURE_TITLES[name]} of each layer, by domain"
    )
    formula, source = (CKA_FORMULA, CKA_SOURCE) if name == CKA else (MEASURES[name].formula, MEASURES[name].source)
    st.caption(
        f"{escaped(formula)}. x enters the layer, y leaves it, m stands between attention and MLP. {escaped(source)}"
    )
    if name != CKA and "group" not in MEASURES[name].axes:
        st.caption("This measure has no token groups; the switch above does not change it.")
    if name in ("attention_cosine", "mlp_cosine"):
        figure = measure_heatmap(
            np.stack([recording.layer_values(part, None, group) for part in ("attention_cosine", "mlp_cosine")]),
            ["attention", "MLP"],
            name,
        )
        st.markdown("**Both parts of a layer, all domains**")
        st.plotly_chart(
            figure, key="sub-layers", config=PICTURE, alt="Similarity over the attention and the MLP of each layer"
        )
    if not recording.has("visual_attention"):
        st.caption("Visual attention ratio and important tokens: record with attention maps (Options, above).")
    if lacking := [MEASURES[name].title.lower() for name in recording.lacks]:
        st.caption(
            f"Not recorded, as this recording is older than the measure: {', '.join(lacking)}. Record again to have it."
        )


def _third_axis(name: str) -> int | None:
    if name == "changed":
        return st.select_slider(
            "δ", range(len(DELTAS)), value=2, format_func=lambda index: f"{DELTAS[index]:g}", key="delta"
        )
    if name == "important_cosine":
        return st.select_slider(
            "Share of tokens taken",
            range(len(SHARES)),
            value=1,
            format_func=lambda index: f"{SHARES[index]:.0%}",
            key="share",
        )
    return None


def _measure(recording: Recording, name: str, domain: str | None, group: str, which: int | None) -> np.ndarray:
    if name == CKA:
        return recording.linear_cka(domain, group)
    return recording.layer_values(name, domain, group, which=which)


def spans(recording: Recording, group: str) -> None:
    """Draw the cosine of every pair of streams, and the span of a chosen length that changes least."""
    from vlm_analysis.figures.recorded import span_heatmap

    left, right = st.columns(2)
    choices = [None, *recording.domain_names]
    total = total_of_domains(recording.domain_names)
    domain = left.selectbox("Domain", choices, format_func=lambda name: name or total, key="span_domain")
    most = max(1, recording.n_layers - 2)
    length = right.slider("Layers in a row", 1, most, min(4, most), key="span_length") if most > 1 else 1
    matrix = recording.span_similarity(domain, group)
    diagonal = np.diagonal(matrix, offset=length).copy()
    first = int(np.nanargmax(diagonal)) if np.isfinite(diagonal).any() else None
    outlined = None if first is None else (first, first + length)
    st.plotly_chart(
        span_heatmap(matrix, outlined=outlined),
        key="span-heatmap",
        config=PICTURE,
        alt="Similarity of every pair of streams",
    )
    if first is not None:
        least = f"layer {first} changes" if length == 1 else f"layers {first} to {first + length - 1} change"
        st.caption(
            f"Of all runs of {counted(length, 'layer')}, {least} the stream least: cosine {diagonal[first]:.4f} of what enters and what "
            "leaves (outlined). Protected layers are not left out here."
        )
    st.caption(
        "A span tells more than its layers' own numbers: small changes can add up or cancel. Where DeepStack adds vision features "
        "between two layers, the span holds the addition too."
    )


def numbers(recording: Recording, group: str) -> None:
    """Draw the tables, sortable, with downloads."""
    tables: dict[str, Callable[[], pd.DataFrame]] = {
        "Every measure by layer, domain and token group": lambda: measure_table(recording),
        f"Every prompt ({group} tokens)": lambda: prompt_table(recording, group),
        f"Every span ({group} tokens)": lambda: span_table(recording, group),
    }
    if has_tower(recording):
        tables["Layers of the vision encoder by domain"] = lambda: tower_table(recording)
    if recording.tasks:
        tables["Similarity by layer, task and token group"] = lambda: task_table(recording)
    picked = st.selectbox("Table", list(tables), key="table_kind")
    frame = tables[picked]()
    offer_table(frame, "-".join(picked.split(" (")[0].lower().split())[:40], alt=picked, has_chart=False)
