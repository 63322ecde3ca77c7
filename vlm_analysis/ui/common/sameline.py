"""The line of the command `strata` that does the same as a page's button."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.ui.common.session import chosen, is_shown, model_slot, project, workspace
from vlm_analysis.workbench.details import edit_key
from vlm_analysis.workbench.workspace import Item

Value = str | int | float | bool | Sequence[str] | None
PLAIN = {"device": "auto", "dtype": "auto", "revision": "main"}  # what the Model page says where nothing was chosen


def same_line(*lines: str, label: str = "The same on the command line", key: str | None = None) -> None:
    """Draw lines of the command `strata`, folded up, to copy; nothing without any, or where one is "".

    With a `key` they are drawn once they are unfolded: the browser fetches 1.5 MB to draw code, which a first visit need not wait for.
    """
    if not lines or not all(lines):
        return
    with st.expander(label, key=key, on_change="ignore" if key is None else "rerun") as folded:
        if key is None or folded.open:
            st.code("\n".join(lines), language="bash", wrap_lines=True)


def line_of(command: str, *arguments: Item | Edit | str | Path | None, model: bool = True, **options: Value) -> str:
    """Return the line of a subcommand, quoted for a shell; "" where it names an edit that does more than drop layers and is not saved.

    Args:
        arguments: items go by their id, edits by that of the saved one, else by their layers.
        model: whether the subcommand loads the model; that of the Model page is named then.
        options: None, False, "" and [] are left out, True is a flag, a list repeats the option.
    """
    if any(isinstance(one, Edit) and not one.is_mask and _saved(one) is None for one in arguments):
        return ""
    words = ["strata", command, *map(_word, (one for one in arguments if one is not None))]
    info = model_slot().info
    owners = [one.model for one in arguments if isinstance(one, Edit) and _saved(one) is not None]
    if info is not None and any(owner is not None and owner.fingerprint != info.fingerprint for owner in owners):
        options["anyway"] = True
    for name, value in ({"project": project()} | options | (_model_options() if model else {})).items():
        words += _option(f"--{name.replace('_', '-')}", value)
    return shlex.join(words)


def recording_id() -> str:
    """Return the id of the recording that this session works with."""
    item = chosen("recordings")
    return "" if item is None else item.id


def layers_text(edit: Edit) -> str:
    """Return the layers that a mask drops as an argument: "3,5"; "dense" where it drops none."""
    return ",".join(map(str, edit.dropped)) or "dense"


def _word(argument: Item | Edit | str | Path) -> str:
    if isinstance(argument, Item):
        return argument.id
    if isinstance(argument, Edit):
        item = _saved(argument)
        return layers_text(argument) if item is None else item.id
    return str(argument)


def _saved(edit: Edit) -> Item | None:
    """Return the saved item of an edit of this name; None where it is not saved."""
    items = (
        item for item in workspace().items("masks") if item.name == edit.name and edit_key(item.details) == edit.key
    )
    return next(filter(is_shown, items), None)


def is_saved(edit: Edit) -> bool:
    """Return whether an edit is saved under its name."""
    return _saved(edit) is not None


def _option(name: str, value: Value) -> list[str]:
    if value is None or value is False or value == "" or value == []:
        return []
    if value is True:
        return [name]
    values = [str(value)] if isinstance(value, str | int | float) else list(value)
    pairs = [[f"{name}={one}"] if one.startswith("-") else [name, one] for one in values]
    return [word for pair in pairs for word in pair]


def _model_options() -> dict[str, Value]:
    source, options = model_slot().arguments
    values: dict[str, Value] = {"model": "" if source == "pocket-vl" else source}
    return values | {name: value for name, value in options.items() if value != PLAIN.get(name)}
