"""The maps of a repair against numpy's least squares in float64. Values only."""

from __future__ import annotations

import numpy as np
import pytest

from vlm_analysis.errors import EditError
from vlm_analysis.recovery.solving import HOWS, Options, Sums, gap_left, solve

DRAW = np.random.default_rng(0)
WROTE = DRAW.normal(size=(200, 12)) * DRAW.uniform(0.1, 3, 12)
MISSING = WROTE @ DRAW.normal(size=(12, 12)) + DRAW.normal(size=(200, 12))


def sums(wrote: np.ndarray = WROTE, missing: np.ndarray = MISSING) -> Sums:
    return Sums(wrote.T @ wrote, wrote.T @ missing, missing.T @ missing, len(wrote))


def stacked(penalty: float, toward: str) -> np.ndarray:
    """Return the map by least squares over the tokens and, for the penalty, a row for each channel."""
    pull = penalty * np.square(WROTE).sum() / 12
    end = WROTE + MISSING if toward == "zero" else MISSING
    rows = np.vstack([WROTE, np.sqrt(pull) * np.eye(12)])
    found = np.linalg.lstsq(rows, np.vstack([end, np.zeros((12, 12))]), rcond=None)[0].T
    return found + (np.eye(12) if toward == "identity" else 0)


@pytest.mark.parametrize("toward", ["identity", "zero"])
@pytest.mark.parametrize("penalty", [0.0, 1e-3, 0.5])
def test_ridge_is_least_squares_to_1e_8(penalty, toward):
    found = solve(sums(), Options(penalty=penalty, toward=toward))
    np.testing.assert_allclose(found, stacked(penalty, toward), atol=1e-8)


@pytest.mark.parametrize("toward", ["identity", "zero"])
def test_scale_is_least_squares_of_each_channel(toward):
    found = solve(sums(), Options("scale", penalty=0, toward=toward))
    for channel, factor in enumerate(found):
        one = np.linalg.lstsq(WROTE[:, [channel]], (WROTE + MISSING)[:, channel], rcond=None)[0][0]
        assert factor == pytest.approx(one, abs=1e-8)


def test_a_silent_channel_keeps_its_factor():
    wrote = WROTE * (np.arange(12) > 0)
    for toward in ("identity", "zero"):
        assert solve(sums(wrote), Options("scale", penalty=0, toward=toward))[0] == 1


def test_subspace_doubles_what_is_written_where_the_layers_added_most():
    directions = np.linalg.svd(MISSING)[2][:3].T
    found = solve(sums(), Options("subspace", k=3))
    np.testing.assert_allclose(found @ directions, 2 * directions, atol=1e-8)
    without = solve(sums(), Options("subspace", k=3, sign=-1))
    np.testing.assert_allclose(without @ directions, 0 * directions, atol=1e-8)
    rest = np.linalg.svd(MISSING)[2][3:].T
    np.testing.assert_allclose(found @ rest, rest, atol=1e-8)


def test_a_linear_gap_closes_whole_and_the_gap_left_is_what_is_told():
    linear = WROTE @ DRAW.normal(size=(12, 12))
    exact = sums(WROTE, linear)
    assert gap_left(exact, solve(exact, Options(penalty=0))) < 1e-12
    for how in HOWS:
        mapping = solve(sums(), Options(how))
        matrix = np.diag(mapping) if mapping.ndim == 1 else mapping
        left = MISSING + WROTE - WROTE @ matrix.T
        assert gap_left(sums(), mapping) == pytest.approx(np.square(left).sum() / np.square(MISSING).sum(), rel=1e-9)
    assert gap_left(sums(WROTE, 0 * MISSING), np.eye(12)) == 0


def test_the_pull_to_the_identity_leaves_the_layer_as_it_is_where_nothing_is_missing():
    nothing = sums(WROTE, 0 * MISSING)
    np.testing.assert_allclose(solve(nothing, Options(penalty=0.5)), np.eye(12), atol=1e-12)
    assert np.abs(solve(nothing, Options(penalty=0.5, toward="zero")) - np.eye(12)).max() > 0.1


def test_too_few_tokens_decide_no_map_without_a_penalty():
    with pytest.raises(EditError, match="expected 12 tokens or more without a penalty, got 11"):
        solve(sums(WROTE[:11], MISSING[:11]), Options(penalty=0))
    assert np.isfinite(solve(sums(WROTE[:1], MISSING[:1]), Options())).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"how": "magic"}, "expected one of ridge, subspace, scale as how, got 'magic'"),
        ({"penalty": -1}, "a number from 0 on as penalty, got -1"),
        ({"penalty": float("nan")}, "as penalty, got nan"),
        ({"toward": "one"}, "identity or zero as toward"),
        ({"k": 0}, "as k, got 0"),
        ({"k": 1.5}, "as k, got 1.5"),
        ({"sign": 0}, "1 or -1 as sign"),
        ({"tokens": ()}, "some of vision, text, answer, last, all as tokens"),
        ({"tokens": ("words",)}, "as tokens, got"),
        ({"tokens": "text"}, "as tokens, got 'text'"),
    ],
)
def test_what_is_no_option_is_refused(options, said):
    with pytest.raises(EditError, match=said):
        Options(**options)


def test_more_directions_than_channels_are_refused():
    with pytest.raises(EditError, match="expected at most 12"):
        solve(sums(), Options("subspace", k=13))
