"""The Export page's parts: where to, and the proof of what was written."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import streamlit as st

from vlm_analysis.edits.edit import Edit, changes_to_json
from vlm_analysis.edits.kinds.vision import Vision
from vlm_analysis.errors import StrataError
from vlm_analysis.export.probe.value import probe_words
from vlm_analysis.export.serving.engines import LOADS, NOT_VERIFIED, OTHER_ANSWERS, REFUSES
from vlm_analysis.ui.common.held import narrow_of, why_not_narrow
from vlm_analysis.ui.common.session import bench, workspace
from vlm_analysis.ui.common.terms import TERMS
from vlm_analysis.ui.common.text import escaped, layer_list
from vlm_analysis.ui.common.work import Work
from vlm_analysis.words import counted
from vlm_analysis.workbench.workspace import EXPORTS

if TYPE_CHECKING:
    from vlm_analysis.export.checkpoint import Manifest

_VERDICT_ICONS = {
    LOADS: ":material/check:",
    NOT_VERIFIED: ":material/question_mark:",
    OTHER_ANSWERS: ":material/warning:",
    REFUSES: ":material/block:",
}
_VERDICT_COLOURS: dict[str, Literal["green", "grey", "orange", "red"]] = {
    LOADS: "green",
    NOT_VERIFIED: "grey",
    OTHER_ANSWERS: "orange",
    REFUSES: "red",
}


def default_folder(model_name: str, mask: Edit) -> Path:
    """Return a folder in the workspace that says what it holds and is not there yet."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model_name).strip("-.") or "model"
    done = f"without-{'-'.join(map(str, mask.dropped)) or 'nothing'}" if mask.is_mask else f"edited-{mask.key[:8]}"
    return free_folder(f"{name}-{done}")


def free_folder(name: str) -> Path:
    """Return a folder of the workspace's exports that is not there yet, with a number behind its name where it has to."""
    base = workspace().root / EXPORTS / name[:100]
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder


def shortened(path: Path) -> str:
    """Return a path as text, with `~` for the user's home."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _proof(manifest: Manifest) -> None:
    """Draw what was compared, and the answer of both sides."""
    st.success(
        f"Loaded in a fresh process by plain transformers {manifest.transformers_version}: every logit over "
        f"{counted(manifest.probe_tokens, 'token')} of a fixed test prompt (× {manifest.vocabulary} words) is equal "
        f"to the last bit, and so are the "
        f"{counted(manifest.generated_tokens, 'token')} of the greedy answer.",
        icon=":material/verified:",
    )
    left, right = st.columns(2)
    for column, whose, answer in (
        (left, "The evaluated model answers", manifest.generated_answer),
        (right, "The written folder answers, in a process of its own", manifest.reloaded_answer),
    ):
        column.caption(whose)
        column.code(answer or "(nothing that can be shown)", language=None, wrap_lines=True)


def serving_view(mask: Edit, folder: Path, exported: tuple[Manifest, Path] | None = None) -> None:
    """Draw for each engine whether it loads the export, why, and the lines to copy: of the `exported` folder where that is this mask's."""
    if exported is not None and exported[0].changes == changes_to_json(mask):
        folder = exported[1]
    try:
        served = bench().serving(mask, folder.expanduser())
    except StrataError as error:
        st.caption(escaped(error))
        return
    st.subheader("Will it serve?")
    st.caption(
        "Read from the released code of each engine, and not run here except where it says so. Ask the probe whether a server answers "
        "as the exported model does."
    )
    for one in served:
        left, middle, right = st.columns([2, 2, 6])
        left.text(f"{one.engine} {one.version}")
        middle.badge(one.verdict, icon=_VERDICT_ICONS[one.verdict], color=_VERDICT_COLOURS[one.verdict])
        right.caption(escaped(one.reason))
    with st.expander("Lines to copy, and where this was read"):
        for one in served:
            st.caption(escaped(f"{one.engine}: {one.source}"))
            if one.commands:
                st.code("\n".join(one.commands), language="bash", wrap_lines=True)


def _probe_line(folder: Path) -> None:
    """Draw what the probe in an exported folder can tell, and the line that asks a server; nothing where it has none."""
    folder = folder.expanduser()
    try:
        told = probe_words(folder)
    except StrataError as error:
        st.caption(escaped(error))
        return
    if not told:
        return
    st.caption(escaped(f"Does a server answer as this model does? The probe in the folder holds {told}."))
    line = shlex.join(["strata", "probe", "http://127.0.0.1:8000", "--export", str(folder)])
    st.code(line, language="bash", wrap_lines=True)


def manifest_view(manifest: Manifest, folder: Path) -> None:
    """Draw what was written, where, and how it was checked."""
    st.text(f"Written to {shortened(folder.expanduser())}")
    if manifest.verified:
        _proof(manifest)
    left, middle, right = st.columns(3)
    left.metric(
        "Decoder layers",
        f"{manifest.n_layers_after}",
        f"{manifest.n_layers_before} before",
        delta_color="off",
        delta_arrow="off",
        help=TERMS["layer"].meaning,
    )
    saved = 1 - manifest.parameters_after / manifest.parameters_before
    middle.metric(
        "Parameters",
        f"{manifest.parameters_after / 1e6:,.2f} M",
        f"{saved:.0%} fewer",
        delta_color="off",
        delta_arrow="off",
        help="Of the whole model, vision tower and head included.",
    )
    right.metric(
        "Dropped",
        layer_list(manifest.dropped),
        help=f"The layers left out, all of them: {layer_list(manifest.dropped)}.",
    )
    st.code(_loading(manifest, str(folder.expanduser())), language="python")
    _probe_line(folder)
    st.caption("Make it again, where its strata-mask.json lies:")
    st.code(manifest.reproduce, language="bash", wrap_lines=True)
    with st.expander("Manifest"):
        st.json(asdict(manifest))


def _loading(manifest: Manifest, folder: str) -> str:
    """Return the code that loads what was written, with what vision tokens skip."""
    if any(change["kind"] == Vision.kind for change in manifest.changes):
        return (
            f"import sys\n\nsys.path.insert(0, {folder!r})\nfrom strata_vision import load\n\nmodel = load({folder!r})"
        )
    return (
        "from transformers import AutoModelForImageTextToText\n"
        f"model = AutoModelForImageTextToText.from_pretrained({folder!r})"
    )


def ask_masked(mask: Edit) -> tuple[bool, bool]:
    """Draw, for an edit with narrow layers, whether zeros are written; returns that, and whether the edit can be exported so."""
    if narrow_of(mask).is_empty:
        return False, True
    masked = st.checkbox(
        "Masked: zeros in place of what goes",
        key=f"export_masked:{mask.key}",
        help="Narrow layers keep the dense shapes, so that any class that loads the dense model loads them. Such a checkpoint is as large "
        "as the dense one and saves no time. Without it, uniform width makes a smaller checkpoint.",
    )
    if not masked and (reason := why_not_narrow(mask)):
        st.info(
            escaped(
                f"It cannot be written as a smaller checkpoint: {reason}. Tick Masked, or choose width in mode uniform."
            )
        )
        return False, False
    return masked, True


def export_work(mask: Edit, folder: Path, with_probe: bool, masked: bool = False) -> Work:
    """Export a checkpoint, with or without a probe; returns the Manifest and the folder."""
    export, probe = bench().export, None if with_probe else ()
    return lambda progress: (export(mask, folder, probe=probe, masked=masked, on_progress=progress), folder)
