"""The Similarity page's upper part: what to record, an unfinished recording to go on with, and recordings as files."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.recording.recording import Recording, open_recording
from vlm_analysis.ui.common.clusterfield import where_it_runs
from vlm_analysis.ui.common.jobs import current, start
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import bench, choose, opened, workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.common.work import clustered, job
from vlm_analysis.words import TOKEN_GROUPS, counted
from vlm_analysis.workbench.shelf import keep_recording, unfinished_folder
from vlm_analysis.workbench.workspace import Item

MAX_FILE_MB = 500
MOST_WITH_MAPS = 50  # prompts of which token maps are kept unless the user says otherwise


def record_form(info: ModelInfo, prompts: Item) -> None:
    """Draw what is recorded on what, the options, and the button."""
    left, right = st.columns([3, 1], vertical_alignment="center")
    left.markdown(
        f"Record **{escaped(info.name)}** on **{escaped(prompts.name)}** ({counted(prompts.details.get('n', 0), 'prompt')})."
    )
    options, own = _options(info, prompts), bench()
    cluster = where_it_runs("record")
    folder = unfinished_folder(workspace(), info.fingerprint, prompts, options)
    name = f"{info.name} on {prompts.name}"
    right.button(
        "Go on recording" if folder.exists() else "Record",
        type="primary",
        icon=":material/sensors:",
        on_click=start,
        args=(
            "record",
            f"Recording {name}",
            clustered(cluster, own, job(own.record, prompts, name, **options)),
            prompts.id,
            info.fingerprint,
            options,
        ),
        disabled=(view := current("record")) is not None and view.active,
        width="stretch",
        help="One forward pass a prompt. Hidden states are not kept. Prompts that a saved recording of this model with the same "
        "options holds already are not run again.",
    )
    line_options = options | {"batch_size": options["batch_size"] if options["batch_size"] > 1 else None}
    same_line(line_of("record", prompts, name=name, cluster=cluster, **line_options))
    if folder.exists() and (view is None or not view.active):
        words, forget = st.columns([3, 1], vertical_alignment="center")
        words.caption(
            "An earlier recording of these was cancelled or interrupted. What it recorded is kept and not run again."
        )
        forget.button(
            "Forget it", on_click=_forget, args=(folder,), width="stretch", help="Start over from the first prompt."
        )


def _forget(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _options(info: ModelInfo, prompts: Item) -> dict[str, Any]:
    """Draw the options; token maps are kept of few prompts unless the user says otherwise."""
    count = prompts.details.get("n")
    few = isinstance(count, int) and count <= MOST_WITH_MAPS
    with st.expander("Options"):
        left, middle, right = st.columns(3)
        attention = left.checkbox(
            "Attention maps",
            key="record_attention",
            persist_state="session",
            help="Also reads attention, for the visual attention ratio (Skip-It?) and the similarity of important tokens "
            "(Short-LVLM). The pass is slower, as the decoder then computes attention in the open.",
        )
        maps = middle.checkbox(
            "Token maps",
            value=few,
            key=f"record_maps:{prompts.id}",
            persist_state="session",
            help="Keeps every token's cosine on disk, to look at single prompts token by token, vision tokens drawn over the image. "
            f"On by default for up to {MOST_WITH_MAPS} prompts.",
        )
        batch = right.number_input(
            "Prompts a batch",
            1,
            64,
            1,
            key="record_batch",
            persist_state="session",
            help="More is faster on a GPU and slower on most CPUs. It changes results by less than 0.00001.",
        )
        if maps:
            st.caption(f"Token maps: {_cost_of_maps(info, count)}.")
    return {"attention": attention, "token_maps": maps, "batch_size": int(batch)}


def _cost_of_maps(info: ModelInfo, count: Any) -> str:
    """Return what token maps take on disk, by the tokens of this model's newest recording, and in time."""
    item, time_words = (
        workspace().newest("recordings", model=info.fingerprint),
        "recording takes about a tenth longer (seen on Pocket-VL)",
    )
    try:
        recording: Recording | None = None if item is None else opened(item)
    except StrataError:
        recording = None
    if recording is None or not isinstance(count, int):
        return f"2 bytes a token and layer on disk; {time_words}"
    columns = [TOKEN_GROUPS.index(group) for group in ("vision", "text", "answer")]
    n_tokens = float(recording.rows["token_counts"][:, columns].sum(axis=1).mean())
    return f"about {_megabytes(2 * n_tokens * info.n_layers * count)} on disk before packing; {time_words}"


def _megabytes(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:.0f} kB"


def recording_file(item: Item) -> None:
    """Draw the download of a saved recording; the bytes are read when they are asked for."""
    st.download_button(
        "Download the recording",
        lambda: item.path.read_bytes(),
        f"{item.name[:60]}.npz",
        "application/octet-stream",
        icon=":material/download:",
        on_click="ignore",
        help="One file without pickle. It opens here, or in Python by open_recording, without the model and without PyTorch.",
    )


def open_file() -> None:
    """Draw an uploader for a recording made elsewhere, and keep what it holds on a click."""
    file = st.file_uploader(
        "Open a recording file",
        type=["npz"],
        max_upload_size=MAX_FILE_MB,
        help="Made by Strata on any machine; neither the model nor a GPU is needed to look at it.",
    )
    if file is not None and st.button("Keep it in the workspace", icon=":material/save:"):
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "uploaded.npz"
            try:
                path.write_bytes(file.getbuffer())
                recording = open_recording(path)
                choose("recordings", keep_recording(workspace(), recording, f"{Path(file.name).stem} (from a file)"))
            except (StrataError, OSError) as error:
                st.error(escaped(error))
                return
        st.rerun()
