"""An edit as a small picture for a cell of a table: one bar a layer, kept ones tall and blue, dropped ones short and orange."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from urllib.parse import quote

from vlm_analysis.figures import style

HEIGHT, MIDDLE, SHORT = 24, 16, 10  # of a kept, a changed and a dropped bar
MOST_WIDTH = 320  # from which on bars get narrower, down to one unit each


def mini_strip(dropped: Collection[int], n_layers: int, changed: Collection[int] = ()) -> str:
    """Return the picture as a data URI of SVG, without any text: `n_layers` bars, layer 0 on the left; `changed` ones are purple.

    >>> mini_strip([1], 3)[:26]
    'data:image/svg+xml;utf8,<s'

    Raises:
        MaskError: a layer that the model does not have.
    """
    gone, other = (tuple(style.checked_layers(layers, n_layers, "mini strip")) for layers in (dropped, changed))
    return _drawn(gone, other, n_layers)


def strip_width(n_layers: int) -> int:
    """Return the width of the picture in pixels."""
    return n_layers * _pitch(n_layers)


def _pitch(n_layers: int) -> int:
    return max(2, min(10, MOST_WIDTH // n_layers))


@lru_cache(maxsize=4096)
def _drawn(dropped: tuple[int, ...], changed: tuple[int, ...], n_layers: int) -> str:
    pitch = _pitch(n_layers)
    bar = pitch - (2 if pitch > 4 else 1)
    looks = {style.KEPT: HEIGHT, style.CHANGED: MIDDLE, style.DROPPED: SHORT}
    paths = dict.fromkeys(looks, "")
    of = dict.fromkeys(changed, style.CHANGED) | dict.fromkeys(dropped, style.DROPPED)
    for layer in range(n_layers):
        colour = of.get(layer, style.KEPT)
        height = looks[colour]
        paths[colour] += f"M{layer * pitch} {(HEIGHT - height) // 2}h{bar}v{height}h-{bar}z"
    shapes = "".join(f'<path fill="{colour}" d="{path}"/>' for colour, path in paths.items() if path)
    width = strip_width(n_layers)
    size = f'width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{shapes}</svg>'
    return "data:image/svg+xml;utf8," + quote(svg, safe="<>=:/ ")
