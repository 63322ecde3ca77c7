"""Skip-It? (arXiv:2509.25584): layers that change vision tokens little and attend to them little, and the bands that could skip them.

The paper's rule: skip where redundancy is high and the visual attention ratio is low. We do not know its
thresholds, so the user sets all of them. How the two redundancies are combined is our choice and an option.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vlm_analysis.errors import MaskError
from vlm_analysis.recording.measures import DELTAS
from vlm_analysis.recording.recording import Recording

Rule = Literal["both", "either", "geometric", "proximal"]
RULES: dict[Rule, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "both": np.logical_and,
    "either": np.logical_or,
    "geometric": lambda geometric, proximal: geometric,
    "proximal": lambda geometric, proximal: proximal,
}


@dataclass(frozen=True, eq=False)
class SkipBands:
    """Curves over layers, what the thresholds select, and the bands at both ends. All arrays are (n_layers,).

    Attributes:
        geometric: mean 1 − cosine of vision tokens, in [0, 2]; NaN where not measured, which selects nothing.
        proximal: share of vision tokens with 1 − cosine ≥ delta, in [0, 1].
        attention: visual attention ratio, in [0, 1]; None, and not used, where no attention maps were recorded.
        geometric_low, proximal_low, attention_low: bool, at or below epsilon, eta and tau; the last None as above.
        selected: bool, redundant by the rule and with a low visual attention ratio.
        late_entry: the selected layers at the start: vision tokens could enter after them.
        early_exit: the selected layers at the end: vision tokens could leave before them; empty where late_entry is all layers.
    """

    geometric: np.ndarray
    proximal: np.ndarray
    attention: np.ndarray | None
    geometric_low: np.ndarray
    proximal_low: np.ndarray
    attention_low: np.ndarray | None
    selected: np.ndarray
    late_entry: tuple[int, ...]
    early_exit: tuple[int, ...]


def skip_bands(
    recording: Recording,
    *,
    epsilon: float,
    delta: float,
    eta: float,
    tau: float,
    domain: str | None = None,
    rule: Rule = "both",
) -> SkipBands:
    """Return the curves of vision redundancy and attention, and the layers and bands that the thresholds select.

    Args:
        recording: what was measured.
        epsilon: largest mean 1 − cosine of a geometrically redundant layer.
        delta: smallest 1 − cosine at which a token counts as changed, one of `DELTAS`.
        eta: largest share of changed tokens of a proximally redundant layer.
        tau: largest visual attention ratio of a layer that may be skipped.
        domain: whose prompts; None for all.
        rule: which of the two redundancies must hold.

    Raises:
        MaskError: a delta that was not recorded, an unknown rule, or a threshold that is not a number.
        RecordingError: an unknown domain.
    """
    if delta not in DELTAS or rule not in RULES:
        raise MaskError(
            f"Unknown delta or rule: expected one of {list(DELTAS)} and {list(RULES)}, got {delta!r} and {rule!r}."
        )
    if any(np.isnan(value) for value in (epsilon, eta, tau)):
        raise MaskError(f"Thresholds are numbers: expected epsilon, eta and tau, got {epsilon!r}, {eta!r} and {tau!r}.")
    geometric = 1.0 - recording.layer_values("cosine", domain, "vision")
    proximal = recording.layer_values("changed", domain, "vision", which=DELTAS.index(delta))
    attention = recording.layer_values("visual_attention", domain) if recording.has("visual_attention") else None
    low = geometric <= epsilon, proximal <= eta
    attention_low = None if attention is None else attention <= tau
    redundant = RULES[rule](*low)
    selected = redundant if attention_low is None else redundant & attention_low
    late, early = _bands(selected)
    return SkipBands(geometric, proximal, attention, *low, attention_low, selected, late, early)


def _bands(selected: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    others = np.flatnonzero(~selected)
    if not len(others):
        return tuple(range(len(selected))), ()
    return tuple(range(int(others[0]))), tuple(range(int(others[-1]) + 1, len(selected)))
