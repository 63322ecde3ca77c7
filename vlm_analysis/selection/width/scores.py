"""What was measured of every MLP neuron and attention group of a model, as a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlm_analysis.errors import EditError, short
from vlm_analysis.evaluation.pivots import EACH, WINDOW
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.words import brief, counted

TAYLOR, PIVOT, RANDOM_PIVOT, MAGNITUDE = VALUES = ("taylor", "pivot", "random_pivot", "magnitude")
NEURONS, KV_GROUPS = UNITS = ("neurons", "kv_groups")
EXACT, FAST = HOWS = ("exact", "fast")


@dataclass(frozen=True, eq=False)
class WidthScores:
    """What each MLP neuron and each attention group does to the answers, by the first order of Taylor (µCRASP, arXiv:2605.25842).

    A neuron is a row of the gate and of the up-projection with its column of the down-projection. An attention group is a key-value head
    with its query heads, scored on their rows of Q and their columns of O. Biases of rows count with them (our choice).

    Attributes:
        model: the dense model; its `widths` say how many units a layer has, and why it has none.
        prompts: fingerprint of the prompt set.
        neurons, kv_groups: of each decoder layer (4, n_units) float64, a row for each of `VALUES`; n_units is 0
            where they cannot be cut. `taylor` is the sum over answer tokens of |w · gradient of the token's NLL|, in nats; `pivot` is
            the same sum over tokens in windows around pivots, and `random_pivot` around as many tokens drawn at random; `magnitude` is the
            norm of the unit's weights.
        cmds: (n_layers,) distance of the mean vision and text outputs, relative to the mean norm (`Recording.cross_modal_distance`).
        sens: (n_layers,) root of the mean squared norm of a layer's output over prompt tokens.
        how: "exact", or "fast": |the sum over a prompt's tokens| in place of the sum of absolute values.
        window, sides: of the windows around pivots.
        seed: of the windows at random places; None where there are none.
        answers: how many answers have marks, how many longer ones without marks are split evenly, and how many are too short for steps.
        tokens: how many answer tokens there are, and how many of them lie in windows around pivots.
        set_aside: the prompts that the model refused, by id, each with the reason.
    """

    model: ModelInfo
    prompts: str
    neurons: tuple[np.ndarray, ...]
    kv_groups: tuple[np.ndarray, ...]
    cmds: np.ndarray
    sens: np.ndarray
    how: str = EXACT
    window: int = WINDOW
    sides: str = EACH
    seed: int | None = None
    answers: tuple[int, int, int] = (0, 0, 0)
    tokens: tuple[int, int] = (0, 0)
    set_aside: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        sizes = f"{counted(self.n_units(NEURONS), 'neuron')}, {counted(self.n_units(KV_GROUPS), 'attention group')}"
        return brief(self, self.model.name, counted(self.model.n_layers, "layer"), sizes, self.how)

    def costs(self, unit: str) -> tuple[int, ...]:
        """Return of each layer the parameters of a unit of a kind."""
        name = "neuron_parameters" if unit == NEURONS else "group_parameters"
        return tuple(getattr(width, name) for width in self.model.widths)

    def reasons(self, unit: str) -> dict[int, str]:
        """Return by layer why its units of a kind cannot be cut."""
        name = "mlp_locked" if unit == NEURONS else "attention_locked"
        found = {layer: getattr(width, name) for layer, width in enumerate(self.model.widths)}
        return {layer: reason for layer, reason in found.items() if reason}

    def n_units(self, unit: str) -> int:
        """Return how many units of a kind there are in all layers."""
        return sum(part.shape[1] for part in getattr(self, unit))

    def values(self, name: str, unit: str = NEURONS) -> tuple[np.ndarray, ...]:
        """Return one of `VALUES` of each unit of a kind, an (n_units,) array for each layer.

        Raises:
            EditError: an unknown value or unit.
        """
        for what, got, known in (("value", name, VALUES), ("unit", unit, UNITS)):
            if got not in known:
                raise EditError(
                    f"The scores have no such {what}: expected one of {', '.join(known)}, got {short(repr(got), 80)}. Name one of them."
                )
        return tuple(part[VALUES.index(name)] for part in getattr(self, unit))

    @property
    def n_answers(self) -> int:
        return sum(self.answers)

    @property
    def has_steps(self) -> bool:
        """Return whether any answer token lies in a window around a pivot."""
        return self.tokens[1] > 0

    def finding(self) -> str:
        """Return in a sentence what the answers hold that pivots protect."""
        marked, split, too_short = self.answers
        if not self.has_steps:
            return (
                f"Nothing to protect: none of {counted(self.n_answers, 'answer')} has a mark of a step, and all are too short to hold "
                "steps, so the pivots count for nothing."
            )
        others = [f"{split} without marks are split evenly"] if split else []
        others += [f"{too_short} are too short to hold steps, and nothing in them is protected"] if too_short else []
        tail = f"; {'; '.join(others)}" if others else ""
        return (
            f"{marked} of {counted(self.n_answers, 'answer')} have marks of steps, and {self.tokens[1]:,} of "
            f"{counted(self.tokens[0], 'answer token')} lie near a pivot{tail}."
        )

    def about(self) -> dict[str, Any]:
        """Return what an edit that is made of the scores says of them."""
        return {
            "prompts": self.prompts,
            "how": self.how,
            "window": self.window,
            "sides": self.sides,
            "finding": self.finding(),
        }
