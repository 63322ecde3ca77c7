"""The picture of costs: the numbers given, fixed scales, shapes beside colours, nothing out of sight."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from vlm_analysis.figures.savings import Y_MAX, cost_chart


def frame(**changes: list[float] | list[str]) -> pd.DataFrame:
    numbers = {
        "budget": [2, 4, 2, 4],
        "phase": ["decode", "decode", "prefill", "prefill"],
        "value": [0.9, 0.8, 0.95, 0.85],
        "low": [0.85, 0.78, 0.9, 0.8],
        "high": [0.92, 0.9, 1.0, 0.86],
        "expected": [0.88, 0.76, 0.93, 0.87],
        "more": [""] * 4,
    }
    return pd.DataFrame({**numbers, **changes})


def named(figure, name: str):
    return [trace for trace in figure.data if trace.name.startswith(name)]


def test_points_stand_at_their_numbers_with_bars_to_the_quartiles() -> None:
    prefill, decode = named(cost_chart(frame(), 16), "measured")
    for trace, phase in ((prefill, "prefill"), (decode, "decode")):
        rows = frame()[frame()["phase"] == phase]
        assert list(trace.x) == [2, 4]
        np.testing.assert_allclose(trace.y, rows["value"], rtol=1e-6)
        np.testing.assert_allclose(trace.y + trace.error_y.array, rows["high"], rtol=1e-6)
        np.testing.assert_allclose(trace.y - trace.error_y.arrayminus, rows["low"], rtol=1e-6)
    assert prefill.marker.color != decode.marker.color
    assert prefill.marker.symbol != decode.marker.symbol


def test_expected_line_starts_at_the_dense_model_and_averages_masks_of_one_budget() -> None:
    prefill, decode = named(cost_chart(frame(budget=[2, 2, 2, 4]), 16), "expected")
    assert (list(prefill.x), list(decode.x)) == ([0, 2, 4], [0, 2])
    np.testing.assert_allclose(prefill.y, [1, 0.93, 0.87], rtol=1e-6)
    np.testing.assert_allclose(decode.y, [1, 0.82], rtol=1e-6)


def test_scale_does_not_depend_on_the_values_and_what_is_beyond_stays_in_sight() -> None:
    small, large = (cost_chart(frame(value=values), 16) for values in ([0.1] * 4, [9.0, 0.8, 0.9, 0.8]))
    for figure in (small, large):
        assert [axis.range for axis in figure.select_yaxes()] == [(0, Y_MAX)] * 2
    assert not named(small, "beyond")
    (beyond,) = named(large, "beyond")
    assert (list(beyond.x), list(beyond.y)) == ([2], [Y_MAX])
    assert "9.000 of the dense time" in beyond.hovertext[0]


def test_what_does_more_than_drop_decoder_layers_is_an_open_point_off_the_line_and_says_so() -> None:
    figure = cost_chart(frame(budget=[0, 4, 0, 4], more=["drops layer 1 of <b>", "", "drops layer 1 of <b>", ""]), 16)
    for trace in named(figure, "more than"):
        assert list(trace.x) == [0]
        assert trace.marker.symbol.endswith("-open")
        assert trace.hovertext[0].startswith("0 decoder layers dropped<br>drops layer 1 of &lt;b&gt;<br>0.9")
    assert [list(trace.x) for trace in named(figure, "measured")] == [[4], [4]]
    assert [list(trace.x) for trace in named(figure, "expected")] == [[0, 4], [0, 4]]
    assert len(named(figure, "more than")) == 2
    assert not named(cost_chart(frame(), 16), "more than")


@pytest.mark.parametrize(("n_layers", "end"), [(16, 8.4), (4, 4.4), (80, 40.4), (1, 4.4)])
def test_layer_axis_reaches_to_half_the_layers_or_the_largest_budget(n_layers: int, end: float) -> None:
    figure = cost_chart(frame(), n_layers)
    assert [axis.range[1] for axis in figure.select_xaxes()] == [end, end]
    assert end / figure.layout.xaxis.dtick <= 9


def test_nothing_measured_is_an_empty_picture_with_both_axes() -> None:
    figure = cost_chart(frame()[:0], 16)
    assert not any(len(trace.x) for trace in named(figure, "measured"))
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
