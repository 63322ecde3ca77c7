"""Settings of tools in which vision tokens skip layers, in and out: ShortV's list, and the options of VTW and FastV.

ShortV reads `export REPLACED_LAYERS="31,29"`: layers in which vision tokens are frozen. VTW takes `--use_vtw --k=15`: vision tokens
leave at layer 15. FastV takes `--use-fast-v --fast-v-agg-layer 3 --fast-v-attention-rank 288`: from layer 3 on those 288 vision tokens
stay that text attends to most; of a rank of 0 none. Read in the repositories icip-cas/ShortV, lzhxmu/VTW and pkunlp-icler/FastV.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.foreign.masks import numbers_in, refuse, refuse_kind
from vlm_analysis.edits.skipping import ABSENT, FROZEN, FULL, early_exit, freeze, vision_row
from vlm_analysis.errors import EditError, MaskError, NoLayerCountError, short

SHORTV, VTW, FASTV = "ShortV", "VTW", "FastV"
_FIELDS, _VARIABLE = ("replaced_layers", "REPLACED_LAYERS"), "REPLACED_LAYERS="
_USE_VTW, _USE_FASTV, _RANK, _LAYER = "--use_vtw", "--use-fast-v", "--fast-v-attention-rank", "--fast-v-agg-layer"
_MOST_TEXT = 1 << 16  # characters of a command line
_WHOLE = re.compile(r"\d{1,9}", re.ASCII)
_FASTV_NOTE = """\
# Of a rank of 0 FastV keeps no vision token from that layer on. Where the prompt's vision tokens stand is said by two more options, here
# those of LLaVA-1.5.
"""


def edit_to_shortv(edit: Edit) -> str:
    """Return the layers in which vision tokens are frozen as ShortV reads them: `export REPLACED_LAYERS="29,31"`.

    Raises:
        EditError: the edit does anything else.
    """
    row = _row(edit, SHORTV)
    if set(row) != {FULL, FROZEN} and set(row) != {FROZEN}:
        _refuse_edit(edit, SHORTV, "vision tokens that are frozen in some layers, and seen in all")
    return f'export REPLACED_LAYERS="{",".join(str(layer) for layer, what in enumerate(row) if what == FROZEN)}"\n'


def edit_to_vtw(edit: Edit) -> str:
    """Return the options of VTW for an early exit: `--use_vtw --k=15`.

    Raises:
        EditError: the edit does anything else.
    """
    return f"{_USE_VTW} --k={_exit(edit, VTW)}\n"


def edit_to_fastv(edit: Edit) -> str:
    """Return the options of FastV for an early exit, in which it keeps no vision token.

    Raises:
        EditError: the edit does anything else.
    """
    where = "--fast-v-sys-length 36 --fast-v-image-token-length 576"
    return f"{_FASTV_NOTE}{_USE_FASTV} {_LAYER} {_exit(edit, FASTV)} {_RANK} 0 {where}\n"


def of_json(content: Any, n_layers: int | None, name: str) -> Edit | None:
    """Return the edit of an object with ShortV's `replaced_layers`; None where the content is none.

    Raises:
        MaskError: these are no layers of the model.
        NoLayerCountError: `n_layers` is not known.
    """
    key = next((key for key in _FIELDS if isinstance(content, Mapping) and key in content), None)
    return None if key is None else _frozen(content[key], n_layers, name)


def of_text(text: str, n_layers: int | None, name: str) -> Edit | None:
    """Return the edit of a command line of one of the tools; None where the text is none.

    Raises:
        MaskError: it lacks a number, or says what no edit says.
        NoLayerCountError: `n_layers` is not known.
    """
    if len(text) > _MOST_TEXT:
        return None
    try:
        words = shlex.split(text, comments=True)
    except ValueError:  # a quote that is not closed
        return None
    for word in words:
        if word.startswith(_VARIABLE):
            return _frozen(numbers_in(word.removeprefix(_VARIABLE), name), n_layers, name)
    if _USE_VTW in words:
        return _left(_value(words, "--k", name), n_layers, VTW, name)
    if _USE_FASTV not in words:
        return None
    if (rank := _value(words, _RANK, name)) != 0:
        refuse_kind(name, f"{rank} vision tokens that stay (FastV)", f"Set {_RANK} to 0, or run FastV itself.")
    return _left(_value(words, _LAYER, name), n_layers, FASTV, name)


def _frozen(layers: Any, n_layers: int | None, name: str) -> Edit:
    if not isinstance(layers, list) or not layers:
        refuse(name, "a list of the layers in which vision tokens are frozen", layers, "Write it as [31, 29].")
    if n_layers is None:
        raise NoLayerCountError(name)
    return _made(lambda: freeze(n_layers, layers), SHORTV, f"freezes vision tokens in layers {short(layers)}", name)


def _left(layer: int, n_layers: int | None, tool: str, name: str) -> Edit:
    if n_layers is None:
        raise NoLayerCountError(name)
    return _made(lambda: early_exit(n_layers, layer), tool, f"vision tokens leave at layer {layer}", name)


def _made(make: Callable[[], Edit], tool: str, said: str, name: str) -> Edit:
    try:
        return replace(make(), provenance={"opened_from": tool, "said": said})
    except EditError as error:
        raise MaskError(f"{name} is no edit of this model. {short(error, 300)}") from error


def _value(words: list[str], option: str, name: str) -> int:
    """Return the whole number behind an option, as the next word or after "="."""
    after = [word.removeprefix(f"{option}=") for word in words if word.startswith(f"{option}=")]
    after += [words[place + 1] for place, word in enumerate(words[:-1]) if word == option]
    if len(after) != 1 or not _WHOLE.fullmatch(after[0]):
        refuse(name, f"one whole number after {option}", ", ".join(after) or "none", f"Write {option} 15.")
    return int(after[0])


def _row(edit: Edit, tool: str) -> tuple[str, ...]:
    if any(change.kind != "vision" for change in edit.changes):
        _refuse_edit(edit, tool, "vision tokens that skip layers, and nothing else")
    return vision_row(edit)


def _exit(edit: Edit, tool: str) -> int:
    row = _row(edit, tool)
    layer = row.index(ABSENT) if ABSENT in row else len(row)
    if set(row[:layer]) - {FULL} or set(row[layer:]) != {ABSENT}:
        _refuse_edit(edit, tool, "an early exit")
    return layer


def _refuse_edit(edit: Edit, tool: str, expected: str) -> NoReturn:
    raise EditError(
        f"The edit cannot be written for {tool}: expected {expected}, got one that {edit.words()}. Save it as JSON."
    )
