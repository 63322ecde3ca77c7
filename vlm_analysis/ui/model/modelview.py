"""The Model page's parts: where to load from, and what was loaded."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from vlm_analysis.assets import BUNDLED_MODELS
from vlm_analysis.guard.shared import is_shared
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.ui.common.recent import offer_recent
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import chosen, workspace
from vlm_analysis.ui.common.terms import TERMS
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.workbench.recent import RecentModel, recent_models
from vlm_analysis.workbench.slot import Held
from vlm_analysis.workbench.workspace import EXPORTS

BUNDLED, FOLDER, HUB = "Bundled", "Folder on this machine", "Hugging Face Hub"
DEVICES, DTYPES = ["auto", "cpu", "cuda"], ["auto", "float32", "bfloat16", "float16"]
EXPORTED = "In the workspace"
_SIZE = "2.2 million parameters, 16 layers, Qwen3-VL architecture"
_ABOUT = {
    "pocket-vl": f"{_SIZE}, trained on drawn pictures; made for the packs general and math.",
    "pocket-vl-steps": f"{_SIZE}, trained on to answer in three to five steps; made for the pack steps.",
}


def load_form() -> tuple[str, dict[str, Any]]:
    """Draw the choice of source and options; returns the arguments of `load_model`."""
    kinds = [BUNDLED, EXPORTED] if is_shared() else [BUNDLED, FOLDER, HUB]
    models = {one.source: one for one in recent_models(workspace())}
    words = {source: f"{one.name} · {source}" for source, one in models.items()}
    offer_recent(words, "model_recent", lambda source: _take_recent(models[source]))
    kind = st.segmented_control("Where from", kinds, default=BUNDLED, required=True, key="model_kind")
    options: dict[str, Any] = {}
    if kind == BUNDLED:
        source = _bundled()
    elif kind == EXPORTED:
        source = _exported()
    elif kind == FOLDER:
        source = st.text_input(
            "Folder",
            placeholder="/models/my-vlm",
            key="model_folder",
            help="A folder written by save_pretrained, with safetensors.",
        )
    else:
        source = st.text_input(
            "Hub id", placeholder="owner/name", key="model_hub", help="Downloaded once into the Hugging Face cache."
        )
        st.session_state.setdefault("model_revision", "main")
        options["revision"] = st.text_input(
            "Revision", key="model_revision", help="Branch, tag or commit. A commit makes the run repeatable."
        )
    with st.expander("Options"):
        left, middle, right = st.columns(3)
        options["device"] = left.selectbox(
            "Device", DEVICES, key="model_device", help="auto takes a GPU where there is one."
        )
        options["dtype"] = middle.selectbox(
            "Precision",
            DTYPES,
            key="model_dtype",
            help="auto: the checkpoint's on a GPU; on a CPU float32 where it fits, else bfloat16.",
        )
        bound = right.number_input(
            "Most vision tokens an image",
            0,
            16384,
            0,
            step=64,
            key="model_tokens",
            help="0: 256 on a CPU, the model's own limit on a GPU",
        )
        options["max_vision_tokens"] = int(bound) or None
        options |= _spread()
        if kind not in (BUNDLED, EXPORTED):
            options["trust_remote_code"] = st.checkbox(
                "Run Python code that comes with the checkpoint",
                help="That code can do anything you can. Tick only after reading it.",
            )
    return source.strip(), options


def _spread() -> dict[str, Any]:
    """Draw whether the model is spread over devices; returns these arguments of `load_model`."""
    left, right = st.columns([1, 2], vertical_alignment="bottom")
    is_spread = left.checkbox(
        "Spread over devices",
        key="model_spread",
        help="For a model that is too large: GPUs first, then memory, and what is left is read from disk at every pass, which is slow.",
    )
    bounds = right.text_input(
        "Most memory for weights",
        key="model_memory",
        placeholder="cpu=8GiB,cuda:0=20GiB",
        disabled=not is_spread,
        help="By device; left empty, four fifths of what is free there.",
    )
    return {"device_map": "auto" if is_spread else None, "max_memory": (bounds.strip() or None) if is_spread else None}


def _take_recent(model: RecentModel) -> None:
    """Fill the form with a model that was loaded before; what lets its code run is not ticked."""
    state, options = st.session_state, model.options
    is_hub = options.get("revision") is not None
    state["model_kind"] = HUB if is_hub else FOLDER
    state["model_hub" if is_hub else "model_folder"] = model.source
    state["model_revision"] = options.get("revision") or "main"
    for name, key in (("device", "model_device"), ("dtype", "model_dtype")):
        state[key] = options.get(name, "auto")
    state["model_tokens"] = options.get("max_vision_tokens") or 0
    state["model_spread"] = options.get("device_map") is not None
    state["model_memory"] = options.get("max_memory") or ""


def how_asked(info: ModelInfo) -> None:
    """Draw how the model is asked, and in which points the files of its checkpoint disagree about it."""
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
    if info.chat_template == "none":
        st.warning(
            "The checkpoint has no chat template, so a prompt is given as its images and then the question, as base models take it. "
            "If this is a chat model, its template is missing: answers will be poor."
        )
    for text in info.disagreements:
        st.warning(escaped(text))


def _bundled() -> str:
    """Draw the choice of a bundled model; returns its name."""
    picked = st.segmented_control(
        "Which one",
        list(BUNDLED_MODELS),
        default=next(iter(BUNDLED_MODELS)),
        required=True,
        format_func=BUNDLED_MODELS.__getitem__,
        key="model_bundled",
    )
    st.caption(
        f"{_ABOUT[picked]} What it shows is how the method works; findings on it say nothing about large models."
    )
    return picked


def _exported() -> str:
    """Draw the choice of a checkpoint in the workspace; returns its path, "" where there is none."""
    folder = workspace().root / EXPORTS
    names = sorted(path.parent.name for path in folder.glob("[!.]*/config.json"))
    help_text = "Checkpoints that were exported here, and those that the owner of the server put there."
    name = st.selectbox("Checkpoint", names, help=help_text, placeholder="None was exported yet")
    return str(folder / name) if name else ""


CELL_HELP = {
    "Decoder layers": TERMS["layer"].meaning,
    "Parameters": "Of the whole model, vision tower and head included.",
    "Computes on": "The device, and the type of the numbers.",
    "Vision tokens an image": "The most that an image may become; larger images are made smaller first.",
}


def details(loaded: Held) -> None:
    """Draw what is loaded: its size, where it computes, and each layer with why it should stay."""
    info = loaded.info
    cells = {
        "Decoder layers": str(info.n_layers),
        "Parameters": f"{info.n_parameters / 1e6:,.1f} M",
        "Computes on": f"{loaded.device}, {info.dtype}",
        "Vision tokens an image": "model's own limit"
        if loaded.max_vision_tokens is None
        else f"at most {loaded.max_vision_tokens}",
    }
    for column, (label, value) in zip(st.columns(len(cells)), cells.items(), strict=True):
        column.metric(label, value, border=True, help=CELL_HELP[label])
    if len(places := loaded.places) > 1:
        st.dataframe(
            pd.DataFrame({"where": list(places), "weights": [n_bytes / 2**20 for n_bytes in places.values()]}),
            hide_index=True,
            column_config={"weights": st.column_config.NumberColumn(format="%.1f MiB")},
            alt="Where the weights are kept",
        )
        st.caption("What is on disk is read at every pass. Fine-tuning and scores of width need all weights in memory.")
    if loaded.dtype_reason:
        st.caption(f"{escaped(info.dtype)}: {escaped(loaded.dtype_reason)}")
    origin = "bundled with Strata" if info.name in BUNDLED_MODELS else f"from {loaded.source}"
    st.text(
        f"{info.name}\nfingerprint {info.fingerprint[:16]}, {origin}", help=f"The whole fingerprint: {info.fingerprint}"
    )
    how_asked(info)
    st.markdown("**Decoder layers that should stay** (all others may go)")
    rows = [(layer, "protected: may be unlocked", reason) for layer, reason in info.protected.items()]
    rows += [(layer, "locked", reason) for layer, reason in info.locked.items()]
    frame = pd.DataFrame(sorted(rows), columns=["layer", "level", "why"])
    config = {"layer": st.column_config.NumberColumn(width="small"), "why": st.column_config.TextColumn(width="large")}
    st.dataframe(
        frame,
        hide_index=True,
        width="stretch",
        row_height=64,
        column_config=config,
        alt="Decoder layers that should stay, and why",
    )
    same_line(line_of("record", chosen("prompts") or "general"), label="This model on the command line")
