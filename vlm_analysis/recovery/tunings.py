"""Tunings: the settings of a short fine-tuning, as values, and the named ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from vlm_analysis.edits.change import is_whole
from vlm_analysis.errors import EditError, short

TARGETS = MappingProxyType(
    {
        "decoder": "the linear layers of all decoder layers that are left",
        "partners": "the linear layers of the decoder layers beside each cut",
        "projector": "the linear layers between vision tower and decoder",
    }
)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return is_whole(value) and value >= 1


_SETTINGS: tuple[tuple[tuple[str, ...], str, Callable[[Any], bool]], ...] = (
    (("targets",), f"one of {', '.join(TARGETS)}", lambda value: isinstance(value, str) and value in TARGETS),
    (("rank", "batch_size", "epochs", "checks"), "a whole number from 1 on", _is_count),
    (("most_steps",), "a whole number from 1 on, or None", lambda value: value is None or _is_count(value)),
    (("seed",), "a whole number", is_whole),
    (("alpha", "learning_rate"), "a number above 0", lambda value: _is_number(value) and value > 0),
    (("weight_decay", "hidden", "kl"), "a number from 0 on", lambda value: _is_number(value) and value >= 0),
    (("dropout", "warmup"), "a number from 0 to below 1", lambda value: _is_number(value) and 0 <= value < 1),
    (("held_out",), "a number between 0 and 1", lambda value: _is_number(value) and 0 < value < 1),
)


@dataclass(frozen=True)
class Tuning:
    """How an edited model is tuned: low-rank updates (LoRA) of linear layers, by AdamW, with a rate that falls as a cosine to 0.

    Attributes:
        targets: which linear layers are updated, a key of `TARGETS`.
        rank, alpha, dropout: of the update `alpha / rank · B A`; dropout is of its input.
        learning_rate, weight_decay: of AdamW.
        warmup: share of the steps in which the rate rises from 0.
        batch_size: prompts in a step; where memory is short they run in parts.
        epochs, most_steps: how often each prompt is seen, and a bound on the steps; None is no bound.
        hidden: weight of the squared distance to the dense model's states ahead of each layer that is left, relative to their size.
        kl: weight of the KL divergence of the dense model's distribution from the edited model's, over the answer's tokens.
        held_out: share of the prompts that are not trained on; the state with the lowest answer NLL on them is kept.
        checks: how often that is measured, evenly over the steps.
        seed: of the split, the order of prompts, the first factors and dropout.
    """

    targets: str = "decoder"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    warmup: float = 0.1
    batch_size: int = 16
    epochs: int = 12
    most_steps: int | None = 60
    hidden: float = 0.0
    kl: float = 0.0
    held_out: float = 0.2
    checks: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for names, expected, holds in _SETTINGS:
            for name in names:
                if not holds(value := getattr(self, name)):
                    raise EditError(
                        f"The fine-tuning cannot begin: expected {expected} as {name}, got {short(repr(value))}. Change it."
                    )

    @property
    def scale(self) -> float:
        """Return what the product of the factors is multiplied by."""
        return self.alpha / self.rank

    @property
    def needs_dense(self) -> bool:
        """Return whether the dense model runs beside the edited one."""
        return bool(self.hidden or self.kl)

    def n_steps(self, n_prompts: int) -> int:
        """Return the steps for so many prompts to train on."""
        steps = self.epochs * math.ceil(n_prompts / self.batch_size)
        return steps if self.most_steps is None else min(steps, self.most_steps)

    def rate_at(self, step: int, n_steps: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rising = round(self.warmup * n_steps)
        if step < rising:
            return self.learning_rate * (step + 1) / (rising + 1)
        return self.learning_rate * (1 + math.cos(math.pi * (step - rising) / max(1, n_steps - rising))) / 2

    def checked_after(self, n_steps: int) -> frozenset[int]:
        """Return after how many steps the held-out prompts are measured; the last step is among them."""
        return frozenset(max(1, round(n_steps * check / self.checks)) for check in range(1, self.checks + 1))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


TUNINGS: Mapping[str, Tuning] = MappingProxyType(
    {
        "small": Tuning(),
        "domain-aware": Tuning(
            rank=32,
            alpha=64.0,
            dropout=0.05,
            learning_rate=2e-5,
            weight_decay=0.1,
            warmup=0.0,
            batch_size=64,
            epochs=1,
            most_steps=None,
        ),
        "partners": Tuning(targets="partners"),
        "projector": Tuning(targets="projector"),
    }
)
"""By name: ours, which suits few prompts; the fine-tuning of arXiv:2603.20275; the surviving partners of arXiv:2511.19676; and the
projector alone (arXiv:2604.24380), the last two with our settings."""


def tuning_of(how: str | Tuning, options: Mapping[str, Any]) -> Tuning:
    """Return a tuning by its name, with options in place of its settings.

    Raises:
        EditError: there is none of that name, no such setting, or a value that is none.
    """
    if isinstance(how, Tuning):
        tuning = how
    elif isinstance(how, str) and how in TUNINGS:
        tuning = TUNINGS[how]
    else:
        raise EditError(
            f"There is no such fine-tuning: expected one of {', '.join(TUNINGS)}, got {short(repr(how))}. Choose one."
        )
    known = [field.name for field in fields(Tuning)]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise EditError(
            f"The fine-tuning has no such setting: expected one of {', '.join(known)}, got {short(repr(unknown[0]))}. Name one of them."
        )
    return replace(tuning, **options)
