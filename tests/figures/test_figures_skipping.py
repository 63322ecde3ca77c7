"""Figures of vision tokens that skip layers: the numbers given, thresholds, bands, and the damage on the same layers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from rankings import full_recording

from vlm_analysis import Locks
from vlm_analysis.figures.probed import probe_curves
from vlm_analysis.figures.recorded import token_heatmap
from vlm_analysis.figures.skipping import LEAST_KL, mark_skipped, skip_curves
from vlm_analysis.selection.criteria.bands import skip_bands

HOSTILE = '<a href="http://evil.example">x</a></script><script>alert(1)</script> $x$'
ENDS = (("", 0.0), ("_low", -0.1), ("_high", 0.1))
LIMITS = {"epsilon": 0.5, "eta": 0.5, "tau": 0.5}


def test_each_curve_has_its_threshold_and_fills_what_lies_below() -> None:
    bands = skip_bands(full_recording(), delta=0.05, **LIMITS)
    figure = skip_curves(bands, **LIMITS, locks=Locks(len(bands.geometric), {0: HOSTILE}))
    curves = [trace for trace in figure.data if trace.name == "vision tokens"]
    np.testing.assert_array_equal(curves[0].y, bands.geometric)
    assert [not symbol.endswith("open") for symbol in curves[1].marker.symbol] == bands.proximal_low.tolist()
    assert [trace.y[0] for trace in figure.data if trace.name.startswith("threshold")] == [0.5, 0.5, 0.5]
    assert "<a href" not in figure.to_json()


def test_without_attention_maps_there_are_two_curves() -> None:
    bands = skip_bands(full_recording(attention=False), delta=0.05, **LIMITS)
    assert len(skip_curves(bands, **LIMITS).data) == 4


def test_bands_are_framed_and_named_and_other_selected_layers_shaded() -> None:
    recording = full_recording()
    recording.rows["visual_attention"] = [0.1, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.1, 0.1]
    bands = skip_bands(recording, epsilon=2, delta=0.05, eta=1, tau=0.5)
    assert (bands.late_entry, bands.early_exit) == ((0,), (7, 8))
    figure = skip_curves(bands, epsilon=2, eta=1, tau=0.5)
    boxes = {(box.x0, box.x1): box.line.width for box in figure.layout.shapes}
    assert boxes == {(-0.5, 0.5): 1.5, (6.5, 8.5): 1.5, (1.5, 2.5): 0}
    assert [note.text for note in figure.layout.annotations] == ["late entry", "early exit"]


def test_text_stands_beside_and_damage_below_on_the_same_layers() -> None:
    bands = skip_bands(full_recording(), delta=0.05, **LIMITS)
    harm = np.array([np.nan, 0.0, 1e-9, 0.5, 1, 1, 1, 1, 2])
    figure = skip_curves(bands, **LIMITS, text={"geometric": np.full(9, 0.25)}, damage={"frozen": harm})
    (beside,) = [trace for trace in figure.data if trace.name == "text tokens"]
    (frozen,) = [trace for trace in figure.data if trace.name == "frozen"]
    np.testing.assert_array_equal(beside.y, np.full(9, 0.25))
    np.testing.assert_array_equal(frozen.y, [np.nan, LEAST_KL, LEAST_KL, *harm[3:]])
    assert "KL 1e-09 nats" in frozen.hovertext[2]
    panel = figure.layout[frozen.yaxis.replace("y", "yaxis")]
    assert (panel.type, panel.anchor) == ("log", "x")
    assert panel.domain[1] < figure.layout[beside.yaxis.replace("y", "yaxis")].domain[0]


def test_the_gains_of_a_probe_stand_with_their_intervals_and_those_of_text_beside() -> None:
    layers = np.arange(4.0)
    table = pd.concat(
        {
            group: pd.DataFrame(
                {
                    **{
                        f"{name}{end}": layers / 10 + more + shift
                        for name in ("functional", "informational")
                        for end, shift in ENDS
                    },
                    **{f"{name}_{end}": 0.5 for name in ("accuracy", "log_loss") for end in ("before", "behind")},
                }
            )
            for group, more in (("vision", 0.0), ("text", 1.0))
        },
        names=["token_group", "layer"],
    )
    table.loc[("vision", 0), "functional_low"] = np.nan
    figure = probe_curves(table, locks=Locks(4, {0: HOSTILE}))
    lines = {(trace.name, trace.yaxis): trace for trace in figure.data if trace.mode == "lines+markers"}
    assert list(lines) == [(f"{group} tokens", axis) for axis in ("y", "y2") for group in ("vision", "text")]
    np.testing.assert_array_equal(lines["text tokens", "y2"].y, layers / 10 + 1)
    assert "accuracy 0.500 before, 0.500 behind" in lines["vision tokens", "y"].hovertext[1]
    assert "gain +0.000 (no interval)" in lines["vision tokens", "y"].hovertext[0]
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert [min(one for one in band.x if one is not None) for band in bands] == [1, 0, 0, 0]
    assert "<a href" not in figure.to_json()


def test_the_token_map_veils_vision_tokens_where_they_skip_and_whole_layers_that_are_dropped() -> None:
    kinds = np.array([1, 0, 0, 1, 0])
    figure = token_heatmap(np.full((6, 5), 0.5), kinds, list("abcde"))
    mark_skipped(figure, kinds, ["absent", "absent", "full", "frozen", "dropped", "full"])
    boxes = {(box.name, box.x0, box.x1, box.y0, box.y1) for box in figure.layout.shapes}
    absent = {("absent", 0.5, 2.5, -0.5, 1.5), ("absent", 3.5, 4.5, -0.5, 1.5)}
    frozen = {("frozen", 0.5, 2.5, 2.5, 3.5), ("frozen", 3.5, 4.5, 2.5, 3.5)}
    assert boxes == absent | frozen | {("dropped", -0.5, 4.5, 3.5, 4.5)}
