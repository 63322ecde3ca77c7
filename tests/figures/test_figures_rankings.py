"""Figures of rankings: the numbers given, fixed scales, shapes beside colours, text that does nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from rankings import full_recording, left_out

from vlm_analysis import Locks
from vlm_analysis.errors import MaskError
from vlm_analysis.figures.rankings import agreement_heatmap, damage_scatter, rank_intervals
from vlm_analysis.selection.certainty.against import cosine_against_damage
from vlm_analysis.selection.certainty.agreement import agreement, criteria_items
from vlm_analysis.selection.certainty.ranks import rank_stability

HOSTILE = '<a href="http://evil.example">x</a></script><script>alert(1)</script> $x$'
LIMITS = {"epsilon": 0.5, "eta": 0.5, "tau": 0.5}


def square(names: list[str], values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, index=names, columns=names)


class TestAgreement:
    def test_the_scale_is_fixed_and_each_cell_tells_its_number(self) -> None:
        cells = agreement_heatmap(square(["a", "b"], np.array([[1, -0.251], [-0.251, 1]]))).data[0]
        assert (cells.zmin, cells.zmax) == (-1, 1)
        assert [list(row) for row in cells.text] == [["1.00", "-0.25"], ["-0.25", "1.00"]]
        assert "-0.251" in cells.hovertext[0][1]

    def test_many_rankings_leave_out_the_zero_before_the_point_but_never_a_number(self) -> None:
        values = np.array([1, -1, 0, -0.001, 0.5, -0.25, 0.999, 0.05, 1, 1])
        cells = agreement_heatmap(square(list("abcdefghij"), np.tile(values, (10, 1)))).data[0]
        assert list(cells.text[0]) == ["1", "-1", "0", "0", ".50", "-.25", "1", ".05", "1", "1"]

    def test_what_is_not_defined_is_hatched_and_text_is_harmless(self) -> None:
        figure = agreement_heatmap(square([HOSTILE, "b"], np.array([[1, np.nan], [np.nan, 1]])))
        assert figure.data[0].text[0][1] == ""
        assert "not defined" in figure.data[0].hovertext[0][1]
        assert figure.data[1].name == "hatching"
        assert "<script" not in figure.to_json()
        assert "<a href" not in figure.to_json()

    def test_all_criteria_of_a_recording_are_drawn(self) -> None:
        recording = full_recording()
        frame = agreement(recording, criteria_items(recording, damage=left_out()))
        assert np.array(agreement_heatmap(frame).data[0].z).shape == (18, 18)

    def test_what_is_not_square_is_refused(self) -> None:
        with pytest.raises(ValueError, match="square"):
            agreement_heatmap(pd.DataFrame(np.ones((2, 3))))


class TestIntervals:
    def test_each_competing_layer_stands_at_its_place_with_its_interval(self) -> None:
        sure = rank_stability(full_recording(), "block-influence", protected={0, 8})
        low, high = sure.interval()
        unsure = {sure.order[1], sure.order[2]}
        figure = rank_intervals(low, high, sure.order, 2, unsure=unsure, locks=Locks(9, {0: HOSTILE, 8: "last"}))
        settled, open_ones = figure.data[:2]
        assert sorted([*settled.x, *open_ones.x]) == sorted(sure.order)
        assert set(open_ones.x) == unsure
        assert settled.marker.symbol != open_ones.marker.symbol
        assert settled.marker.color != open_ones.marker.color
        for trace in (settled, open_ones):
            np.testing.assert_allclose(trace.y, [sure.order.index(layer) + 1 for layer in trace.x])
            np.testing.assert_allclose(
                trace.y + trace.error_y.array, np.maximum(high[list(trace.x)] + 1, trace.y), atol=1e-9
            )
        (line,) = figure.layout.shapes
        assert line.y0 == 2.5
        assert "<a href" not in figure.to_json()

    @pytest.mark.parametrize("number", [1, 2, 3, 40, 200])
    def test_models_of_any_depth_are_drawn(self, number: int) -> None:
        ranks = np.arange(number, dtype=float)
        figure = rank_intervals(ranks, ranks, range(number), 1)
        assert figure.layout.height <= 560
        assert len(figure.layout.yaxis.tickvals) <= 13

    def test_a_layer_outside_of_the_model_is_refused(self) -> None:
        with pytest.raises(MaskError):
            rank_intervals(np.zeros(2), np.zeros(2), (0, 2), 1)


class TestScatter:
    def frame(self) -> pd.DataFrame:
        return cosine_against_damage(full_recording(), left_out())

    def test_every_layer_is_a_point_with_its_number_and_outliers_are_named_and_shaped(self) -> None:
        frame = self.frame()
        figure = damage_scatter(frame)
        texts = [text for trace in figure.data for text in trace.text]
        assert len(texts) == 9
        for row in frame[frame["outlier"]].itertuples():
            assert f"<b>layer {row.layer}</b>" in texts
        assert len({trace.marker.symbol for trace in figure.data}) == len(figure.data) > 1
        assert len({trace.marker.color for trace in figure.data}) == len(figure.data)

    def test_axes_are_logarithmic_only_where_numbers_are_positive_and_far_apart(self) -> None:
        frame = self.frame()
        frame["damage_kl"] = np.geomspace(1e-6, 10, 9)
        figure = damage_scatter(frame)
        assert figure.layout.yaxis.type == "log"
        assert figure.layout.xaxis.type is None
        frame.loc[0, "damage_kl"] = -1e-6
        assert damage_scatter(frame).layout.yaxis.type is None

    def test_layers_without_a_number_are_left_out(self) -> None:
        frame = self.frame()
        frame.loc[3, "damage_kl"] = np.nan
        assert sum(len(trace.x) for trace in damage_scatter(frame).data) == 8
        frame["damage_kl"] = np.nan
        assert not damage_scatter(frame).data
