"""The colours of a scale for what is drawn without Plotly's figures: cells of a table that agree with the heatmaps."""

from __future__ import annotations

import numpy as np
from plotly.colors import sample_colorscale, unlabel_rgb

from vlm_analysis.figures.scales import Scale

N_SHADES = 101


def palette(scale: Scale) -> list[tuple[str, str]]:
    """Return (colour, ink) of `N_SHADES` evenly spaced shades from the low end of the scale to its high end.

    The ink is black or white, whichever has the higher contrast to the colour (WCAG 2.2, relative luminance).
    """
    colours = sample_colorscale(scale.colours, np.linspace(0, 1, N_SHADES).tolist())
    return [(colour, "#000" if _luminance(colour) > 0.179 else "#fff") for colour in colours]


def shades(values: np.ndarray, scale: Scale, ends: tuple[float, float] | None = None) -> np.ndarray:
    """Return the place of each value in the palette, in 0..N_SHADES - 1, and -1 where there is no value.

    Args:
        values: any shape.
        ends: values at which the colours saturate; without them those of the scale, which are the same for every recording.
    """
    low, high = scale.ends if ends is None else scale.shade(np.asarray(ends, dtype=np.float64))
    with np.errstate(invalid="ignore"):
        part = (scale.shade(np.asarray(values, dtype=np.float64)) - low) / (high - low if high > low else 1.0)
    place = np.rint(np.clip(np.nan_to_num(part, nan=0.0), 0, 1) * (N_SHADES - 1)).astype(int)
    return np.where(np.isfinite(values), place, -1)


def _luminance(colour: str) -> float:
    parts = np.array(unlabel_rgb(colour)) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
