"""Figures of what a recording holds beside the layer similarity: the numbers given, fixed scales, text that does nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vlm_analysis import MEASURES, Locks
from vlm_analysis.errors import MaskError
from vlm_analysis.figures.recorded import depth_profile, image_overlay, measure_heatmap, span_heatmap, token_heatmap
from vlm_analysis.figures.scales import SCALES

HOSTILE = '<a href="http://evil.example">x</a></script><script>alert(1)</script> $x$'
UNSHOWN = {"hsic", "nonfinite", "token_counts"}


@pytest.mark.parametrize("measure", SCALES)
def test_every_scale_is_fixed_and_its_ticks_lie_on_it(measure):
    scale = SCALES[measure]
    if measure != "span":
        for factor in (1, 1e-3):
            cells = measure_heatmap(np.random.default_rng(0).random((2, 5)) * factor, ("a", "b"), measure).data[0]
            assert (cells.zmin, cells.zmax) == scale.ends
    assert all(scale.ends[0] <= tick <= scale.ends[1] for tick in scale.ticks)
    assert np.isnan(scale.shade(np.array([np.nan]))).all()


def test_every_measure_of_layers_has_a_scale():
    layered = {name for name, row in MEASURES.items() if "layer" in row.axes}
    assert layered - UNSHOWN <= set(SCALES)


def test_measure_heatmap_tells_the_number_and_marks_what_was_not_measured():
    figure = measure_heatmap(np.array([[2.5, np.nan]]), (HOSTILE,), "norm_ratio", locks=Locks(2, {0: HOSTILE}))
    assert "2.5" in figure.data[0].hovertext[0][0]
    assert "no tokens" in figure.data[0].hovertext[0][1]
    assert "<script" not in figure.to_json()
    assert "<a href" not in figure.to_json()
    with pytest.raises(MaskError):
        measure_heatmap(np.ones((1, 2)), ("a",), "update", locks=Locks(3, locked={2: "beyond"}))


def test_span_heatmap_draws_the_upper_half_and_names_the_layers_between():
    matrix = np.full((5, 5), 0.9)
    matrix[1, 3] = matrix[3, 1] = 0.99
    figure = span_heatmap(matrix, outlined=(1, 3))
    cells = figure.data[0]
    assert np.isnan(np.array(cells.z)[np.tril_indices(5)]).all()
    np.testing.assert_allclose(cells.z[1][3], 2, rtol=1e-6)
    assert "layers 1 to 2" in cells.hovertext[1][3]
    assert "layer 0<br>" in cells.hovertext[0][1]
    assert "leaves the last" in cells.hovertext[2][4]
    (box,) = figure.layout.shapes
    assert (box.x0, box.x1, box.y0, box.y1) == (2.5, 3.5, 0.5, 1.5)
    with pytest.raises(ValueError, match="square"):
        span_heatmap(np.ones((2, 3)))


def test_token_heatmap_shows_every_token_of_every_kind_with_harmless_text():
    cosine = np.linspace(0, 1, 12, dtype=np.float16).reshape(3, 4)
    cosine[2] = np.nan
    figure = token_heatmap(cosine, np.array([0, 1, 1, 2]), (HOSTILE, "b", "c", "d"))
    assert [trace.name for trace in figure.data] == ["tokens", "vision", "text", "answer"]
    assert list(figure.data[2].x) == [1, 2]
    assert "<script" not in figure.to_json()


@pytest.mark.parametrize("size", [(64, 64), (300, 100), (10, 1000), (3000, 2000)])
def test_an_overlay_holds_the_image_and_one_cell_a_token(size):
    image, values = Image.new("RGB", size, "red"), np.random.default_rng(0).random((3, 5)).astype(np.float16)
    figure = image_overlay(image, values)
    assert np.array(figure.data[0].z).shape == (3, 5)
    assert figure.layout.images[0].source.startswith("data:image/png;base64,")
    assert len(figure.to_json()) < 400_000
    assert image.size == size


def test_depth_profile_puts_models_of_any_depth_on_one_axis():
    series = {"deep": np.linspace(0, 0.9, 28), "shallow": np.array([0.5, np.nan, 0.7]), "single": np.array([0.9])}
    figure = depth_profile(series, "cosine")
    assert [(line.x[0], line.x[-1]) for line in figure.data] == [(0, 1), (0, 1), (0, 0)]
    np.testing.assert_allclose(figure.data[1].y, -np.log10(1 - np.array([0.5, np.nan, 0.7])), rtol=1e-6)
    assert figure.layout.yaxis.range[0] < 0 < 3 < figure.layout.yaxis.range[1]
