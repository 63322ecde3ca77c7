"""The files of a mask: a download for each format, with what it is for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.files import edit_to_json
from vlm_analysis.edits.foreign.lists import mask_to_llama_cpp, mask_to_optipfair
from vlm_analysis.edits.foreign.puzzletron import mask_to_puzzletron
from vlm_analysis.errors import StrataError
from vlm_analysis.export.dialects import mask_to_csv, mask_to_mergekit
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.ui.common.session import model_slot
from vlm_analysis.ui.common.text import escaped

_FILES: tuple[tuple[str, str, str, Callable[[Edit], str], str], ...] = (
    (
        "JSON",
        "strata-mask.json",
        "application/json",
        edit_to_json,
        "The source of the others: layers from 0, the model with revision and fingerprint, and where the mask comes from.",
    ),
    (
        "mergekit",
        "strata-mask.yaml",
        "application/yaml",
        mask_to_mergekit,
        "Passthrough slices of the text decoder for mergekit-yaml; the vision parts are kept whole.",
    ),
    (
        "CSV",
        "strata-mask.csv",
        "text/csv",
        mask_to_csv,
        "One row for each layer, counted from 0: layer, kept (1 or 0), drop order where known (1 went first).",
    ),
    (
        "optipfair",
        "strata-mask.optipfair.json",
        "application/json",
        mask_to_optipfair,
        "The layers to drop as a list, for `layer_indices` of `prune_model`.",
    ),
    (
        "llama.cpp",
        "strata-mask.txt",
        "text/plain",
        mask_to_llama_cpp,
        "The flag of llama-quantize that leaves the layers out of a dense GGUF file of the text decoder.",
    ),
    (
        "Puzzletron",
        "strata-mask.puzzletron.json",
        "application/json",
        lambda mask: mask_to_puzzletron(mask, _configuration(mask)),
        "The model's config.json with `block_configs`, in which dropped layers do nothing.",
    ),
)


def mask_files(mask: Edit, info: ModelInfo | None) -> None:
    """Draw one download for each format of the mask, with what it is for; a mask without a model gets the loaded one's."""
    mask = replace(mask, model=mask.model or info)
    for label, file_name, mime, write, what in _FILES:
        left, right = st.columns([1, 3], vertical_alignment="center")
        try:
            text = write(mask)
        except StrataError as error:
            left.button(label, icon=":material/download:", disabled=True, width="stretch", key=f"no-{file_name}")
            right.caption(escaped(error))
            continue
        left.download_button(
            label, text, file_name, mime, icon=":material/download:", on_click="ignore", width="stretch", key=file_name
        )
        right.caption(what)
    st.caption(
        "Entries with `skip` in transformers' `per_layer_config` are not written: transformers 5.23 keeps them in the configuration, "
        "but no model leaves a layer out because of one. An exported checkpoint has its layer count changed and needs no such entry."
    )


def _configuration(mask: Edit) -> dict[str, Any] | None:
    """Return the configuration of the loaded model, if the mask is for it."""
    held = model_slot().held
    if held is None or mask.model is None or mask.model.fingerprint != held.info.fingerprint:
        return None
    content: dict[str, Any] = json.loads(held.configuration)
    return content
