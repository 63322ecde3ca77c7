"""Figures show the numbers they were given, on fixed scales, and nothing that was not measured."""

from __future__ import annotations

import base64
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from vlm_analysis import Locks, PruneMask
from vlm_analysis.errors import MaskError
from vlm_analysis.figures import style
from vlm_analysis.figures.curves import retention_curve
from vlm_analysis.figures.heatmaps import difference_heatmap, edit_strips, similarity_heatmap, task_heatmap
from vlm_analysis.figures.memory import memory_bar
from vlm_analysis.figures.outcomes import damage_bars
from vlm_analysis.figures.profiles import layer_profile, score_bars

HOSTILE = '<a href="http://evil.example">x</a></script><script>alert(1)</script> $x$'


@pytest.fixture
def values() -> np.ndarray:
    matrix = np.random.default_rng(0).random((3, 16))
    matrix[1, 5] = np.nan
    return matrix


ROWS = ("general", "math", HOSTILE)


def trace(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def decoded(array: dict) -> np.ndarray:
    """A typed array as the browser reads it from the figure's JSON."""
    flat = np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"])
    return flat.reshape([int(size) for size in array["shape"].split(",")])


def test_heatmap_sends_the_nines_of_each_cosine_as_float32(values):
    sent = json.loads(similarity_heatmap(values, ROWS).to_json())["data"][0]["z"]
    assert sent["dtype"] == "f4"
    np.testing.assert_allclose(decoded(sent), np.log10(1 / (1 - values)), rtol=1e-6)


def test_heatmap_scale_does_not_depend_on_the_values(values):
    for matrix in (values, values * 0.1, values * 0):
        cells = similarity_heatmap(matrix, ROWS).data[0]
        assert (cells.zmin, cells.zmax) == (0, 3)


def test_heatmap_scale_names_the_cosines_it_stands_for(values):
    bar = similarity_heatmap(values, ROWS).data[0].colorbar
    for place, cosine in zip(bar.tickvals, bar.ticktext, strict=True):
        assert place == pytest.approx(-np.log10(1 - float(cosine)))


def test_heatmap_draws_a_cosine_of_one_and_below_zero_at_the_ends_of_the_scale():
    cells = similarity_heatmap(np.array([[1.0, -1.0]]), ("a",)).data[0]
    assert cells.z[0, 0] >= 3
    assert cells.z[0, 1] <= 0


def test_missing_cell_stays_missing_and_says_so(values):
    figure = similarity_heatmap(values, ROWS)
    assert np.isnan(figure.data[0].z[1, 5])
    assert "no tokens" in figure.data[0].hovertext[1][5]
    grey = trace(figure, "no tokens")
    assert np.argwhere(np.isfinite(grey.z)).tolist() == [[1, 5]]
    strokes = trace(figure, "hatching")
    x, y = strokes.x[np.isfinite(strokes.x)], strokes.y[np.isfinite(strokes.y)]
    assert (np.abs(x - 5) <= 0.5).all()
    assert (np.abs(y - 1) <= 0.5).all()


def test_heatmap_without_gaps_has_no_grey_cells(values):
    figure = similarity_heatmap(np.nan_to_num(values), ROWS)
    assert [trace.name for trace in figure.data] == ["values"]


def test_hover_tells_layer_row_value_and_reason(values):
    figure = similarity_heatmap(values, ROWS, dropped=[7], locks=Locks(16, {0: "first layer"}, {7: "KV store"}))
    hover = figure.data[0].hovertext
    assert hover[0][0] == f"layer 0<br>general<br>cosine similarity {values[0, 0]:.4f}<br>protected: first layer"
    assert hover[0][7].endswith("<br>dropped<br>locked: KV store")


def test_dropped_layers_are_outlined_where_they_are(values):
    figure = similarity_heatmap(values, ROWS, dropped=[11, 2])
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(1.5, 2.5), (10.5, 11.5)]
    assert {(shape.y0, shape.y1) for shape in figure.layout.shapes} == {(-0.5, 2.5)}
    assert tuple(trace(figure, "dropped").x) == (2, 11)


