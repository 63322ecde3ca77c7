"""The Similarity page's picture of the vision encoder's layers: its numbers, which stay and why, and what is said without numbers."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from acting import chart, words
from rankings import full_recording, with_tower
from streamlit.testing.v1 import AppTest

from vlm_analysis import Recording
from vlm_analysis.model_info import TowerInfo
from vlm_analysis.ui.common.session import workspace
from vlm_analysis.workbench.shelf import keep_recording

TOWER = TowerInfo(5, protected={0: "first <b>layer</b>"}, locked={1: "DeepStack", 2: "DeepStack"}, unread=(4,))
COSINES = np.random.default_rng(5).uniform(0.2, 0.99, (6, 5))
PAGE = "pages/3_similarity.py"


def opened(open_page: Callable[[str], AppTest], recording: Recording) -> AppTest:
    """Return the page with the recording on it, its only one."""
    open_page(PAGE)  # sets the workspace
    keep_recording(workspace(), recording, "made")
    return open_page(PAGE)


def towers(at: AppTest) -> list[Any]:
    """Return the drawn figures whose axis is that of the vision encoder."""
    figures = [chart(at, place) for place in range(len(at.get("plotly_chart")))]
    return [one for one in figures if "vision encoder" in one["layout"]["xaxis"]["title"]["text"]]


def test_its_layers_are_drawn_by_domain_on_the_fixed_scale_with_marks_of_those_that_stay(
    open_page: Callable[[str], AppTest],
) -> None:
    recording = with_tower(full_recording(6), COSINES, TOWER)
    (figure,) = towers(opened(open_page, recording))
    cells = next(one for one in figure["data"] if one.get("name") == "values")
    shades = np.frombuffer(base64.b64decode(cells["z"]["bdata"]), cells["z"]["dtype"]).reshape(3, 5)
    for shade, domain in zip(shades, recording.domain_names, strict=True):
        of = [row for row, name in enumerate(recording.domains) if name == domain]
        means = [sum(float(COSINES[row, layer]) for row in of) / len(of) for layer in range(5)]
        np.testing.assert_allclose(1 - 10.0**-shade, means, rtol=1e-5)
    assert (cells["zmin"], cells["zmax"]) == (0, 3)
    marks = next(one for one in figure["data"] if one.get("name") == "locks")
    assert dict(zip(marks["x"], marks["text"], strict=True)) == {0: "P", 1: "L", 2: "L"}


def test_it_says_which_layers_stay_and_why(open_page: Callable[[str], AppTest]) -> None:
    said = words(opened(open_page, with_tower(full_recording(6), COSINES, TOWER))).replace("\\", "")
    assert "Layers 1 and 2 are locked: DeepStack." in said
    assert "Layer 0 is protected: first <b>layer</b>." in said
    assert "Layer 4 runs for nothing" in said


PLAIN = full_recording(6)
WITHOUT = replace(PLAIN, model=replace(PLAIN.model, tower=TowerInfo(0, missing="it has several vision encoders")))


@pytest.mark.parametrize(
    ("recording", "reason"),
    [
        (PLAIN, "is older than the measure of the vision encoder's layers. Record again"),
        (WITHOUT, "has no numbers of the vision encoder: it has several vision encoders."),
        (
            with_tower(PLAIN, np.full((6, 5), np.nan), TOWER),
            "its prompts have no image, or it is not known which tokens of a batch are whose",
        ),
    ],
)
def test_without_numbers_it_says_why_and_draws_nothing(
    open_page: Callable[[str], AppTest], recording: Recording, reason: str
) -> None:
    at = opened(open_page, recording)
    assert reason in words(at).replace("\\", "")
    assert not towers(at)
