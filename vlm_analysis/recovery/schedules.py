"""Schedules: the settings that every training has, as values: steps, rates, and what is held out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, TypeVar

from vlm_analysis.edits.change import is_whole
from vlm_analysis.errors import EditError, short

S = TypeVar("S", bound="Schedule")
Setting = tuple[tuple[str, ...], str, Callable[[Any], bool]]
"""Names of settings, what is expected of each, and whether a value is that."""


def is_number(value: object) -> bool:
    """Return whether the value is a finite number and not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any) -> bool:
    """Return whether the value is a whole number from 1 on."""
    return is_whole(value) and value >= 1


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast is learnt: by AdamW, with a rate that falls as a cosine.

    Attributes:
        learning_rate, weight_decay: of AdamW.
        last_rate: to which the rate falls.
        warmup: share of the steps in which the rate rises from 0.
        most_norm: to which the norm of the gradients is cut.
        batch_size: prompts in a step; where memory is short they run in parts.
        epochs, most_steps: how often each prompt is seen, and a bound on the steps; None is no bound.
        held_out: share of the prompts that are not trained on; the state that is best on them is kept.
        checks: how often that is measured, evenly over the steps.
        seed: of the split, the order of prompts, and all else that is drawn.

    Raises:
        EditError: a setting is out of range.
    """

    learning_rate: float = 2e-3
    last_rate: float = 0.0
    weight_decay: float = 0.0
    warmup: float = 0.1
    most_norm: float = 1.0
    batch_size: int = 16
    epochs: int = 12
    most_steps: int | None = 60
    held_out: float = 0.2
    checks: int = 10
    seed: int = 0

    failed: ClassVar[str] = "The training cannot begin"
    checked: ClassVar[tuple[Setting, ...]] = (
        (("batch_size", "epochs", "checks"), "a whole number from 1 on", is_count),
        (("most_steps",), "a whole number from 1 on, or None", lambda value: value is None or is_count(value)),
        (("seed",), "a whole number", is_whole),
        (("learning_rate", "most_norm"), "a number above 0", lambda value: is_number(value) and value > 0),
        (("last_rate", "weight_decay"), "a number from 0 on", lambda value: is_number(value) and value >= 0),
        (("warmup",), "a number from 0 to below 1", lambda value: is_number(value) and 0 <= value < 1),
        (("held_out",), "a number between 0 and 1", lambda value: is_number(value) and 0 < value < 1),
    )

    def __post_init__(self) -> None:
        for names, expected, holds in self.checked:
            for name in names:
                if not holds(value := getattr(self, name)):
                    raise EditError(
                        f"{self.failed}: expected {expected} as {name}, got {short(repr(value))}. Change it."
                    )

    def n_steps(self, n_prompts: int) -> int:
        """Return the steps for so many prompts to train on."""
        steps = self.epochs * math.ceil(n_prompts / self.batch_size)
        return steps if self.most_steps is None else min(steps, self.most_steps)

    def rate_at(self, step: int, n_steps: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rising = round(self.warmup * n_steps)
        if step < rising:
            return self.learning_rate * (step + 1) / (rising + 1)
        share = (1 + math.cos(math.pi * (step - rising) / max(1, n_steps - rising))) / 2
        return self.last_rate + (self.learning_rate - self.last_rate) * share

    def checked_after(self, n_steps: int) -> frozenset[int]:
        """Return after how many steps the held-out prompts are measured; the last step is among them."""
        return frozenset(max(1, round(n_steps * check / self.checks)) for check in range(1, self.checks + 1))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def with_settings(schedule: S, options: Mapping[str, Any], what: str) -> S:
    """Return the schedule with options in place of its settings; `what` it is of, as "fine-tuning".

    Raises:
        EditError: there is no such setting, or a value that is none.
    """
    shared = {field.name for field in fields(Schedule)}
    known = sorted((field.name for field in fields(schedule)), key=shared.__contains__)  # its own first
    unknown = [name for name in options if name not in known]
    if unknown:
        raise EditError(
            f"The {what} has no such setting: expected one of {', '.join(known)}, got {short(repr(unknown[0]))}. Name one of them."
        )
    return replace(schedule, **options)