def test_marks_lie_outside_of_the_cells_and_inside_of_the_axis(values):
    figure = similarity_heatmap(values, ROWS, dropped=[2], locks=Locks(values.shape[1], {0: "first"}, {4: "store"}))
    bottom, top = figure.layout.yaxis.range
    assert top < trace(figure, "dropped").y[0] < -0.5
    marks = trace(figure, "locks")
    assert (tuple(marks.x), tuple(marks.text)) == ((0, 4), ("P", "L"))
    assert 2.5 < marks.y[0] < bottom


def test_every_layer_is_labelled_up_to_40_and_fewer_beyond():
    steps = {
        n_layers: similarity_heatmap(np.zeros((1, n_layers)), ["a"]).layout.xaxis.dtick
        for n_layers in (1, 16, 40, 64, 126)
    }
    assert steps == {1: 1, 16: 1, 40: 1, 64: 2, 126: 5}


def test_heatmap_grows_with_its_rows():
    heights = [similarity_heatmap(np.zeros((n, 4)), ["row"] * n).layout.height for n in (4, 8, 16)]
    assert heights[1] - heights[0] == 4 * 28
    assert heights[2] - heights[1] == 8 * 28


def test_layer_of_another_model_is_refused(values):
    with pytest.raises(MaskError, match=r"expected layers from 0 to 15, got \[16\]"):
        similarity_heatmap(values, ROWS, dropped=[16])


def test_values_that_do_not_fit_the_rows_are_refused(values):
    with pytest.raises(ValueError, match="expected 2 rows"):
        similarity_heatmap(values, ROWS[:2])


def test_difference_scale_is_symmetric_and_rounded_up(values):
    signed = (values - 0.5) * np.array([[0.1], [0.2], [0.3]])
    cells = difference_heatmap(signed, ROWS).data[0]
    assert np.nanmax(np.abs(signed)) == pytest.approx(0.130, abs=0.001)
    assert (cells.zmin, cells.zmax) == (-0.2, 0.2)
    np.testing.assert_array_equal(cells.z, signed.astype(np.float32))
    cells = difference_heatmap(signed, ROWS, limit=0.5).data[0]
    assert (cells.zmin, cells.zmax) == (-0.5, 0.5)


def test_difference_without_a_single_value_still_draws():
    cells = difference_heatmap(np.full((1, 4), np.nan), ["a"]).data[0]
    assert (cells.zmin, cells.zmax) == (-0.01, 0.01)


