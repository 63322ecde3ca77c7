"""The Model page's parts: where to load from, and what was loaded."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from vlm_analysis.guard.shared import is_shared
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import chosen, model_slot, workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.workbench.workspace import EXPORTS

BUNDLED, FOLDER, HUB = "Bundled: Pocket-VL", "Folder on this machine", "Hugging Face Hub"
EXPORTED = "In the workspace"


def load_form() -> tuple[str, dict[str, Any]]:
    """Draw the choice of source and options; returns the arguments of `load_model`."""
    kinds = [BUNDLED, EXPORTED] if is_shared() else [BUNDLED, FOLDER, HUB]
    kind = st.segmented_control("Where from", kinds, default=BUNDLED, required=True, key="model_kind")
    options: dict[str, Any] = {}
    if kind == BUNDLED:
        source = "pocket-vl"
        st.caption(
            "2.2 million parameters, 16 layers, Qwen3-VL architecture, trained on drawn pictures. What it shows is how the "
            "method works; findings on it say nothing about large models."
        )
    elif kind == EXPORTED:
        source = _exported()
    elif kind == FOLDER:
        source = st.text_input(
            "Folder", placeholder="/models/my-vlm", help="A folder written by save_pretrained, with safetensors."
        )
    else:
        source = st.text_input("Hub id", placeholder="owner/name", help="Downloaded once into the Hugging Face cache.")
        options["revision"] = st.text_input(
            "Revision", "main", help="Branch, tag or commit. A commit makes the run repeatable."
        )
    with st.expander("Options"):
        left, middle, right = st.columns(3)
        options["device"] = left.selectbox(
            "Device", ["auto", "cpu", "cuda"], help="auto takes a GPU where there is one."
        )
        options["dtype"] = middle.selectbox(
            "Precision",
            ["auto", "float32", "bfloat16", "float16"],
            help="auto: the checkpoint's on a GPU; on a CPU float32 where it fits, else bfloat16.",
        )
        bound = right.number_input(
            "Most vision tokens an image",
            0,
            16384,
            0,
            step=64,
            help="0: 256 on a CPU, the model's own limit on a GPU",
        )
        options["max_vision_tokens"] = int(bound) or None
        if kind not in (BUNDLED, EXPORTED):
            options["trust_remote_code"] = st.checkbox(
                "Run Python code that comes with the checkpoint",
                help="That code can do anything you can. Tick only after reading it.",
            )
    return source.strip(), options


def how_asked(info: ModelInfo) -> None:
    """Draw how the model is asked, and in which points the files of its checkpoint disagree about it."""
    loaded = model_slot().loaded
    st.markdown("**How it is asked**")
    context = (
        "not named" if info.context_length is None else f"{info.context_length:,} tokens, longer prompts are refused"
    )
    rows = {
        "chat template": info.chat_template,
        "end of an answer": info.end_token or "not named",
        "context": context,
        "adapter": info.adapter or "none",
    }
    st.text("\n".join(f"{name}: {value}" for name, value in rows.items()))
    if not loaded.has_chat_template:
        st.warning(
            "The checkpoint has no chat template, so a prompt is given as its images and then the question, as base models take it. "
            "If this is a chat model, its template is missing: answers will be poor."
        )
    for text in info.disagreements:
        st.warning(escaped(text))


def _exported() -> str:
    """Draw the choice of a checkpoint in the workspace; returns its path, "" where there is none."""
    folder = workspace().root / EXPORTS
    names = sorted(path.parent.name for path in folder.glob("[!.]*/config.json"))
    help_text = "Checkpoints that were exported here, and those that the owner of the server put there."
    name = st.selectbox("Checkpoint", names, help=help_text, placeholder="None was exported yet")
    return str(folder / name) if name else ""


def details(info: ModelInfo) -> None:
    """Draw what is loaded: its size, where it computes, and each layer with why it should stay."""
    loaded = model_slot().loaded
    cells = {
        "Decoder layers": str(info.n_layers),
        "Parameters": f"{loaded.n_parameters / 1e6:,.1f} M",
        "Computes on": f"{loaded.device}, {info.dtype}",
        "Vision tokens an image": "model's own limit"
        if loaded.max_vision_tokens is None
        else f"at most {loaded.max_vision_tokens}",
    }
    for column, (label, value) in zip(st.columns(len(cells)), cells.items(), strict=True):
        column.metric(label, value, border=True)
    if loaded.dtype_reason:
        st.caption(f"{escaped(info.dtype)}: {escaped(loaded.dtype_reason)}")
    origin = "bundled with Strata" if info.name == "pocket-vl" else f"from {loaded.source}"
    st.text(f"{info.name}\nfingerprint {info.fingerprint[:16]}, {origin}")
    how_asked(info)
    st.markdown("**Decoder layers that should stay** (all others may go)")
    rows = [(layer, "protected: may be unlocked", reason) for layer, reason in info.protected.items()]
    rows += [(layer, "locked", reason) for layer, reason in info.locked.items()]
    frame = pd.DataFrame(sorted(rows), columns=["layer", "level", "why"])
    config = {"layer": st.column_config.NumberColumn(width="small"), "why": st.column_config.TextColumn(width="large")}
    st.dataframe(frame, hide_index=True, width="stretch", row_height=64, column_config=config)
    same_line(line_of("record", chosen("prompts") or "general"), label="This model on the command line")
