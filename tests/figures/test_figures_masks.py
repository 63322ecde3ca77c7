"""Figures of many masks: the numbers given, fixed axes, shapes beside colours, and nothing that was not measured."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from test_figures import HOSTILE, texts

from vlm_analysis.figures import style
from vlm_analysis.figures.curves import retention_curve
from vlm_analysis.figures.front import front_chart
from vlm_analysis.figures.regimes import regime_chart
from vlm_analysis.figures.tokens import token_strip

METHODS = ("random", *(f"method {i}" for i in range(9)))
OUT = ("method 4", "method 7")


def curves(budgets: tuple[int, ...] = (4, 0, 2), domains: tuple[str, ...] = ("general", "math", "charts", HOSTILE)):
    lines = [(m, d, b, 1 - 0.02 * b * (i + 1)) for i, m in enumerate(METHODS) for d in domains for b in budgets]
    frame = pd.DataFrame(lines, columns=["method", "domain", "budget", "value"])
    return frame.assign(low=frame["value"] - 0.05, high=frame["value"] + 0.03)


def costs() -> pd.DataFrame:
    lines = [(b, 1 - 0.03 * b * (i + 1), t) for i, t in enumerate(("parameters left", HOSTILE)) for b in (2, 0, 4)]
    return pd.DataFrame(lines, columns=["budget", "value", "title"])


def named(figure, name: str) -> list:
    return [trace for trace in figure.data if trace.name == name]


def left_axes(figure, number: int) -> list:
    return [figure.layout[f"yaxis{place or ''}"] for place in (0, *range(2, number + 1))]


def regimes(domains: tuple[str, ...] = ("general", HOSTILE)) -> pd.DataFrame:
    lines = [
        (domain, budget, 0.05 * budget, 0.1, 0.04 * budget, 0.04 * budget - 0.02, 0.04 * budget + 0.03, regime)
        for domain in domains
        for budget, regime in ((3, "ranking-sensitive"), (1, ""), (2, "converging"), (4, "structure-dominated"))
    ]
    columns = ["domain", "budget", "spread", "noise", "gain", "gain_low", "gain_high", "regime"]
    return pd.DataFrame(lines, columns=columns)


def masks(n_methods: int = 3) -> pd.DataFrame:
    lines = [
        (1 - 0.05 * budget, 0.9 - 0.1 * budget - 0.01 * i, f"method {i}", f"mask {i} {budget}", i == 0)
        for i in range(n_methods)
        for budget in (1, 2, 3)
    ]
    return pd.DataFrame(lines, columns=["x", "y", "method", "name", "on_front"])


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


class TestRegimes:
    def test_numbers_are_drawn_in_the_order_of_budgets_on_a_fixed_axis(self):
        for factor in (1, 0.01):
            frame = regimes()
            frame[["spread", "gain"]] *= factor
            figure = regime_chart(frame)
            assert [axis.range for axis in left_axes(figure, 2)] == [(-0.25, 0.5)] * 2
            for line in named(figure, "spread between rankings"):
                assert line.x.tolist() == [1, 2, 3, 4]
                np.testing.assert_allclose(line.y, factor * 0.05 * np.arange(1, 5), rtol=1e-6)
            gain = named(figure, "gain of spaced masks")[0]
            np.testing.assert_allclose(gain.y, factor * 0.04 * np.arange(1, 5), rtol=1e-6)

    def test_noise_is_an_area_from_zero_and_gain_has_its_interval(self):
        noise, gain = (trace for trace in named(regime_chart(regimes()), "band") if trace.xaxis == "x")
        np.testing.assert_allclose(noise.y[:8], [0.1] * 4 + [0] * 4)
        np.testing.assert_allclose(gain.y[:4], 0.04 * np.arange(1, 5) + 0.03)
        np.testing.assert_allclose(gain.y[4:8], 0.04 * np.arange(4, 0, -1) - 0.02)

    def test_each_computed_budget_has_one_cell_with_its_letter_and_colour(self):
        figure = regime_chart(regimes())
        cells = [trace for trace in figure.data if trace.type == "bar" and trace.xaxis == "x"]
        assert {(cell.name, *cell.x) for cell in cells} == {
            ("R ranking-sensitive", 3),
            ("C converging", 2),
            ("S structure-dominated", 4),
        }
        assert len({cell.marker.color for cell in cells}) == 3
        letters = [trace for trace in named(figure, "letters") if trace.xaxis == "x"]
        assert {(text, x) for trace in letters for text, x in zip(trace.text, trace.x, strict=True)} == {
            ("R", 3),
            ("C", 2),
            ("S", 4),
        }
        assert all(trace.textfont.color is None for trace in letters)

    @pytest.mark.parametrize("budgets", [(1,), (1, 2, 3, 4), (4, 8, 16, 24), (2, 40)])
    def test_cells_neither_overlap_nor_leave_the_plot(self, budgets):
        frame = pd.concat([regimes(("general",)).iloc[:1].assign(budget=budget) for budget in budgets])
        figure = regime_chart(frame)
        (cell,) = (trace for trace in figure.data if trace.type == "bar")
        assert cell.width < np.diff(budgets).min(initial=100)
        low, high = figure.layout.xaxis.range
        assert low < budgets[0] - cell.width / 2 < budgets[-1] + cell.width / 2 < high

    def test_cells_lie_above_the_lines(self):
        figure = regime_chart(regimes())
        (cell, *_) = (trace for trace in figure.data if trace.type == "bar")
        strip = figure.layout[f"yaxis{cell.yaxis[1:]}"]
        assert strip.range == (0, 1)
        assert strip.domain[0] == figure.layout.yaxis.domain[1] < strip.domain[1]

    def test_values_beyond_the_axis_are_triangles_at_its_ends_with_the_number(self):
        frame = regimes(("general",))
        frame.loc[frame["budget"] == 2, "spread"] = 0.7654
        frame.loc[frame["budget"] == 3, "gain"] = -0.4321
        spread, gain = sorted(named(regime_chart(frame), "beyond"), key=lambda trace: trace.x[0])
        assert (spread.x.tolist(), spread.y.tolist(), list(spread.marker.symbol)) == ([2], [0.5], ["triangle-up"])
        assert (gain.x.tolist(), gain.y.tolist(), list(gain.marker.symbol)) == ([3], [-0.25], ["triangle-down"])
        assert "0.7654" in spread.hovertext[0]
        assert "-0.4321" in gain.hovertext[0]

    def test_what_was_not_measured_is_a_gap_and_says_so(self):
        frame = regimes(("general",))
        frame.loc[frame["budget"] == 2, ["spread", "noise", "gain", "gain_low", "gain_high"]] = np.nan
        figure = regime_chart(frame)
        line = named(figure, "spread between rankings")[0]
        assert np.isnan(line.y).tolist() == [False, True, False, False]
        assert line.hovertext[1].count("not measured") == 5
        assert all(None in band.x[:-1] for band in named(figure, "band"))
        assert not named(figure, "beyond")

    def test_unknown_regime_is_refused(self):
        with pytest.raises(ValueError, match="got \\['R'\\]"):
            regime_chart(regimes().assign(regime="R"))

    def test_empty_table_draws(self):
        assert not regime_chart(regimes().iloc[:0]).data


class TestFront:
    def test_a_click_leads_to_the_row_of_each_mask(self):
        frame = masks()
        frame.loc[1, "y"] = 1.4
        frame.loc[2, "x"] = np.nan
        seen = {}
        for trace in front_chart(frame).data:
            if trace.customdata is not None:
                seen |= dict(zip(trace.customdata, trace.hovertext, strict=True))
        assert set(seen) == set(range(9)) - {2}
        assert all(frame["name"][row] in text for row, text in seen.items())

    def test_the_front_is_large_and_joined_by_steps_and_the_rest_small_and_translucent(self):
        figure = front_chart(masks())
        (steps,) = named(figure, "front")
        assert steps.line.shape == "hv"
        np.testing.assert_allclose(steps.x, [0.85, 0.9, 0.95])
        np.testing.assert_allclose(steps.y, [0.6, 0.7, 0.8])
        large, small = named(figure, "method 0")[0], named(figure, "method 1")[0]
        assert large.marker.size > small.marker.size
        assert large.marker.opacity == 1 > small.marker.opacity
        assert "on the front" in large.hovertext[0]
        assert "on the front" not in small.hovertext[0]
        assert "parameters left 95.0%<br>retention 0.8000" in large.hovertext[0]

    def test_axes_are_fixed_and_widen_only_where_a_mask_leaves_less(self):
        frame = masks()
        assert front_chart(frame).layout.yaxis.range == (0, 1.15)
        for x, left in ((0.5, 0.4), (0.33, 0.3), (0.05, 0)):
            frame.loc[0, "x"] = x
            high, low = front_chart(frame).layout.xaxis.range
            assert left - 0.05 < low < left < 1 < high < 1.05

    def test_points_of_the_front_are_labelled_and_the_axis_tells_what_is_saved(self):
        frame = masks().assign(label=list("abcdefghi"))
        (labels,), axis = named(front_chart(frame), "labels"), front_chart(frame, of="time").layout.xaxis
        assert set(labels.text) == set(frame["label"][frame["on_front"]])
        assert (axis.title.text, axis.ticktext[axis.tickvals.index(0.8)]) == ("time saved", "20%")

    def test_a_value_above_the_axis_is_a_triangle_at_its_edge(self):
        frame = masks()
        frame.loc[0, "y"] = 1.3
        figure = front_chart(frame)
        (beyond,) = named(figure, "beyond")
        assert (beyond.x.tolist(), beyond.y.tolist(), list(beyond.customdata)) == ([0.95], [1.15], [0])
        assert "1.3000" in beyond.hovertext[0]
        assert max(named(figure, "front")[0].y) == 1.15

    def test_every_method_stands_in_the_legend_once_and_opaque_wherever_its_masks_lie(self):
        frame = masks(12).replace({"method 1": "random"}).assign(on_front=lambda f: f.index == 0)
        frame.loc[0, "y"] = 1.3
        frame.loc[frame["method"] == "method 2", "y"] = 1.4
        entries = [trace for trace in front_chart(frame).data if trace.showlegend is not False]
        names = [trace.name for trace in entries]
        assert [name for name in names if name[:6] == "method"][:3] == ["method 0", "method 2", "method 3"]
        assert sorted(names) == sorted(
            ["random", "4 other methods", "dense", "front", *(f"method {i}" for i in (0, 2, 3, 4, 5, 6, 7))]
        )
        assert {trace.marker.opacity for trace in entries} == {None}

    def test_grey_masks_lie_behind_coloured_ones(self):
        frame = masks(12).replace({"method 1": "random"})
        figure = front_chart(frame.assign(on_front=frame["method"].isin(["random", "method 11", "method 4"])))
        for size in (6, 11):
            clouds = [trace for trace in figure.data if trace.marker.size == size and trace.showlegend is False]
            grey = [trace.marker.color == style.GREY for trace in clouds]
            assert grey == sorted(grey, reverse=True)
            assert True in grey
            assert False in grey

    def test_seven_methods_differ_by_symbol_and_further_ones_share_a_grey_circle(self):
        figure = front_chart(masks(10))
        looks = [named(figure, f"method {i}")[0].marker for i in range(7)]
        assert len({look.symbol for look in looks}) == 7
        grey = named(figure, "3 other methods")
        assert {(trace.marker.color, trace.marker.symbol) for trace in grey} == {(style.GREY, "circle")}
        assert [(len(trace.x), trace.showlegend) for trace in grey] == [(9, False), (1, None)]

    def test_random_masks_are_grey_and_take_no_colour(self):
        figure = front_chart(masks(9).replace({"method 0": "random"}))
        looks = {trace.legendgroup: trace.marker for trace in figure.data if trace.mode == "markers"}
        random = looks.pop("random")
        assert random.color == style.GREY
        assert random.symbol not in {look.symbol for look in looks.values()}
        assert named(figure, "method 8")[0].marker.color == style.GREY
        assert named(figure, "method 7")[0].marker.color != style.GREY

    def test_methods_of_the_front_come_first_wherever_they_stand(self):
        frame = masks(12).assign(on_front=lambda f: f["method"] == "method 11")
        assert named(front_chart(frame), "method 11")[0].marker.color == style.CATEGORIES[0]

    def test_methods_brought_out_in_the_curves_have_the_same_colours_here(self):
        frame = curves()
        bands = [method for method in dict.fromkeys(frame["method"]) if method != "random"][1:3]
        lines = {trace.name: trace.line.color for trace in retention_curve(frame, bands=bands).data}
        drawn = masks(4).replace({"method 3": bands[1]})  # the first of them chooses no mask that is drawn
        (found, entry) = named(front_chart(drawn, first=bands), bands[1])
        assert found.marker.color == entry.marker.color == lines[bands[1]] == style.CATEGORIES[1]

    def test_no_mask_and_one_mask_draw(self):
        assert [trace.name for trace in front_chart(masks().iloc[:0]).data] == ["dense", "front"]
        assert [trace.name for trace in front_chart(masks().iloc[:1]).data] == [
            "dense",
            "front",
            "method 0",
            "method 0",
        ]


def hostile_masks() -> pd.DataFrame:
    frame = masks(8).assign(name=HOSTILE)
    return frame.assign(method=frame["method"] + HOSTILE)


EVERY_FIGURE = {
    "bands": lambda: retention_curve(curves().replace(OUT[0], HOSTILE), bands=(HOSTILE,), cost=costs()),
    "regimes": lambda: regime_chart(regimes()),
    "front": lambda: front_chart(hostile_masks()),
    "tokens": lambda: token_strip([HOSTILE], np.ones(1), np.ones(1, bool)),
}


@pytest.mark.parametrize("name", EVERY_FIGURE)
def test_hostile_names_are_text_in_every_figure(name):
    found = texts(json.loads(EVERY_FIGURE[name]().to_json()))
    assert any("&lt;a" in text for text in found)
    assert not [text for text in found if "<a" in text or "<script" in text or "$" in text]


@pytest.mark.parametrize("name", EVERY_FIGURE)
def test_every_figure_leaves_background_and_font_colour_to_its_host(name):
    figure = EVERY_FIGURE[name]()
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert figure.layout.font.color is None
    assert figure.layout.title.text is None
    assert figure.layout.dragmode is False
