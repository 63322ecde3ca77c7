"""The address of a page: what it says is shown, what is shown it says, and what is not there is left out with a line."""

from __future__ import annotations

import pytest
from acting import OpenPage, ran, send, words
from streamlit.testing.v1 import AppTest

from vlm_analysis import PruneMask
from vlm_analysis.edits.shorthand import layers_in, shortened
from vlm_analysis.ui.common.session import opened, workspace
from vlm_analysis.workbench.shelf import keep_mask, keep_recording

SIMILARITY, MASKS, EXPORT = "pages/3_similarity.py", "pages/4_masks.py", "pages/7_export.py"


def at_address(page: OpenPage, path: str, **address: str) -> AppTest:
    """Open a page at an address, as another browser would."""
    at = page("app.py")
    for name, value in address.items():
        at.query_params[name] = value
    at.switch_page(path)
    return ran(at)


def said(at: AppTest, name: str) -> str:
    value = at.query_params[name]
    return value if isinstance(value, str) else value[0]


def shown(at: AppTest, label: str) -> str:
    return next(str(box.value) for box in at.selectbox if box.label == label)


def test_a_recording_in_the_address_is_shown_and_one_that_is_chosen_is_told(stocked: OpenPage) -> None:
    stocked("app.py")
    old = workspace().items("recordings")[0]
    new = keep_recording(workspace(), opened(old), "newer")
    at = at_address(stocked, SIMILARITY, recording=old.id)
    assert shown(at, "Recording") == old.id
    assert said(at, "recording") == old.id
    next(box for box in at.selectbox if box.label == "Recording").select(new.id)
    assert said(ran(at), "recording") == new.id
    at.query_params["recording"] = old.id  # back
    assert shown(ran(at), "Recording") == old.id


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        (SIMILARITY, "recording", "20260101-000000-00000000"),
        (SIMILARITY, "similarity_tab", "Elsewhere"),
        (MASKS, "cut", "5,99"),
        (MASKS, "cut", "[five](x)"),
        (MASKS, "cut", "9" * 5000),
        (EXPORT, "mask", "0000"),
    ],
)
def test_what_the_address_names_and_is_not_there_is_left_out_with_one_line(
    stocked: OpenPage, path: str, name: str, value: str
) -> None:
    at = at_address(stocked, path, **{name: value})
    assert words(at).count("is not here") == 1
    assert not at.error


def test_layers_in_the_address_are_the_mask_and_the_mask_is_in_the_address(stocked: OpenPage) -> None:
    at = at_address(stocked, MASKS, cut="4,7,9-11")
    assert at.session_state["mask"] == [4, 7, 9, 10, 11]
    assert said(send(at, [4, 7, 9, 10]), "cut") == "4 7 9 10"
    assert stocked(MASKS).session_state["mask"] == [4, 7, 9, 10]


def test_a_saved_mask_in_the_address_is_the_one_to_export(stocked: OpenPage) -> None:
    stocked("app.py")
    keep_mask(workspace(), PruneMask(16, [3], name="newest"))
    key = PruneMask(16, [5, 9]).key
    at = at_address(stocked, EXPORT, mask=key)
    assert "Drops 2 of 16 layers: 5, 9" in words(at)
    assert said(at, "mask") == key


@pytest.mark.parametrize("layers", [(), (4,), (4, 7, 12, 13, 14), (0, 1, 3, 4, 5, 6)])
def test_layers_in_short_are_read_as_they_were(layers: tuple[int, ...]) -> None:
    assert layers_in(shortened(layers)) == (layers or None)
