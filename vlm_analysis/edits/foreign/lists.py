"""Lists of layers: optipfair's `layer_indices` and llama.cpp's flag `--prune-layers`.

A list does not say how many layers the model has, nor which of its layers goes first. optipfair takes one as a Python list
(`prune_model(model, pruning_type="DEPTH", layer_indices=[3, 4])`) or as `--layer-indices 3,4`; `llama-quantize` as `--prune-layers 3,4`.
Those of ShortV are told apart (`skipping`).
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from vlm_analysis.edits.edit import Edit, only_mask
from vlm_analysis.edits.foreign.masks import mask_of_layers, numbers_in, refuse, refuse_kind
from vlm_analysis.errors import MaskError, short

OPTIPFAIR, LLAMA_CPP = "optipfair", "llama.cpp"
FLAGS = {"--prune-layers": LLAMA_CPP, "--layer-indices": OPTIPFAIR}
_TYPE, _WHOLE = "pruning_type", "DEPTH"
_HARMLESS = ("layer_indices", _TYPE, "layer_selection_method", "show_progress", "return_stats")
_UNSET = (  # other choices of optipfair's `prune_model`, where they are null
    *("neuron_selection_method", "pruning_percentage", "expansion_rate", "expansion_divisor", "dataloader"),
    *("num_layers_to_remove", "depth_pruning_percentage"),
)
_OPTIONS = frozenset(
    [
        "--layer-indices",
        "--pruning-type",
        "--model-path",
        "--output-path",
        "--method",
        "--layer-selection-method",
        "--device",
        "--dtype",
        "--verbose",
        "--quiet",
    ]
)
"""Options of `optipfair prune` beside which the layers are dropped."""
_MOST_TEXT = 1 << 16  # characters of a command line
_BARE = re.compile(r"\s*\d+(\s*,\s*\d+)*\s*", re.ASCII)


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
        MaskError: see `mask_of_layers`; or it is a list of widths, or has fields that are not known.
    """
    if isinstance(content, Mapping):
        _check_type(content.get(_TYPE, _WHOLE), name)
        if "layer_indices" not in content:
            return None
        beside = [key for key, value in content.items() if not _is_harmless(key, value)]
        _check_alone(", ".join(map(repr, beside)), "'layer_indices'", name)
        content = content["layer_indices"]
        if not isinstance(content, list):
            refuse(name, "a list in 'layer_indices'", content, "Write it as [3, 4].")
    return mask_of_layers(content, n_layers, OPTIPFAIR, name) if isinstance(content, list) else None


def of_text(text: str, n_layers: int | None, name: str) -> Edit | None:
    """Return the mask of a command line with one of `FLAGS`, or of numbers alone ("3,4"); None where the text is neither.

    Raises:
        MaskError: see `mask_of_layers`; or it has several flags, or is pruned by optipfair in another way.
    """
    if len(text) > _MOST_TEXT:
        return None
    if _BARE.fullmatch(text):
        return mask_of_layers(numbers_in(text, name), n_layers, OPTIPFAIR, name)
    try:
        words = shlex.split(text, comments=True)
    except ValueError:  # a quote that is not closed
        return None
    found = [(flag, value) for flag in FLAGS for value in _values(words, flag)]
    if not found:
        return None
    if len(found) > 1:
        refuse(name, f"one of {' and '.join(FLAGS)}", ", ".join(flag for flag, _ in found), "Leave one of them in.")
    ((flag, value),) = found
    if FLAGS[flag] == OPTIPFAIR:
        for kind in _values(words, "--pruning-type"):
            _check_type(kind, name)
        options = dict.fromkeys(word.partition("=")[0] for word in words if word.startswith("--"))
        _check_alone(", ".join(option for option in options if option not in _OPTIONS), flag, name)
    return mask_of_layers(numbers_in(value, name), n_layers, FLAGS[flag], name)


def _is_harmless(key: str, value: object) -> bool:
    return key in _HARMLESS or (key in _UNSET and value is None)


def _check_type(kind: object, name: str) -> None:
    """Raise MaskError where optipfair prunes something else than whole layers."""
    if kind != _WHOLE:
        got = "layers that are made narrower" if kind == "MLP_GLU" else "layers that are pruned in another way"
        refuse_kind(name, f"{got} ({short(repr(kind), 40)})", "Prune whole layers (`DEPTH`) there.")


def _check_alone(beside: str, what: str, name: str) -> None:
    """Raise MaskError where other fields stand beside a list, as they may say that its layers are not dropped."""
    if beside:
        advice = "Take it out if these are layers to drop."
        refuse(name, f"nothing but the layers to drop beside {what}", short(beside, 200), advice)


def _values(words: list[str], flag: str) -> list[str]:
    """Return what follows each occurrence of a flag, as the next word or after "="."""
    apart = [after for word, after in itertools.pairwise([*words, ""]) if word == flag]
    return apart + [word.removeprefix(f"{flag}=") for word in words if word.startswith(f"{flag}=")]
