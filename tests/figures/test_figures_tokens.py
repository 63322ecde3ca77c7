"""The strip of tokens: each token's divergence on a fixed scale, a mark where the first choices differ, text that can be seen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vlm_analysis.figures.tokens import token_strip


def strip(kl, differs=None, tokens=None):
    numbers = np.asarray(kl, dtype=np.float64)
    marks = np.zeros(len(numbers), bool) if differs is None else np.asarray(differs)
    return token_strip(tokens or [f"t{i}" for i in range(len(numbers))], numbers, marks)


def named(figure, name: str) -> list:
    return [trace for trace in figure.data if trace.name == name]


def test_scale_is_fixed_and_its_ticks_stand_for_their_nats():
    for numbers in ([0.001, 0.002], [0, 3], [50, 60]):
        cells = strip(numbers).data[0]
        np.testing.assert_allclose(cells.z[0], [math.log(1 + value / 0.01) for value in numbers], rtol=1e-6)
        assert (cells.zmin, cells.zmax) == (0, math.log(501))
    bar = strip([1]).data[0].colorbar
    assert list(bar.ticktext) == ["0", "0.01", "0.1", "1", "5"]
    np.testing.assert_allclose(bar.tickvals, [math.log(1 + float(text) / 0.01) for text in bar.ticktext])
    assert "log" in bar.title.text


def test_a_triangle_stands_above_each_token_at_which_the_first_choices_differ():
    figure = strip([0.1, 2, 0.3], [False, True, True])
    (marks,) = named(figure, "differs")
    assert (list(marks.x), marks.marker.symbol) == ([1, 2], "triangle-down")
    bottom, top = figure.layout.yaxis.range
    assert top < marks.y[0] < -0.5 < 0.5 == bottom
    assert not named(strip([0.1, 2]), "differs")


def test_hover_tells_token_divergence_and_choice():
    figure = strip([0.12345, 2], [False, True], [" the", "cat"])
    assert list(figure.data[0].hovertext[0]) == [
        "token 0 ·the<br>KL(dense ‖ pruned) 0.1235 nats<br>the pruned model's first choice is the same",
        "token 1 cat<br>KL(dense ‖ pruned) 2 nats<br>the pruned model's first choice is another token",
    ]
    assert named(figure, "differs")[0].hovertext == (figure.data[0].hovertext[0][1],)


def test_spaces_line_ends_and_nothing_can_be_seen():
    tokens = [" the", "\n", "\t", "  \r\n", "", "\u200b", "a\u202eb", "\u00a0", "extraordinarily long"]
    ticks = strip([0] * 9, tokens=tokens).layout.xaxis.ticktext
    assert list(ticks) == ["·the", "↵", "⇥", "··␍↵", "∅", "∅", "a b", "·", "extraordinari…"]


@pytest.mark.parametrize(("n", "labels"), [(0, 0), (1, 1), (5, 5), (64, 64), (80, 80), (81, 41), (500, 72)])
def test_strips_of_any_length_have_80_labels_at_most_and_cells_of_bounded_width(n, labels):
    figure = strip([0.1] * n, [True] * n)
    axis = figure.layout.xaxis
    assert len(axis.tickvals) == len(axis.ticktext) == labels
    assert all(text == f"t{place}" for place, text in zip(axis.tickvals, axis.ticktext, strict=True))
    assert axis.range == (-0.5, max(n, 12) - 0.5)
    assert sum(len(trace.x) for trace in named(figure, "differs")) == n


def test_long_tokens_stand_upright_and_make_their_own_room():
    short, long = strip([0.1], tokens=["cat"]), strip([0.1], tokens=["extraordinary"])
    assert (short.layout.xaxis.tickangle, long.layout.xaxis.tickangle) == (None, -90)
    assert long.layout.height > short.layout.height


def test_what_was_not_measured_is_hatched_and_says_so():
    figure = strip([0.1, np.nan, 0.2])
    assert np.isnan(figure.data[0].z[0]).tolist() == [False, True, False]
    assert "not measured" in figure.data[0].hovertext[0][1]
    (strokes,) = named(figure, "hatching")
    x = strokes.x[np.isfinite(strokes.x)]
    assert (np.abs(x - 1) <= 0.5).all()


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="expected 2 numbers"):
        token_strip(["a", "b"], np.ones(2), np.ones(3, bool))
    with pytest.raises(ValueError, match="expected 1 numbers"):
        token_strip(["a"], np.ones((1, 1)), np.ones(1, bool))