def test_edit_strips_mark_dropped_layers_without_colour_too():
    figure = edit_strips([("by hand", PruneMask(5, [1, 3])), ("empty", PruneMask(5))], 5, locks=Locks(5, {0: "first"}))
    strips = figure.data[0]
    assert strips.z.tolist() == [[0, 1, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert [list(line) for line in strips.text] == [["", "×", "", "×", ""], [""] * 5]
    assert tuple(figure.layout.yaxis.ticktext) == ("by hand<br>2 dropped", "empty<br>0 dropped")


@pytest.mark.parametrize(("n_layers", "step"), [(12, 1), (16, 2), (28, 5), (80, 10)])
def test_strips_have_room_for_numbers_on_a_phone(n_layers: int, step: int):
    figure = edit_strips([("depth", PruneMask(n_layers, [1]))], n_layers)
    assert figure.layout.xaxis.dtick == step


def test_long_mask_name_keeps_its_count():
    figure = edit_strips([("a name longer than any label has room for", PruneMask(5, [1]))], 5)
    assert figure.layout.yaxis.ticktext[0].endswith("…<br>1 dropped")


def test_profile_draws_each_series_with_its_band(values):
    figure = layer_profile(
        {"general": values[0], "math": values[1]}, spread={"general": np.full(16, 0.1)}, y_title="cosine similarity"
    )
    band, general, math = figure.data
    np.testing.assert_array_equal(general.y, values[0].astype(np.float32))
    assert np.isnan(math.y[5])
    np.testing.assert_allclose(band.y[:16], values[0] + 0.1)
    np.testing.assert_allclose(band.y[16:32], (values[0] - 0.1)[::-1])
    low, high = figure.layout.yaxis.range
    assert low < 0 < 1 < high < 1.05


def test_band_has_a_gap_where_a_value_is_missing():
    low = np.array([0.0, 0.1, np.nan, 0.3])
    assert style.band(np.arange(4), low, low + 1, "red").x == (0, 1, 1, 0, None, 3, 3, None)


def curves() -> pd.DataFrame:
    lines = [
        (method, domain, budget, 1 - 0.1 * budget * slope)
        for slope, method in ((1, "similarity"), (2, "random"))
        for domain in ("general", HOSTILE)
        for budget in (4, 0, 2)
    ]
    frame = pd.DataFrame(lines, columns=["method", "domain", "budget", "value"])
    return frame.assign(low=frame["value"] - 0.05, high=frame["value"] + 0.03)


def test_retention_has_a_facet_per_domain_on_the_same_fixed_axis():
    figure = retention_curve(curves())
    assert figure.layout.yaxis.range == figure.layout.yaxis2.range == (0, 1.05)
    lines = [trace for trace in figure.data if trace.name == "similarity"]
    assert [line.xaxis for line in lines] == ["x", "x2"]
    for line in lines:
        assert line.x.tolist() == [0, 2, 4]
        np.testing.assert_allclose(line.y, [1.0, 0.8, 0.6], rtol=1e-6)
        np.testing.assert_allclose(line.error_y.array, 0.03, rtol=1e-5)
        np.testing.assert_allclose(line.error_y.arrayminus, 0.05, rtol=1e-5)
    assert [line.showlegend for line in lines] == [True, False]


def test_random_masks_are_a_grey_band_behind_the_methods():
    figure = retention_curve(curves())
    names = [trace.name for trace in figure.data if trace.xaxis == "x"]
    assert names == ["band", "random", "dense", "similarity"]
    np.testing.assert_allclose(figure.data[0].y[:3], [1.03, 0.63, 0.23])
    np.testing.assert_allclose(figure.data[0].y[3:6], [0.15, 0.55, 0.95])
    dense = trace(figure, "dense")
    assert tuple(dense.y) == (1, 1)


def test_value_above_the_axis_is_marked_at_its_edge():
    frame = curves().drop(columns=["low", "high"])
    frame.loc[(frame["method"] == "similarity") & (frame["budget"] == 2), "value"] = 1.3
    figure = retention_curve(frame)
    beyond = trace(figure, "beyond")
    assert (beyond.x.tolist(), list(beyond.y)) == ([2], [1.05])
    assert "1.3000" in beyond.hovertext[0]


def test_eight_domains_and_an_empty_table_draw():
    frame = pd.concat([curves().assign(domain=f"domain {i}") for i in range(8)])
    assert len(retention_curve(frame).layout.annotations) == 8
    assert not [trace for trace in retention_curve(curves().iloc[:0]).data if trace.name == "similarity"]


def test_damage_bars_draw_the_chosen_metric_only():
    lines = [("general", "exact_match", 0.9, 0.5), ("math", "exact_match", 0.8, np.nan), ("math", "answer_nll", 3, 4)]
    figure = damage_bars(pd.DataFrame(lines, columns=["domain", "metric", "dense", "pruned"]))
    np.testing.assert_allclose(trace(figure, "dense").x, [0.9, 0.8], rtol=1e-6)
    np.testing.assert_allclose(trace(figure, "pruned").x, [0.5, np.nan], rtol=1e-6)
    assert tuple(trace(figure, "pruned").text) == ("0.50", "")
    assert figure.data[-1].text == ("not measured",)
    assert figure.layout.xaxis.range == (0, 1.1)


def test_score_bars_tell_dropped_layers_apart_by_hatching_too():
    scores = np.array([0.9, 0.2, np.nan, 0.4])
    order = [1, 3, 0, 2]
    figure = score_bars(scores, np.full(4, 0.05), order, [1], Locks(4, {0: "first layer"}))
    kept, dropped = trace(figure, "kept"), trace(figure, "dropped")
    assert (list(kept.x), list(dropped.x)) == ([0, 2, 3], [1])
    np.testing.assert_array_equal(kept.y, scores[[0, 2, 3]].astype(np.float32))
    np.testing.assert_allclose(dropped.error_y.array, [0.05])
    assert kept.marker.color != dropped.marker.color
    assert (kept.marker.pattern.shape, dropped.marker.pattern.shape) == (None, "/")
    assert "number 1 of 4 in drop order" in dropped.hovertext[0]
    assert tuple(trace(figure, "no tokens").x) == (2,)
    assert tuple(trace(figure, "locks").text) == ("P",)


MATRIX = np.full((1, 4), 0.5)
BROKEN = pd.DataFrame([(HOSTILE, "exact_match", 1.0, 0.5)], columns=["domain", "metric", "dense", "pruned"])
REASONS = {0: HOSTILE}
EVERY_FIGURE = {
    "similarity": lambda: similarity_heatmap(MATRIX, [HOSTILE], locks=Locks(4, REASONS)),
    "difference": lambda: difference_heatmap(MATRIX, [HOSTILE]),
    "strips": lambda: edit_strips([(HOSTILE, PruneMask(4, [1]))], 4, locks=Locks(4, locked=REASONS)),
    "profile": lambda: layer_profile({HOSTILE: MATRIX[0]}, y_title="cosine similarity"),
    "retention": lambda: retention_curve(curves().assign(method=HOSTILE)),
    "damage": lambda: damage_bars(BROKEN),
    "scores": lambda: score_bars(MATRIX[0], None, [0, 1, 2, 3], [], Locks(4, REASONS)),
}


def named(figure, name: str) -> list:
    return [trace for trace in figure.data if trace.name == name]


def texts(part: object, key: str = "") -> list[str]:
    """Every string of a figure that Plotly would read as markup."""
    if isinstance(part, dict):
        return [text for name, value in part.items() if name != "legendgroup" for text in texts(value, name)]
    if isinstance(part, list):
        return [text for value in part for text in texts(value, key)]
    return [part] if isinstance(part, str) and key != "bdata" else []


@pytest.mark.parametrize("name", EVERY_FIGURE)
def test_hostile_names_are_text_in_every_figure(name):
    found = texts(json.loads(EVERY_FIGURE[name]().to_json()))
    assert any("&lt;a href" in text for text in found)
    assert not [text for text in found if "<a" in text or "<script" in text or "$" in text]


@pytest.mark.parametrize("name", EVERY_FIGURE)
def test_every_figure_leaves_background_and_font_colour_to_its_host(name):
    figure = EVERY_FIGURE[name]()
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert figure.layout.font.color is None
    assert figure.layout.template.layout.font.color is None
    assert figure.layout.title.text is None
    assert figure.layout.dragmode is False


def test_label_is_one_short_line_without_direction_tricks():
    assert style.label("a\nb\u202ec\x00") == "a b c"
    assert style.label("x" * 50, 10) == "x" * 9 + "…"


def test_figures_need_neither_torch_nor_streamlit():
    code = (
        "import sys, vlm_analysis.figures, vlm_analysis.export.report; print({'torch', 'streamlit'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_memory_bar_adds_its_parts_up_to_what_is_needed_and_marks_what_is_free():
    parts = {"vision tower": 2**30, "head": 0, "decoder layers": 6 * 2**30}
    figure = memory_bar(parts, 2**29, 10 * 2**30)
    assert [(bar.name, bar.x[0]) for bar in figure.data] == [
        ("vision tower", 1),
        ("decoder layers", 6),
        ("margin", 0.5),
    ]
    assert figure.layout.shapes[0].x0 == figure.layout.annotations[-1].x == 10
    assert figure.layout.annotations[-1].text == "free: 10.0 GiB"
    assert figure.layout.xaxis.range[1] > 10
    assert len({bar.marker.pattern.shape for bar in figure.data}) == 3


@pytest.mark.parametrize(("needed", "free", "drawn"), [(10, 4, True), (10, 29, True), (10, 31, False), (0, 0, True)])
def test_memory_bar_is_never_squeezed_by_a_large_machine(needed, free, drawn):
    figure = memory_bar({"decoder layers": needed * 2**20}, 0, free * 2**20)
    assert len(figure.layout.shapes) == drawn
    assert figure.layout.annotations[-1].text.endswith("→") != drawn
    assert figure.layout.xaxis.range[1] >= needed


def test_rows_of_tasks_are_parted_by_domain_and_named_by_both() -> None:
    tasks = [("charts", "read"), ("charts", ""), ("maps", "read")]
    figure = task_heatmap(np.full((3, 4), 0.9), tasks, locks=Locks(4, {0: "first"}))
    assert list(figure.layout.yaxis.ticktext) == ["<b>charts</b> read", "no task", "<b>maps</b> read"]
    assert [shape.y0 for shape in figure.layout.shapes] == [1.5]
    assert "charts: no task" in figure.data[0].hovertext[1][2]
    with pytest.raises(ValueError, match="similarity heatmap"):
        task_heatmap(np.zeros((2, 4)), tasks)
