"""The Export page's parts: where to, and the proof of what was written."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from vlm_analysis.masks import PruneMask
from vlm_analysis.ui.session import workspace
from vlm_analysis.ui.text import layer_list

if TYPE_CHECKING:
    from vlm_analysis.export import Manifest


def default_folder(model_name: str, mask: PruneMask) -> Path:
    """Return a folder in the workspace that says what it holds and is not there yet."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model_name).strip("-.") or "model"
    base = workspace().root / "exports" / f"{name}-without-{'-'.join(map(str, mask.dropped)) or 'nothing'}"[:100]
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder


def shortened(path: Path) -> str:
    """Return a path as text, with `~` for the user's home."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def manifest_view(manifest: Manifest, folder: Path) -> None:
    """Draw what was written, where, and how it was checked."""
    st.text(f"Written to {shortened(folder.expanduser())}")
    if manifest.verified:
        st.success(
            f"Loaded again by plain transformers {manifest.transformers_version}: every logit over {manifest.probe_tokens} tokens of "
            "a fixed test prompt is equal to the last bit.",
            icon=":material/verified:",
        )
    left, middle, right = st.columns(3)
    left.metric(
        "Decoder layers",
        f"{manifest.n_layers_after}",
        f"{manifest.n_layers_before} before",
        delta_color="off",
        delta_arrow="off",
    )
    saved = 1 - manifest.parameters_after / manifest.parameters_before
    middle.metric(
        "Parameters",
        f"{manifest.parameters_after / 1e6:,.2f} M",
        f"{saved:.0%} fewer",
        delta_color="off",
        delta_arrow="off",
    )
    right.metric("Dropped", layer_list(manifest.dropped))
    st.code(
        f"from transformers import AutoModelForImageTextToText\n"
        f"model = AutoModelForImageTextToText.from_pretrained({str(folder.expanduser())!r})",
        language="python",
    )
    with st.expander("Manifest"):
        st.json(asdict(manifest))
