"""The scan of vision tokens: the job that measures it, what it says beside Skip-It's conditions, and edits chosen from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.skipping import early_exit, late_entry
from vlm_analysis.errors import StrataError
from vlm_analysis.evaluation.scan import DENSE, EARLY_EXIT, FROZEN, LATE_ENTRY, VisionScan
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.bands import SkipBands
from vlm_analysis.selection.vision import KL_BOUND, exit_by_kl, freeze_by_kl, within_flops
from vlm_analysis.ui.common.clusterfield import where_it_runs
from vlm_analysis.ui.common.downloads import offer_table
from vlm_analysis.ui.common.editor import edit
from vlm_analysis.ui.common.inputs import missing_to_measure, prompts_of, say_missing
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.pickers import open_or_stop
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import bench, model_slot, workspace
from vlm_analysis.ui.common.shell import say_set_aside
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.common.work import clustered, job
from vlm_analysis.words import counted, sentence
from vlm_analysis.workbench.scans import find_scan

JOB = "scan"
WAYS = {  # what each draws, and the outermost layer that it skips, from the layer of its name
    f"{LATE_ENTRY}: skipped up to here": (LATE_ENTRY, -1),
    f"{EARLY_EXIT}: skipped from here on": (EARLY_EXIT, 0),
    f"{FROZEN}: here alone": (FROZEN, 0),
}
BANDS, EXIT, FREEZE, FLOPS = "the bands above", "exit by KL (VTW)", "freeze by KL (ShortV)", "least KL within FLOPs"


def scan_of(recording: Recording) -> VisionScan | None:
    """Return the newest scan of the recording's model and prompts; None where there is none."""
    item = find_scan(workspace(), recording.model.fingerprint, recording.prompts)
    return None if item is None else open_or_stop(item)


def damage_of(scan: VisionScan, domain: str | None) -> dict[str, np.ndarray]:
    """Return the (n_layers,) KL to the dense model by way, each at the outermost layer that vision tokens skip; NaN where not scanned.

    Raises:
        EvaluationError: no prompt of this domain was scanned.
    """
    kl, n_layers = scan.table(domain)["kl_to_dense"], scan.model.n_layers
    return {
        words: np.array([kl.get((way, layer - shift), np.nan) for layer in range(n_layers)], dtype=np.float64)
        for words, (way, shift) in WAYS.items()
    }


def draw_scan(recording: Recording, scan: VisionScan | None, bands: SkipBands, domain: str | None) -> None:
    """Draw the button that scans where there is no scan; else what can be chosen from it, and its numbers."""
    st.subheader("What skipping does", anchor=False)
    if scan is None:
        st.markdown(
            "The conditions are cheap guesses. A scan measures: every late entry, every early exit and every frozen layer, each "
            "scored on the recorded prompts. Its damage then stands below the curves, on the same layers."
        )
        _measure(recording)
    else:
        say_set_aside(scan.set_aside, len(scan.by_prompt["id"].unique()))
        _choose(recording, scan, bands, domain)
        with st.expander("Numbers of the scan"):
            offer_table(_frame(scan, domain), "scan", alt="What each way of skipping does to the answers")
    job_panel(JOB, "What was scanned is kept: scan again to go on.")


def _measure(recording: Recording) -> None:
    prompts, missing = prompts_of(recording), missing_to_measure(recording)
    info = model_slot().info
    locked = {} if info is None or missing else info.vision_locked
    if missing or prompts is None:
        say_missing(missing)
        return
    if len(locked) == recording.n_layers:
        st.info(escaped(f"Vision tokens can skip no layer of {recording.model.name}: {locked[0]}."))
        return
    n_ways = 3 * recording.n_layers - len(locked)
    st.caption(
        f"At most {counted(n_ways, 'edit')} on {counted(recording.n_prompts, 'prompt')}. They share the vision tower and their first "
        "layers, which costs about half of one by one. A job that is cancelled is taken up where it stopped."
    )
    cluster, own = where_it_runs(JOB), bench()
    st.button(
        "Scan vision tokens",
        type="primary",
        icon=":material/troubleshoot:",
        on_click=start,
        args=(
            JOB,
            f"Scanning vision tokens on {prompts.name}",
            clustered(cluster, own, job(own.measure_scan, prompts)),
            prompts.id,
        ),
        disabled=(view := current(JOB)) is not None and view.active,
    )
    same_line(line_of("scan", prompts, cluster=cluster))


def _choose(recording: Recording, scan: VisionScan, bands: SkipBands, domain: str | None) -> None:
    """Draw the ways to choose an edit from the scan, what the chosen one does, and the button that takes it into the editor."""
    left, right = st.columns(2)
    way = left.selectbox(
        "Choose where they skip by",
        [EXIT, FREEZE, FLOPS, BANDS],
        key="scan_way",
        persist_state="session",
        help="VTW, arXiv:2405.05803: the earliest exit whose KL at the last prompt token stays within a bound. ShortV, "
        "arXiv:2504.00502: the layers of least KL, frozen. FLOPs: of a prefill in the decoder layers, by formula.",
    )
    try:
        chosen = _chosen(way, scan, bands, domain, right)
    except StrataError as error:
        st.caption(escaped(error))
        return
    if chosen.is_dense:
        st.caption("It skips no layer.")
        return
    share = f"; {scan.flops_share(chosen):.0%} of the FLOPs of a prefill" if scan.model.layer_parameters else ""
    st.markdown(escaped(f"{sentence(chosen.words())}{share}."))
    st.button(
        "Take it into the editor",
        icon=":material/edit:",
        on_click=edit,
        args=(
            replace(chosen, name=sentence(chosen.words())[:120], provenance={"prompts": scan.prompts}),
            recording.model,
        ),
        help="In place of what is there now; undo brings that back.",
    )
    st.caption(
        "Each layer was measured alone, and harms do not add up: evaluate what you choose, on other prompts than these."
    )


def _chosen(
    way: str, scan: VisionScan, bands: SkipBands, domain: str | None, place: st.delta_generator.DeltaGenerator
) -> Edit:
    n_layers, how = scan.model.n_layers, {"form": scan.form, "deepstack": scan.deepstack}
    if way == EXIT:
        bound = place.number_input(
            "KL at most, nats", 0.0, 10.0, KL_BOUND, 0.001, format="%.4f", key="scan_bound", help="VTW's is 0.003."
        )
        return exit_by_kl(scan, bound=bound, first=1, domain=domain)
    if way == FREEZE:
        most = max(1, len(scan.table(domain).loc[FROZEN])) if FROZEN in scan.table(domain).index else 1
        number = place.slider("Layers to freeze", 1, most, min(4, most), key="scan_frozen")
        return freeze_by_kl(scan, number, domain=domain)
    if way == FLOPS:
        percent = place.slider("FLOPs at most, %", 1, 100, 80, key="scan_flops", help="Of the dense model's prefill.")
        return within_flops(scan, percent / 100, domain=domain)
    exits = early_exit(n_layers, bands.early_exit[0], **how) if bands.early_exit else Edit(n_layers)  # type: ignore[arg-type]
    return late_entry(n_layers, len(bands.late_entry), **how) + exits  # type: ignore[arg-type]


def _frame(scan: VisionScan, domain: str | None) -> pd.DataFrame:
    frame = scan.table(domain).reset_index()
    frame.loc[frame["way"] == DENSE, "layer"] = pd.NA
    return frame
