"""Tunings: the settings of a short fine-tuning, as values, and the named ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from vlm_analysis.errors import EditError, short
from vlm_analysis.recovery.schedules import Schedule, Setting, is_count, is_number, with_settings

TARGETS = MappingProxyType(
    {
        "decoder": "the linear layers of all decoder layers that are left",
        "partners": "the linear layers of the decoder layers beside each cut",
        "projector": "the linear layers between vision tower and decoder",
    }
)


@dataclass(frozen=True, kw_only=True)
class Tuning(Schedule):
    """How an edited model is tuned: low-rank updates (LoRA) of linear layers.

    Attributes:
        targets: which linear layers are updated, a key of `TARGETS`.
        rank, alpha, dropout: of the update `alpha / rank · B A`; dropout is of its input.
        hidden: weight of the squared distance to the dense model's states ahead of each layer that is left, relative to their size.
        kl: weight of the KL divergence of the dense model's distribution from the edited model's, over the answer's tokens.
    """

    targets: str = "decoder"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    hidden: float = 0.0
    kl: float = 0.0

    failed: ClassVar[str] = "The fine-tuning cannot begin"
    checked: ClassVar[tuple[Setting, ...]] = (
        *Schedule.checked,
        (("targets",), f"one of {', '.join(TARGETS)}", lambda value: isinstance(value, str) and value in TARGETS),
        (("rank",), "a whole number from 1 on", is_count),
        (("alpha",), "a number above 0", lambda value: is_number(value) and value > 0),
        (("hidden", "kl"), "a number from 0 on", lambda value: is_number(value) and value >= 0),
        (("dropout",), "a number from 0 to below 1", lambda value: is_number(value) and 0 <= value < 1),
    )

    @property
    def scale(self) -> float:
        """Return what the product of the factors is multiplied by."""
        return self.alpha / self.rank

    @property
    def needs_dense(self) -> bool:
        """Return whether the dense model runs beside the edited one."""
        return bool(self.hidden or self.kl)


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
    return with_settings(tuning, options, "fine-tuning")
