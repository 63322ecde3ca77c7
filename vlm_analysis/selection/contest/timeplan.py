"""A budget of measured time in the units of each kind: what dropped layers, steps of width and skipping vision tokens save of a prefill."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vlm_analysis.edits.edit import Edit, PruneMask
from vlm_analysis.errors import EditError, EvaluationError
from vlm_analysis.model_info import Locks, ModelInfo
from vlm_analysis.selection.search.mixes import CLOSE, Mix
from vlm_analysis.selection.width.choosing import GLOBAL, make_narrow
from vlm_analysis.selection.width.scores import WidthScores

LOOKS = 3  # narrow edits that are timed; steps between them are interpolated. Our choice, as that what kinds save is multiplied


@dataclass(frozen=True)
class TimePlan:
    """What each kind saves of the time of a prefill.

    Attributes:
        model: whose layers.
        share: of the time that is to go.
        layer: what a dropped layer saves, as a share of a dense prefill.
        n_dropped: the fewest layers that save the share.
        step: the share of the decoder layers' parameters that a step of width cuts.
        widths: what 0, 1, 2, … steps of width save.
        visions: edits in which vision tokens skip layers, and what each saves.
    """

    model: ModelInfo
    share: float
    layer: float
    n_dropped: int
    step: float
    widths: tuple[float, ...] = (0.0,)
    visions: tuple[tuple[Edit, float], ...] = field(default=())

    def saved(self, mix: Mix) -> float:
        """Return the share of a prefill's time that a mix saves, where each kind saves its share of what the others leave."""
        vision = self.visions[mix.vision - 1][1] if mix.vision else 0.0
        return 1 - (1 - len(mix.dropped) * self.layer) * (1 - self.widths[mix.narrow]) * (1 - vision)

    @property
    def width_share(self) -> float:
        """Return the share of the parameters that has to go for width alone to save the time.

        Raises:
            EditError: it cannot save so much.
        """
        found = next((n for n, saved in enumerate(self.widths) if saved >= self.share - CLOSE), None)
        if found is None:
            raise EditError(
                f"Narrow layers save at most {max(self.widths):.0%} of a prefill's time here, and {self.share:.0%} are to go."
            )
        return found * self.step

    def skipping(self) -> list[Edit]:
        """Return the edits in which vision tokens skip layers that save the time.

        Raises:
            EditError: none does.
        """
        found = [edit for edit, saved in self.visions if saved >= self.share - CLOSE]
        if not found:
            most = max(0.0, *(saved for _, saved in self.visions), 0.0)
            raise EditError(
                f"Vision tokens that skip layers save at most {most:.0%} of a prefill's time here, and {self.share:.0%} are to go."
            )
        return found

    def narrow_share(self, mix: Mix) -> float:
        """Return the share of the parameters that the width of a mix saves."""
        return mix.narrow * self.step


def edits_to_time(model: ModelInfo, locks: Locks, step: float, scores: WidthScores | None) -> tuple[Edit, list[int]]:
    """Return the mask of half of the layers that may go, and the numbers of steps of width whose edits are to be timed.

    Raises:
        EvaluationError: no layer may go.
    """
    free = locks.free
    if not free or model.n_layers < 2:
        raise EvaluationError(
            f"The kinds cannot be compared: expected layers that may go, got none of {model.name}. Let some go."
        )
    half = free[::2][: max(1, min(len(free), model.n_layers - 1) // 2)]
    steps = [] if scores is None else [n for n in range(1, model.n_layers) if _is_possible(scores, n * step)]
    looks = sorted({max(1, round(len(steps) * look / LOOKS)) for look in range(1, LOOKS + 1)}) if steps else []
    return PruneMask(model.n_layers, half, model=model), looks


def _is_possible(scores: WidthScores, share: float) -> bool:
    try:
        make_narrow(scores, share, GLOBAL)
    except EditError:
        return False
    return True


def time_plan_of(
    model: ModelInfo,
    share: float,
    locks: Locks,
    step: float,
    half: tuple[int, float],
    looks: Sequence[tuple[int, float]],
    visions: Sequence[tuple[Edit, float]],
) -> TimePlan:
    """Return the plan of what was timed.

    Args:
        model, share, locks, step: as in `TimePlan`.
        half: how many layers a mask drops, and the share of the time that it saves.
        looks: numbers of steps of width, ascending, and what each saves.
        visions: as in `TimePlan`.

    Raises:
        EvaluationError: so much time cannot go by dropping layers.
    """
    layer = max(0.0, half[1]) / half[0]
    most = min(len(locks.free), model.n_layers - 1)
    n_dropped = math.ceil(share / layer - CLOSE) if layer else most + 1
    if n_dropped > most:
        raise EvaluationError(
            f"So much time cannot go: expected at most {most * layer:.0%} of a prefill's, as {most} layers may go, got {share:.0%}. Ask "
            "for less."
        )
    places = [0, *(n for n, _ in looks)]
    saved = np.maximum.accumulate([0.0, *(max(0.0, one) for _, one in looks)])
    widths = tuple(float(one) for one in np.interp(range(places[-1] + 1), places, saved))
    return TimePlan(model, share, layer, max(1, n_dropped), step, widths, tuple(visions))
