"""Ways of recovery by name: a repair in closed form, a short fine-tuning, or both in turn ("ridge+small")."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import EditError, short
from vlm_analysis.recovery.solving import HOWS, Options
from vlm_analysis.recovery.tunings import TUNINGS, tuning_of
from vlm_analysis.words import consecutive

THEN = "+"  # between a repair and the tuning after it
OF_REPAIRS = frozenset(field.name for field in fields(Options)) - {"how"}
TRAINED = 3  # passes that a step of training takes for each prompt: forward, and twice as much backward; our choice


def steps_of(way: str) -> tuple[str, ...]:
    """Return the steps of a way: "ridge+small" repairs, then tunes.

    Raises:
        EditError: it is no repair, no tuning, and not one of each in this order.

    >>> steps_of("ridge"), steps_of("scale+small")
    (('ridge',), ('scale', 'small'))
    """
    steps = tuple(way.split(THEN)) if isinstance(way, str) else ()
    if [step in TUNINGS for step in steps] in ([False], [True], [False, True]) and {*steps} <= {*HOWS, *TUNINGS}:
        return steps
    raise EditError(
        f"There is no such recovery: expected one of {', '.join((*HOWS, *TUNINGS))}, or a repair and a tuning as ridge+small, as how, got "
        f"{short(repr(way))}. Choose one."
    )


def tuning_in(ways: Iterable[str]) -> str:
    """Return the one tuning that some ways take, "" where they take none.

    Raises:
        EditError: they take several, or one is no way.
    """
    tunings = list(dict.fromkeys(step for way in ways for step in steps_of(way) if step in TUNINGS))
    if len(tunings) > 1:
        raise EditError(
            f"The ways do not go together: expected one tuning, with which the dense model is tuned too, got {' and '.join(tunings)}. "
            "Measure them one after the other."
        )
    return tunings[0] if tunings else ""


def options_of(step: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the options that a step takes: the settings of a tuning, or the options of a repair."""
    return {name: value for name, value in options.items() if (name in OF_REPAIRS) != (step in TUNINGS)}


def settings_of(way: str, options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return by step of a way the settings with which it is taken."""
    found = {}
    for step in steps_of(way):
        own = options_of(step, options)
        found[step] = tuning_of(step, own).to_json() if step in TUNINGS else Options(step, **own).used
    return found


def check_options(ways: Iterable[str], options: Mapping[str, Any]) -> None:
    """Check that each option is of some step of the ways, before anything runs.

    Raises:
        EditError: one is of none, or has no such value.
    """
    steps = {step for way in ways for step in steps_of(way)}
    for step in steps:
        if step in TUNINGS:
            tuning_of(step, options_of(step, options))
        else:
            Options(step, **options_of(step, options))
    taken = {name for step in steps for name in options_of(step, options)}
    if odd := [name for name in options if name not in taken]:
        kind = "a repair" if odd[0] in OF_REPAIRS else "a tuning"
        raise EditError(
            f"The recovery has no such setting: expected {kind} for {short(odd[0])}, got {' and '.join(sorted(steps))}. Leave it out."
        )


def passes_of(step: str, edit: Edit, n_prompts: int, options: Mapping[str, Any]) -> int:
    """Return about how many passes of a prompt through the model a step takes.

    A repair runs the prompts once for each run of dropped layers. A tuning takes `TRAINED` passes a prompt in its steps, and measures the
    held-out ones at every check.
    """
    if step not in TUNINGS:
        return max(1, len(consecutive(edit.dropped))) * n_prompts
    tuning = tuning_of(step, options_of(step, options))
    n_held_out = math.ceil(tuning.held_out * n_prompts)
    n_steps = tuning.n_steps(max(1, n_prompts - n_held_out))
    trained = n_steps * min(tuning.batch_size, n_prompts) * (TRAINED + tuning.needs_dense)
    return trained + (min(n_steps, tuning.checks) + 1) * n_held_out
