"""The options of choosing width, and the value of each unit by them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from vlm_analysis.edits.change import is_whole
from vlm_analysis.errors import EditError, short
from vlm_analysis.selection.width.scores import (
    MAGNITUDE,
    PIVOT,
    RANDOM_PIVOT,
    TAYLOR,
    UNITS,
    WidthScores,
)

STEPS, RANDOM, NONE = PIVOTS = ("steps", "random", "none")
BY = (TAYLOR, MAGNITUDE)
_ROW_OF = {STEPS: PIVOT, RANDOM: RANDOM_PIVOT}
Values = dict[str, tuple[np.ndarray, ...]]  # by unit an array for each layer


@dataclass(frozen=True)
class WidthOptions:
    """How units are weighed. µCRASP has A = (1 − g) · norm(I) + g · norm(I near pivots), g = g_base · (1 − S)^ρ, a value A · P(l) and
    P(l) = (1 + α · Sens + β · CMDS) · Ω(l). It tells no constant and no norm: all defaults are our choice, and so is the norm, which
    divides by the mean over all units. S is the share that goes (our reading of its ratio).

    Attributes:
        by: "taylor", or "magnitude": the norm of a unit's weights in place of A, a baseline.
        pivots: "steps"; "random" for windows at random places, or "none" for g = 0, both for comparison.
        g_base, rho: of g.
        alpha, beta: of P(l); Sens and CMDS are divided by their largest values over layers (our choice). 0 leaves them out.
        omega: by layer its Ω, 1 where none is given.
        least: the share of its units that each layer keeps at least, one at the least.
        units: which kinds may go.
    """

    by: str = TAYLOR
    pivots: str = STEPS
    g_base: float = 0.5
    rho: float = 1.0
    alpha: float = 0.5
    beta: float = 1.0
    omega: Mapping[int, float] = field(default_factory=dict)
    least: float = 0.2
    units: tuple[str, ...] = UNITS

    def __post_init__(self) -> None:
        units = self.units
        checks: dict[str, tuple[bool, str]] = {
            "by": (isinstance(self.by, str) and self.by in BY, f"one of {', '.join(BY)}"),
            "pivots": (isinstance(self.pivots, str) and self.pivots in PIVOTS, f"one of {', '.join(PIVOTS)}"),
            "g_base": (is_number(self.g_base, 0, 1), "a number from 0 to 1"),
            "rho": (is_number(self.rho, 0), "a number from 0 on"),
            "alpha": (is_number(self.alpha, 0), "a number from 0 on"),
            "beta": (is_number(self.beta, 0), "a number from 0 on"),
            "omega": (_are_weights(self.omega), "numbers above 0 by layer"),
            "least": (is_number(self.least, 0, 1), "a number from 0 to 1"),
            "units": (
                not isinstance(units, str) and bool(units) and set(units) <= set(UNITS),
                f"some of {', '.join(UNITS)}",
            ),
        }
        for name, (is_right, expected) in checks.items():
            if not is_right:
                raise EditError(
                    f"There is no such choice of width: expected {expected} as {name}, got {short(repr(getattr(self, name)))}. Change it."
                )
        object.__setattr__(self, "units", tuple(unit for unit in UNITS if unit in units))

    def to_json(self) -> dict[str, Any]:
        told = {name: getattr(self, name) for name in ("by", "pivots", "g_base", "rho", "alpha", "beta", "least")}
        omega = {str(layer): float(weight) for layer, weight in sorted(self.omega.items())}
        return {**told, "units": list(self.units), **({"omega": omega} if omega else {})}


def options_of(given: Mapping[str, Any]) -> WidthOptions:
    """Return the options with these names.

    Raises:
        EditError: there is none of a name, or one is out of range.
    """
    known = [one.name for one in fields(WidthOptions)]
    if odd := [name for name in given if name not in known]:
        raise EditError(
            f"There is no such choice of width: expected one of {', '.join(known)}, got {short(repr(odd[0]))}. Name one of them."
        )
    return WidthOptions(**given)


def pivot_weight(scores: WidthScores, share: float, options: WidthOptions) -> float:
    """Return g: how much the pivots count; 0 where no answer token lies near one.

    Raises:
        EditError: the scores have no windows at random places.
    """
    if options.by == MAGNITUDE or options.pivots == NONE or not scores.has_steps:
        return 0.0
    if options.pivots == RANDOM and scores.seed is None:
        raise EditError(
            "Units cannot be weighed by random pivots: expected scores with windows at random places, got none. Score with a seed."
        )
    return float(options.g_base * (1 - share) ** options.rho)


def layer_weights(scores: WidthScores, options: WidthOptions) -> np.ndarray:
    """Return P(l) of each layer, (n_layers,).

    Raises:
        EditError: a layer's Sens or CMDS is no number, or there is no layer of an Ω.
    """
    n_layers = scores.model.n_layers
    weights = np.ones(n_layers)
    for name, factor, values in (("alpha", options.alpha, scores.sens), ("beta", options.beta, scores.cmds)):
        if not factor:
            continue
        if not np.isfinite(values).all():
            what = "Sens" if name == "alpha" else "CMDS"
            raise EditError(
                f"Layers cannot be weighed by {what}: expected a number for each, got NaN. Score prompts with images, or leave it out "
                f"with {name}=0."
            )
        weights += factor * values / (values.max() or 1.0)
    for layer, omega in options.omega.items():
        if layer >= n_layers:
            raise EditError(
                f"No such layer to weigh: expected whole numbers 0..{n_layers - 1}, got {layer}. Name layers of the model."
            )
        weights[layer] *= omega
    return weights


def values_of(scores: WidthScores, share: float, options: WidthOptions) -> Values:
    """Return A · P(l) of each unit."""
    g, weights = pivot_weight(scores, share, options), layer_weights(scores, options)
    found = _normed(scores, options.by)
    if g:
        near = _normed(scores, _ROW_OF[options.pivots])
        found = {
            unit: tuple((1 - g) * one + g * two for one, two in zip(found[unit], near[unit], strict=True))
            for unit in UNITS
        }
    return {unit: tuple(weights[layer] * one for layer, one in enumerate(found[unit])) for unit in UNITS}


def _normed(scores: WidthScores, name: str) -> Values:
    """Return a value of each unit over the mean of all units of both kinds."""
    values = {unit: scores.values(name, unit) for unit in UNITS}
    every = [one for parts in values.values() for one in parts]
    mean = sum(float(one.sum()) for one in every) / max(1, sum(map(len, every)))
    return {unit: tuple(one / (mean or 1.0) for one in parts) for unit, parts in values.items()}


def is_number(value: object, least: float = -math.inf, most: float = math.inf) -> bool:
    """Return whether the value is a finite number in this range, and not a bool."""
    is_one = isinstance(value, (int, float, np.floating)) and not isinstance(value, bool) and math.isfinite(value)
    return is_one and bool(least <= value <= most)  # type: ignore[operator]


def _are_weights(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        is_whole(layer) and layer >= 0 and is_number(weight) and weight > 0 for layer, weight in value.items()
    )
