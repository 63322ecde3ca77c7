"""Contrast of the project's own colours, by WCAG 2.2: text 4.5 to 1, what only marks something 3 to 1."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from plotly.colors import unlabel_rgb

from vlm_analysis.figures.scales import DAMAGE, SCALES
from vlm_analysis.figures.shades import palette
from vlm_analysis.figures.style import CHANGED, DROPPED, KEPT

ROOT = Path(__file__).resolve().parents[2]
THEMES = {
    name: look
    for name, look in tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())["theme"].items()
    if name in ("light", "dark")
}
STRIP = (ROOT / "vlm_analysis" / "ui" / "masks" / "strip" / "strip.css").read_text()
TEXT, MARK = 4.5, 3.0
CAPTION = 0.6  # opacity at which Streamlit draws captions
WHITE, BLACK = np.ones(3), np.zeros(3)


def rgb(colour: str) -> np.ndarray:
    """Return a colour as (3,) in [0, 1]."""
    if colour.startswith("rgb"):
        return np.array(unlabel_rgb(colour)) / 255
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    return np.array([int(digits[place : place + 2], 16) for place in (0, 2, 4)]) / 255


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """Return the contrast of two colours, from 1 to 21."""
    low, high = sorted(_luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: np.ndarray) -> float:
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def mixed(colour: np.ndarray, ground: np.ndarray, opacity: float) -> np.ndarray:
    return opacity * colour + (1 - opacity) * ground


def test_contrast_of_black_and_white_is_21() -> None:
    assert contrast(BLACK, WHITE) == pytest.approx(21)
    assert contrast(rgb("#767676"), rgb("#fff")) == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("ground", ["backgroundColor", "secondaryBackgroundColor"])
def test_text_captions_and_code_are_read_on_both_grounds_of_both_themes(theme: str, ground: str) -> None:
    look, below = THEMES[theme], rgb(THEMES[theme][ground])
    for words in ("textColor", "codeTextColor"):
        assert contrast(rgb(look[words]), below) >= TEXT
        assert contrast(mixed(rgb(look[words]), below, CAPTION), below) >= TEXT
    assert contrast(rgb(look["primaryColor"]), below) >= MARK  # the ring of what has the focus


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_primary_buttons_are_read(theme: str) -> None:
    assert contrast(WHITE, rgb(THEMES[theme]["primaryColor"])) >= TEXT  # Streamlit writes on them in white


def test_layers_of_the_strip_are_read() -> None:
    share, stripe = re.search(r"color-mix\(in srgb, var\(--dropped\) (\d+)%, #000\) 0 5px, (#\w+) 5px", STRIP).groups()
    assert contrast(WHITE, mixed(rgb(DROPPED), BLACK, int(share) / 100)) >= TEXT
    assert contrast(WHITE, rgb(stripe)) >= TEXT
    assert contrast(WHITE, rgb(CHANGED)) >= TEXT
    ink = re.search(r"color: (#\w+);\n[^}]*background: var\(--kept\)", STRIP).group(1)
    assert contrast(rgb(ink), rgb(KEPT)) >= TEXT


@pytest.mark.parametrize("scale", [*SCALES.values(), DAMAGE], ids=[*SCALES, "damage"])
def test_numbers_in_coloured_cells_are_read(scale) -> None:
    assert min(contrast(rgb(ink), rgb(colour)) for colour, ink in palette(scale)) >= TEXT
