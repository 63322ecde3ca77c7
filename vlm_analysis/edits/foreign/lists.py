"""Lists of layers: optipfair's `layer_indices` and llama.cpp's flag `--prune-layers`; those of ShortV are told apart.

A list does not say how many layers the model has, nor which of its layers goes first. optipfair takes one as a Python list
(`prune_model(model, pruning_type="DEPTH", layer_indices=[3, 4])`) or as `--layer-indices 3,4`; `llama-quantize` as `--prune-layers 3,4`.
ShortV's `REPLACED_LAYERS=31,29` are layers that stay and pass vision tokens on unchanged.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Mapping
from typing import Any, NoReturn

from vlm_analysis.edits.edit import Edit, only_mask
from vlm_analysis.edits.foreign.masks import mask_of_layers, refuse, refuse_kind
from vlm_analysis.errors import MaskError

OPTIPFAIR, LLAMA_CPP = "optipfair", "llama.cpp"
FLAGS = {"--prune-layers": LLAMA_CPP, "--layer-indices": OPTIPFAIR}
_SHORTV = ("replaced_layers", "REPLACED_LAYERS")
_MOST_TEXT = 1 << 16  # characters of a command line
_BARE = re.compile(r"\s*\d+(\s*,\s*\d+)*\s*", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


def mask_to_optipfair(mask: Edit) -> str:
    """Return the layers to drop as a JSON list, for `layer_indices` of optipfair's `prune_model`.

    Raises:
        MaskError: the edit drops no layer, or does more.
    """
    return json.dumps(list(_dropped(mask, "for optipfair"))) + "\n"


def mask_to_llama_cpp(mask: Edit) -> str:
    """Return the flag of `llama-quantize` that leaves the layers out of a dense GGUF file: `--prune-layers 3,4`.

    Raises:
        MaskError: the edit drops no layer, or does more.
    """
    return f"--prune-layers {','.join(map(str, _dropped(mask, 'for llama.cpp')))}\n"


def _dropped(mask: Edit, tool: str) -> tuple[int, ...]:
    only_mask(mask, f"It cannot be written {tool}")
    if not mask.dropped:
        raise MaskError(
            f"The mask cannot be written {tool}: expected one dropped layer at least, got none. Drop a layer first."
        )
    return mask.dropped


def of_json(content: Any, n_layers: int | None, name: str) -> Edit | None:
    """Return the mask of a JSON list, or of an object with `layer_indices`; None where the content is neither.

    Raises:
        MaskError: see `mask_of_layers`; or it is a list of ShortV's, or of widths.
    """
    if isinstance(content, Mapping):
        if any(key in content for key in _SHORTV):
            _refuse_shortv(name)
        if "layer_indices" not in content:
            if str(content.get("pruning_type", "DEPTH")) != "DEPTH":
                refuse_kind(name, "layers that are made narrower", "Prune whole layers (`DEPTH`) there.")
            return None
        content = content["layer_indices"]
        if not isinstance(content, list):
            refuse(name, "a list in 'layer_indices'", content, "Write it as [3, 4].")
    return mask_of_layers(content, n_layers, OPTIPFAIR, name) if isinstance(content, list) else None


def of_text(text: str, n_layers: int | None, name: str) -> Edit | None:
    """Return the mask of a command line with one of `FLAGS`, or of numbers alone ("3,4"); None where the text is neither.

    Raises:
        MaskError: see `mask_of_layers`; or it has several flags, or is a list of ShortV's.
    """
    if len(text) > _MOST_TEXT:
        return None
    if _BARE.fullmatch(text):
        return mask_of_layers(_numbers(text, name), n_layers, OPTIPFAIR, name)
    try:
        words = shlex.split(text, comments=True)
    except ValueError:  # a quote that is not closed
        return None
    if any(word.startswith("REPLACED_LAYERS=") for word in words):
        _refuse_shortv(name)
    found = [(flag, value) for flag in FLAGS for value in _values(words, flag)]
    if not found:
        return None
    if len(found) > 1:
        refuse(name, f"one of {' and '.join(FLAGS)}", ", ".join(flag for flag, _ in found), "Leave one of them in.")
    ((flag, value),) = found
    return mask_of_layers(_numbers(value, name), n_layers, FLAGS[flag], name)


def _values(words: list[str], flag: str) -> list[str]:
    """Return what follows each occurrence of a flag, as the next word or after "="."""
    apart = [after for word, after in itertools.pairwise([*words, ""]) if word == flag]
    return apart + [word.removeprefix(f"{flag}=") for word in words if word.startswith(f"{flag}=")]


def _numbers(text: str, name: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    wrong = next((part for part in parts if not _NUMBER.fullmatch(part)), None)
    if wrong is not None:
        refuse(name, "layer numbers with commas between them", wrong, "Write them as 3,4.")
    return [int(part) for part in parts]


def _refuse_shortv(name: str) -> NoReturn:
    refuse_kind(name, "layers that pass vision tokens on unchanged (ShortV)", "Drop layers, or run ShortV itself.")
