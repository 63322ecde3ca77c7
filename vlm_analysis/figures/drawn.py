"""Pictures as SVG in one string, for documents that load no library: the curve of an Answer, and layers across.

They take the colour of their text from where they stand (`currentColor`), so that they are readable in light, in dark and on paper.
Those with layers across have the same columns and can stand below one another. What is said to who cannot see them is `alt`.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vlm_analysis.edits.edit import Edit
from vlm_analysis.figures import style
from vlm_analysis.figures.scales import DIVERGING, SCALES, Scale
from vlm_analysis.figures.shades import palette, shades
from vlm_analysis.model_info import Locks

WIDTH, LEFT, RIGHT = 640, 112, 26  # in units of the picture, as all sizes here
TEXT, SMALL = 15, 13
ROW = 34
CURVE_HEIGHT, CURVE_TOP, CURVE_BOTTOM = 330, 34, 48
_DASHES = {"solid": "", "dash": "9 5", "dot": "2 5", "dashdot": "9 4 2 4"}
_PLOT = WIDTH - LEFT - RIGHT
Cell = tuple[str, str, str]
"""Colour, ink and mark."""
Place = Callable[[float, float], tuple[float, float]]
MOST_SHOWN = 1.1  # the retention at which the curve's axis ends


def strip_svg(edit: Edit, alt: str, *, locks: Locks | None = None) -> str:
    """Return what an edit does to each layer: kept blue, dropped orange with a cross, changed purple with a tilde."""
    variants = dict(edit.steps.layers)
    looks = {None: (style.DROPPED, "×"), "": (style.KEPT, "")}
    cells = [looks.get(variants.get(layer), (style.CHANGED, "~")) for layer in range(edit.n_layers)]
    row = [(colour, "#fff", mark) for colour, mark in cells]
    marks = {} if locks is None else {layer: _lock(locks, layer) for layer in locks.reasons}
    words = f"× dropped ({len(edit.gone)} of {edit.n_layers})" + " · P: stays, else the model mostly breaks" * (
        "P" in marks.values()
    )
    return _layers([("layers", row)], alt, marks=marks, foot=[_text(LEFT, 0, words, SMALL)])


def similarity_svg(values: np.ndarray, rows: Sequence[str], alt: str, *, dropped: Iterable[int] = ()) -> str:
    """Return the similarity of each layer's input and output as a heatmap on the fixed scale of all recordings.

    Args:
        values: (n_rows, n_layers) cosines, NaN where there is none.
        rows: (n_rows,) names.
        alt: the picture in words.
        dropped: layers with a cross below their column.
    """
    return _heat(values, rows, alt, SCALES["cosine"], dropped)


def difference_svg(values: np.ndarray, names: tuple[str, str], alt: str, *, dropped: Iterable[int] = ()) -> str:
    """Return (n_layers,) differences of the first domain minus the second, blue below zero and orange above, to the largest of them."""
    values = np.asarray(values, dtype=np.float64)[None]
    limit = float(np.abs(values[np.isfinite(values)]).max(initial=0.0)) or 1.0
    ticks = {-limit: f"−{limit:.2g}", 0: "0", limit: f"{limit:.2g}"}
    unit = f"{names[0]} minus {names[1]}"
    return _heat(
        values, ["difference"], alt, Scale(unit, lambda one: one, (-limit, limit), ticks, colours=DIVERGING), dropped
    )


def curve_svg(curve: pd.DataFrame, others: pd.DataFrame, budget: int, alt: str) -> str:
    """Return retention over the share of parameters saved: a line and its 90 % interval for each domain, other methods grey.

    Args:
        curve: columns budget, saved, domain, value, low and high, as in an Answer; NaN leaves a gap.
        others: columns method, budget, saved and value; may be empty.
        budget: the one whose dots are large.
        alt: the picture in words.
    """
    most = max(0.01, float(curve["saved"].max()))
    below = CURVE_HEIGHT - CURVE_BOTTOM

    def place(saved: float, value: float) -> tuple[float, float]:
        return LEFT + _PLOT * saved / most, below - (below - CURVE_TOP) * min(value, MOST_SHOWN) / MOST_SHOWN

    parts = _axes(most, place)
    for _, rows in others.sort_values("budget").groupby("method", sort=False):
        parts.append(
            _line([place(*pair) for pair in _pairs(rows)], 'stroke="#8c8c8c" stroke-opacity=".5" stroke-width="1.5"')
        )
    chosen = curve.loc[curve["budget"] == budget, "saved"]
    if len(chosen):
        x, top = place(float(chosen.iloc[0]), MOST_SHOWN)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{below}" stroke="currentColor" stroke-dasharray="3 4"/>'
        )
    names = []
    for index, (domain, rows) in enumerate(curve.sort_values("budget").groupby("domain", sort=False)):
        look = style.category(index)
        colour, dash = look["color"], _DASHES[look["dash"]]
        parts += _band(rows, place, colour)
        parts.append(
            _line(
                [place(*pair) for pair in _pairs(rows)], f'stroke="{colour}" stroke-width="3" stroke-dasharray="{dash}"'
            )
        )
        here = rows[(rows["budget"] == budget) & rows["value"].notna()]
        parts += [_dot(*place(*pair), colour, 4) for pair in _pairs(rows)] + [
            _dot(*place(*pair), colour, 9) for pair in _pairs(here)
        ]
        kept = f" {100 * here['value'].iloc[0]:.0f} %" if len(here) else ""
        names.append((colour, f"{domain}{kept}"))
    if len(others):
        names.append(("#8c8c8c", "other methods, mean"))
    return _svg([*parts, *_legend(names)], CURVE_HEIGHT, alt)


def _axes(most: float, place: Place) -> list[str]:
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        _, y = place(0, share)
        strong = 'stroke-opacity=".6" stroke-dasharray="2 4"' if share == 1 else 'stroke-opacity=".15"'
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" {strong}/>'
        )
        parts.append(_text(LEFT - 8, y + 5, f"{100 * share:.0f} %", TEXT, anchor="end"))
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if most / step <= 6 or step == 0.2)
    for count in range(int(most / step + 1e-6) + 1):
        x, y = place(count * step, 0)
        parts.append(_text(x, y + 20, f"{100 * count * step:.0f} %", TEXT, anchor="middle"))
    parts.append(_text(LEFT + _PLOT / 2, CURVE_HEIGHT - 8, "parameters saved", TEXT, anchor="middle"))
    middle = (CURVE_HEIGHT - CURVE_BOTTOM + CURVE_TOP) / 2
    turned = f' transform="rotate(-90 26 {middle:.1f})"'
    return [*parts, _text(26, middle, "retention", TEXT, anchor="middle", more=turned)]


def _band(rows: pd.DataFrame, place: Place, colour: str) -> list[str]:
    known = rows.dropna(subset=["low", "high"])
    if known.empty:
        return []
    ends = [place(saved, high) for saved, high in zip(known["saved"], known["high"], strict=True)]
    ends += [place(saved, max(low, 0)) for saved, low in zip(known["saved"][::-1], known["low"][::-1], strict=True)]
    return [f'<polygon points="{_points(ends)}" fill="{colour}" fill-opacity=".16"/>']


def _pairs(rows: pd.DataFrame) -> list[tuple[float, float]]:
    known = rows.dropna(subset=["value"])
    return [(float(saved), float(value)) for saved, value in zip(known["saved"], known["value"], strict=True)]


def _legend(names: Sequence[tuple[str, str]]) -> list[str]:
    parts, x = [], float(LEFT)
    for colour, name in names:
        shown = style.label(name, 26)
        parts += [_dot(x + 6, 15, colour, 6), _text(x + 18, 20, name, TEXT, limit=26)]
        x += 34 + 0.56 * TEXT * len(html.unescape(shown))
    return parts


def _heat(values: np.ndarray, rows: Sequence[str], alt: str, scale: Scale, dropped: Iterable[int]) -> str:
    matrix = style.checked_matrix(values, rows, "picture of layers")
    colours, places = palette(scale), shades(matrix, scale)
    hole = ("#8c8c8c", "#fff", "?")
    cells = [[(*colours[place], "") if place >= 0 else hole for place in line] for line in places.tolist()]
    marks = dict.fromkeys(sorted(dropped), "×")
    said = f"{scale.unit}, × dropped" if marks else scale.unit
    return _layers(list(zip(rows, cells, strict=True)), alt, marks=marks, foot=_bar(scale, colours, said))


def _layers(rows: Sequence[tuple[str, Sequence[Cell]]], alt: str, *, marks: dict[int, str], foot: Sequence[str]) -> str:
    """Return rows of (colour, ink, mark) cells with layers across, marks and layer numbers below them, and a foot."""
    n_layers = len(rows[0][1])
    wide, parts, y = _PLOT / n_layers, [], 4.0
    size = min(TEXT + 3, 0.8 * wide)
    for name, cells in rows:
        parts.append(_text(LEFT - 8, y + ROW / 2 + 5, name, TEXT, anchor="end", limit=12))
        for layer, (colour, ink, mark) in enumerate(cells):
            x = LEFT + layer * wide
            parts.append(
                f'<rect x="{x + 0.5:.1f}" y="{y:.1f}" width="{wide - 1:.1f}" height="{ROW - 3}" fill="{colour}"/>'
            )
            if mark:
                parts.append(_text(x + wide / 2, y + ROW / 2 + 5, mark, size, anchor="middle", fill=ink))
        y += ROW
    parts += [_text(LEFT + (layer + 0.5) * wide, y + 15, mark, size, anchor="middle") for layer, mark in marks.items()]
    y += 18 * bool(marks) + 18
    step = next((step for step in (1, 2, 5, 10, 20) if n_layers <= 24 * step), 50)
    parts += [
        _text(LEFT + (layer + 0.5) * wide, y, str(layer), SMALL, anchor="middle") for layer in range(0, n_layers, step)
    ]
    parts.append(_text(LEFT - 8, y, "layer", SMALL, anchor="end"))
    y += 12
    return _svg([*parts, f'<g transform="translate(0 {y + 14:.1f})">{"".join(foot)}</g>'], y + 24, alt)


def _bar(scale: Scale, colours: Sequence[tuple[str, str]], said: str) -> list[str]:
    """Return the scale as a bar with its ticks, and what it is in words."""
    wide, low, high = 200, *scale.ends
    parts = [
        f'<rect x="{LEFT + wide * index / 25:.1f}" y="-12" width="{wide / 25 + 0.5:.1f}" height="8" fill="{colours[4 * index][0]}"/>'
        for index in range(25)
    ]
    parts += [
        _text(LEFT + wide * (at - low) / (high - low), 8, text, SMALL, anchor="middle")
        for at, text in scale.ticks.items()
    ]
    return [*parts, _text(LEFT + wide + 30, -2, said, SMALL)]


def _lock(locks: Locks, layer: int) -> str:
    return "L" if layer in locks.locked else "P" if layer in locks.protected else "K"


def _dot(x: float, y: float, colour: str, radius: int) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"/>'


def _line(points: Sequence[tuple[float, float]], look: str) -> str:
    return f'<polyline points="{_points(points)}" fill="none" {look}/>'


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _text(x: float, y: float, text: str, size: float, **look: Any) -> str:
    """Return a line of text; `look` is anchor, fill, limit (characters) and more (attributes)."""
    anchor, fill, more = look.get("anchor", "start"), look.get("fill", "currentColor"), look.get("more", "")
    shown = style.label(text, look.get("limit", 70))
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:.1f}" text-anchor="{anchor}" fill="{fill}"{more}>{shown}</text>'


def _svg(parts: Iterable[str], height: float, alt: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{html.escape(alt)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
