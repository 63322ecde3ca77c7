"""The figure of retention over budgets: the numbers given, bands of the best and random masks, and what is saved beside it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_figures import HOSTILE, named

from vlm_analysis.figures import style
from vlm_analysis.figures.curves import retention_curve

METHODS = ("random", *(f"method {i}" for i in range(9)))
OUT = ("method 4", "method 7")


def curves(budgets: tuple[int, ...] = (4, 0, 2), domains: tuple[str, ...] = ("general", "math", "charts", HOSTILE)):
    lines = [(m, d, b, 1 - 0.02 * b * (i + 1)) for i, m in enumerate(METHODS) for d in domains for b in budgets]
    frame = pd.DataFrame(lines, columns=["method", "domain", "budget", "value"])
    return frame.assign(low=frame["value"] - 0.05, high=frame["value"] + 0.03)


def costs() -> pd.DataFrame:
    lines = [(b, 1 - 0.03 * b * (i + 1), t) for i, t in enumerate(("parameters left", HOSTILE)) for b in (2, 0, 4)]
    return pd.DataFrame(lines, columns=["budget", "value", "title"])


def left_axes(figure, number: int) -> list:
    return [figure.layout[f"yaxis{place or ''}"] for place in (0, *range(2, number + 1))]


class TestBands:
    def test_methods_brought_out_have_a_band_and_a_thick_line_and_the_others_neither(self):
        figure = retention_curve(curves(), bands=OUT)
        (first, *_) = named(figure, "method 4")
        assert (first.mode, first.line.width, first.error_y.array) == ("lines+markers", 3, None)
        assert first.x.tolist() == [0, 2, 4]
        thin = named(figure, "7 other methods")[0]
        assert (thin.mode, thin.error_y.array) == ("lines", None)
        assert thin.line.width < 2
        assert thin.hovertext[0].startswith("method 0<br>")
        band = next(trace for trace in named(figure, "band") if trace.legendgroup == first.legendgroup)
        value = 1 - 0.02 * np.array([0, 2, 4]) * 6
        np.testing.assert_allclose(band.y[:3], value + 0.03)
        np.testing.assert_allclose(band.y[3:6], (value - 0.05)[::-1])
        assert len(named(figure, "band")) == 4 * (1 + len(OUT))

    def test_without_bands_every_method_has_error_bars(self):
        lines = [trace for trace in retention_curve(curves()).data if str(trace.name).startswith("method")]
        assert len(lines) == 4 * 9
        assert all(len(line.error_y.array) == 3 and line.mode == "lines+markers" for line in lines)

    def test_methods_brought_out_have_the_first_colours_and_lie_in_front(self):
        figure = retention_curve(curves(), bands=OUT)
        shown = [named(figure, name)[0] for name in OUT]
        assert [trace.line.color for trace in shown] == list(style.CATEGORIES[:2])
        assert len({trace.marker.symbol for trace in shown}) == 2
        order = [trace.name for trace in figure.data if trace.xaxis == "x"]
        assert order[:3] == ["band", "random", "dense"]
        assert order[-2:] == list(OUT)

    def test_all_other_methods_stand_in_the_legend_once_whatever_their_number(self):
        frame = pd.concat([curves().replace({name: f"{name} {i}" for name in METHODS[1:]}) for i in "ab"])
        figure = retention_curve(frame, bands=())
        lines = named(figure, "18 other methods")
        assert [line.xaxis for line in lines] == ["x", "x2", "x3", "x4"]
        assert sum(line.showlegend for line in lines) == 1
        assert {line.line.color for line in lines} == {"rgba(128,128,128,.55)"}
        assert figure.layout.height == retention_curve(curves(), bands=()).layout.height

    def test_the_other_methods_of_a_facet_are_one_trace_with_a_gap_between_two_of_them(self):
        figure = retention_curve(curves(), bands=OUT)
        line = named(figure, "7 other methods")[0]
        rows = list(zip(line.x, line.y, line.hovertext, strict=True))
        drawn = [(place, x, y, text) for place, (x, y, text) in enumerate(rows) if np.isfinite(y)]
        others = [i for i in range(9) if f"method {i}" not in OUT]
        assert [place for place, *_ in drawn] == [4 * n + budget for n in range(7) for budget in range(3)]
        wanted = [(b, 1 - 0.02 * b * (i + 2), f"method {i}<br>general<br>{b} ") for i in others for b in (0, 2, 4)]
        for (_, x, y, text), (budget, value, start) in zip(drawn, wanted, strict=True):
            assert (x, text[: len(start)]) == (budget, start)
            assert y == pytest.approx(value, rel=1e-6)

    def test_hundreds_of_methods_take_no_more_traces_than_some(self):
        many = pd.concat([curves().replace({name: f"{name} {i}" for name in METHODS[1:]}) for i in range(12)])
        assert len(retention_curve(many).data) > 4 * 108
        some = len(retention_curve(curves(), bands=()).data)
        assert len(retention_curve(many, bands=()).data) == some < 4 * 5

    def test_a_number_between_gaps_is_a_dot_where_a_thin_line_would_show_nothing(self):
        frame = curves((0, 1, 2, 3, 4), ("general",))
        frame.loc[(frame["method"] == "method 0") & frame["budget"].isin([1, 3]), ["value", "low", "high"]] = np.nan
        figure = retention_curve(frame, bands=OUT)
        line = named(figure, "7 other methods")[0]
        assert np.isnan(line.y[[1, 3]]).all()
        assert [size > 0 for size in line.marker.size][:5] == [True, False, True, False, True]
        assert "not measured" in line.hovertext[1]

    def test_a_comparison_at_one_budget_shows_its_bands_and_lines(self):
        figure = retention_curve(curves((3,), ("general",)), bands=OUT, cost=costs())
        for band in named(figure, "band"):
            assert band.x[0] < 3 < band.x[1]
        assert named(figure, "7 other methods")[0].mode == "lines+markers"

    def test_a_method_that_the_first_domain_lacks_is_still_in_the_legend_once(self):
        frame = curves()
        frame = frame[(frame["method"] != "method 2") | (frame["domain"] != "general")]
        shown = [line.showlegend for line in named(retention_curve(frame), "method 2")]
        assert shown == [True, False, False]

    def test_names_that_are_in_no_row_change_nothing(self):
        figure = retention_curve(curves(), bands=("nowhere", "random"))
        assert {trace.mode for trace in named(figure, "9 other methods")} == {"lines"}
        assert len(named(figure, "band")) == 4

    def test_figure_grows_with_its_legend(self):
        frame = curves().replace({name: f"{name}, a name as long as any" for name in METHODS[3:]})
        few, many = retention_curve(frame[frame["method"].isin(METHODS[:3])]), retention_curve(frame)
        assert few.layout.height == 560
        assert many.layout.height > few.layout.height


class TestCost:
    def test_every_facet_has_every_cost_on_a_right_axis_that_ends_like_the_left_one(self):
        figure = retention_curve(curves(), y_max=1.15, cost=costs())
        lines = named(figure, "cost: parameters left")
        assert [(line.xaxis, line.yaxis) for line in lines] == [("x", "y5"), ("x2", "y6"), ("x3", "y7"), ("x4", "y8")]
        for line in lines:
            assert line.x.tolist() == [0, 2, 4]
            np.testing.assert_allclose(line.y, [1, 0.94, 0.88], rtol=1e-6)
        for place in range(1, 5):
            right = figure.layout[f"yaxis{place + 4}"]
            assert (right.overlaying, right.side) == (f"y{place if place > 1 else ''}", "right")
            assert right.range == left_axes(figure, 4)[place - 1].range == (0, 1.15)

    def test_only_the_last_facet_of_a_line_has_labels_on_the_right(self):
        figure = retention_curve(curves(), cost=costs())
        right = [figure.layout[f"yaxis{place}"] for place in (5, 6, 7, 8)]
        assert [axis.showticklabels is not False for axis in right] == [False, False, True, True]
        assert [bool(axis.title.text) for axis in right] == [False, False, True, True]
        assert right[2].title.text == "cost (pruned / dense)"

    def test_costs_differ_by_dash_and_stand_in_the_legend_once(self):
        lines = [trace for trace in retention_curve(curves(), cost=costs()).data if trace.yaxis in {"y5", "y6"}]
        assert [line.showlegend for line in lines] == [True, True, False, False]
        assert len({line.line.dash for line in lines}) == 2
        assert {line.line.color for line in lines} == {style.GREY}
        assert lines[0].hovertext[1] == "parameters left<br>2 layers dropped<br>0.9400 of dense"

    def test_without_costs_there_is_no_right_axis(self):
        assert "yaxis5" not in retention_curve(curves(), bands=OUT).layout

    def test_empty_tables_draw(self):
        figure = retention_curve(curves().iloc[:0], bands=OUT, cost=costs().iloc[:0])
        assert not figure.data
