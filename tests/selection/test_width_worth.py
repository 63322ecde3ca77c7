"""What units are worth by rank, and which of them go, against loops over units in float64."""

from __future__ import annotations

import numpy as np
import pytest

from vlm_analysis import WidthScores, make_narrow
from vlm_analysis.figures.widths import width_heatmap
from vlm_analysis.model_info import LayerWidth, ModelInfo
from vlm_analysis.selection.width.options import WidthOptions, values_of
from vlm_analysis.selection.width.worth import MOST_ROWS, worth_of

N_LAYERS, NEURONS, GROUPS = 5, 24, 2


@pytest.fixture(scope="module")
def scores() -> WidthScores:
    draw = np.random.default_rng(3)
    width = LayerWidth(neurons=NEURONS, kv_groups=GROUPS, neuron_parameters=30, group_parameters=200)
    locked = LayerWidth(0, GROUPS, 0, 200, mlp_locked="routed experts")
    model = ModelInfo("m", "f" * 32, N_LAYERS, layer_parameters=(1500,) * N_LAYERS, widths=(*[width] * 4, locked))
    neurons = tuple(draw.random((4, NEURONS if layer < 4 else 0)) for layer in range(N_LAYERS))
    groups = tuple(draw.random((4, GROUPS)) for _ in range(N_LAYERS))
    return WidthScores(model, "p" * 32, neurons, groups, draw.random(N_LAYERS), draw.random(N_LAYERS))


def test_rows_are_equal_parts_by_rank_and_tell_what_goes(scores: WidthScores) -> None:
    edit = make_narrow(scores, 0.3)
    worth = worth_of(scores, edit, 0.3)
    values = values_of(scores, 0.3, WidthOptions())
    total = sum(float(one.sum()) for parts in values.values() for one in parts)
    mean = total / (4 * NEURONS * 30 + N_LAYERS * GROUPS * 200)
    kept = dict(edit.changes[0].neurons)
    for layer in range(4):
        ranked = sorted(range(NEURONS), key=lambda unit, layer=layer: float(values["neurons"][layer][unit]))
        for row in range(MOST_ROWS):
            part = ranked[3 * row : 3 * row + 3]
            mine = sum(float(values["neurons"][layer][unit]) for unit in part) / 3 / 30 / mean
            assert worth.values[row, layer] == pytest.approx(mine)
            gone = [unit for unit in part if layer in kept and unit not in kept[layer]]
            assert worth.gone[row, layer] == pytest.approx(len(gone) / 3)
    assert np.isnan(worth.values[:MOST_ROWS, 4]).all()
    assert worth.rows[0] == "MLP neurons: least"
    assert worth.rows[MOST_ROWS:] == ("attention groups: least", "attention groups: most")
    assert worth.gone.sum() > 0


def test_the_heatmap_keeps_its_scale_and_crosses_what_goes() -> None:
    values = np.array([[0.001, 1.0], [5.0, np.nan]])
    figure = width_heatmap(values, np.array([[1.0, 0.4], [0.0, 0.0]]), ["least", "most"])
    cells = next(trace for trace in figure.data if trace.name == "values")
    assert (cells.zmin, cells.zmax) == (-2, 1)
    marks = {
        trace.name: [(int(x), int(y)) for x, y in zip(trace.x, trace.y, strict=True)]
        for trace in figure.data
        if trace.type == "scatter" and trace.mode == "text"
    }
    assert marks == {"all go": [(0, 0)], "some go": [(1, 0)]}
    assert cells.hovertext[1][1] == "layer 1<br>most<br>cannot be cut"
    assert "100% of them go" in cells.hovertext[0][0]
