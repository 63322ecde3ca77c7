"""Figures of many masks: the numbers given, fixed axes, shapes beside colours, and nothing that was not measured."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from test_figures import HOSTILE, named, texts
from test_figures_curves import OUT, costs, curves, left_axes

from vlm_analysis.figures import style
from vlm_analysis.figures.curves import retention_curve
from vlm_analysis.figures.front import front_chart
from vlm_analysis.figures.regimes import regime_chart
from vlm_analysis.figures.tokens import token_strip


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
