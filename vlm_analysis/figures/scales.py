"""The colour scale of every recorded measure: the same range for every model and recording, so that figures can be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

SEQUENTIAL = "Cividis"
DIVERGING = [[0.0, "#0072B2"], [0.25, "#7FB5D8"], [0.5, "#E8E8E8"], [0.75, "#EEA56A"], [1.0, "#C24E00"]]


@dataclass(frozen=True)
class Scale:
    """The mapping from the numbers of a measure to shades.

    Attributes:
        unit: title of the colour bar.
        shade: maps values to positions on the scale; must keep NaN.
        ends: the shades at which the colours saturate.
        ticks: {shade: text} on the colour bar.
        form: number format in hover boxes.
        colours: a Plotly colour scale.
    """

    unit: str
    shade: Callable[[np.ndarray], np.ndarray]
    ends: tuple[float, float]
    ticks: Mapping[float, str]
    form: str = ".4f"
    colours: Any = SEQUENTIAL


def _towards_one(values: np.ndarray) -> np.ndarray:
    return -np.log10(np.clip(1 - values, 1e-6, None))


def _log(base: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: np.log(np.clip(values, 1e-12, None)) / np.log(base)


def _as_is(values: np.ndarray) -> np.ndarray:
    return values


def _cosine(unit: str) -> Scale:
    return Scale(unit, _towards_one, (0, 3), {0: "0", 1: "0.9", 2: "0.99", 3: "0.999"})


def _share(unit: str) -> Scale:
    return Scale(unit, _as_is, (0, 1), {0: "0", 0.25: "25 %", 0.5: "50 %", 0.75: "75 %", 1: "100 %"}, ".1%")


SCALES: dict[str, Scale] = {
    "cosine": _cosine("cosine similarity"),
    "attention_cosine": _cosine("cosine similarity"),
    "mlp_cosine": _cosine("cosine similarity"),
    "important_cosine": _cosine("cosine similarity"),
    "linear_cka": _cosine("linear CKA"),
    "span": _cosine("cosine similarity"),
    "changed": _share("share of tokens"),
    "visual_attention": _share("share of attention"),
    "cosine_std": Scale("standard deviation", _as_is, (0, 0.3), {0: "0", 0.1: "0.1", 0.2: "0.2", 0.3: "0.3"}),
    "cross_modal": Scale("distance / norm", _as_is, (0, 2), {0: "0", 0.5: "0.5", 1: "1", 1.5: "1.5", 2: "2"}),
    "update": Scale("‖y − x‖ / ‖x‖", _log(10), (-2, 1), {-2: "0.01", -1: "0.1", 0: "1", 1: "10"}, ".4g"),
    "norm_ratio": Scale("‖y‖ / ‖x‖", _log(2), (-1, 1), {-1: "½", 0: "1", 1: "2"}, ".4g", DIVERGING),
    "output_rms": Scale("norm", _log(10), (0, 5), {0: "1", 1: "10", 2: "100", 3: "1000", 4: "10⁴", 5: "10⁵"}, ".4g"),
    "sinks": Scale("tokens a prompt", _as_is, (0, 4), {0: "0", 1: "1", 2: "2", 3: "3", 4: "4"}, ".2f"),
}
DAMAGE = Scale(
    "KL to dense, nats", _log(10), (-3, 1), {-3: "0.001", -2: "0.01", -1: "0.1", 0: "1", 1: "10"}, ".2g", "Cividis_r"
)  # reversed, so that bright layers are those that change little on both scales
WORTH = Scale(
    "worth of a parameter / mean", _log(10), (-2, 1), {-2: "0.01", -1: "0.1", 0: "1", 1: "10"}, ".2g"
)  # of neurons and attention groups, over the mean of all of them
