"""The small picture of a mask: as many bars as layers, the dropped ones of another colour and height."""

from __future__ import annotations

import re
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from vlm_analysis.errors import MaskError
from vlm_analysis.figures.ministrips import mini_strip
from vlm_analysis.figures.style import CHANGED, DROPPED, KEPT


def bars(uri: str) -> dict[str, list[tuple[int, int]]]:
    """Return (left, height) of every bar by its colour."""
    head, svg = uri.split(",", 1)
    assert head == "data:image/svg+xml;utf8"
    paths = ElementTree.fromstring(unquote(svg)).findall("{http://www.w3.org/2000/svg}path")
    return {
        path.attrib["fill"]: [(int(x), int(h)) for x, h in re.findall(r"M(\d+) \d+h\d+v(\d+)", path.attrib["d"])]
        for path in paths
    }


@pytest.mark.parametrize("n_layers", [1, 16, 64, 160])
def test_every_layer_has_a_bar_in_its_place_and_dropped_ones_differ_in_colour_and_height(n_layers: int) -> None:
    dropped = [0, n_layers // 2] if n_layers > 1 else []
    drawn = bars(mini_strip(dropped, n_layers))
    assert len(drawn[KEPT]) == n_layers - len(dropped)
    assert len(drawn.get(DROPPED, [])) == len(dropped)
    pitch = max(left for of in drawn.values() for left, _ in of) // max(1, n_layers - 1)
    assert [left for left, _ in drawn.get(DROPPED, [])] == [layer * pitch for layer in dropped]
    assert {height for _, height in drawn[KEPT]}.isdisjoint(height for _, height in drawn.get(DROPPED, []))


def test_changed_layers_differ_too() -> None:
    drawn = bars(mini_strip([1], 4, changed=[2, 3]))
    assert {colour: len(of) for colour, of in drawn.items()} == {KEPT: 1, CHANGED: 2, DROPPED: 1}
    assert len({height for of in drawn.values() for _, height in of}) == 3


def test_nothing_in_it_ends_an_attribute_and_a_large_mask_stays_small() -> None:
    uri = mini_strip(range(1, 64), 64)
    assert not set("\"'#\n") & set(uri)
    assert len(uri) < 2500


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(MaskError, match="mini strip failed"):
        mini_strip([8], 8)
