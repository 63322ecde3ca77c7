"""Recovered masks in a comparison: methods of their own, read off as those of the masks as they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from compared import made

from vlm_analysis import Comparison, Edit, PruneMask, regimes
from vlm_analysis.errors import EvaluationError
from vlm_analysis.selection.compared.answer import best_places
from vlm_analysis.selection.compared.comparison import ways_frame
from vlm_analysis.selection.compared.findings import retention_curves
from vlm_analysis.selection.compared.recovered import as_recovered, hows_of, is_drawn, recovered_way
from vlm_analysis.selection.compared.verdicts import members_of
from vlm_analysis.selection.strategies.many import RANDOM, Way

N = 60


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """Of two criteria, one of which keeps less, and two random draws; recovered, all keep the same."""
    right = np.ones(N)
    bad = np.where(np.arange(N) < N // 2, 0.0, 1.0)
    base = made({("one", "first-k", 2): right, ("two", "first-k", 2): bad}, ["math"] * N)
    drawn = [PruneMask(8, dropped) for dropped in ((1, 5), (2, 6))]
    ways = [
        *(Way(name, name, "first-k", None, 2, 0, mask) for name, mask in zip(("one", "two"), base.masks, strict=True)),
        *(Way(RANDOM, None, "random-draw", None, 2, draw, mask) for draw, mask in enumerate(drawn)),
    ]
    ways += [recovered_way(way, "ridge", other(way.mask)) for way in ways]
    masks = tuple(way.mask for way in ways)
    rows = [right, bad, bad, bad, *[right] * 4]
    scores = {name: np.array(rows) for name in base.scores}
    return replace(base, masks=masks, ways=ways_frame(ways, masks), scores=scores)


def other(mask: Edit) -> Edit:
    """Return a mask that stands for the recovered one."""
    return PruneMask(8, (0, *mask.dropped))


def test_curves_are_of_both_and_random_draws_are_one_band_each(comparison: Comparison) -> None:
    assert hows_of(comparison) == ("ridge",)
    curves = retention_curves(comparison).set_index("method")["value"]
    assert dict(curves) == {
        "one": 1.0,
        "two": 0.5,
        "random": 0.5,
        **{f"{name}, recovered (ridge)": 1.0 for name in ("one", "two", "random")},
    }
    assert is_drawn(comparison.ways).tolist() == [False, False, True, True] * 2
    band = retention_curves(comparison).set_index("method").loc["random, recovered (ridge)"]
    assert (band["low"], band["high"]) == (1.0, 1.0), "the range of the draws, not their intervals"


def test_regimes_are_of_the_masks_as_they_are_or_of_one_recovery(comparison: Comparison) -> None:
    assert members_of(comparison) == ("one", "two", "random-draw")
    as_cut, ridge = regimes(comparison), regimes(as_recovered(comparison, "ridge"))
    assert (as_cut["regime"].tolist(), ridge["regime"].tolist()) == (["ranking-sensitive"], ["converging"])
    assert (ridge["spread"].tolist(), ridge["n_masks"].tolist()) == ([0.0], [4])
    pd.testing.assert_frame_equal(regimes(as_recovered(comparison)), as_cut)
    with pytest.raises(EvaluationError, match="expected one of ridge as how, got 'scale'"):
        as_recovered(comparison, "scale")


def test_the_answer_is_a_mask_as_it_is(comparison: Comparison) -> None:
    worse = np.where(np.arange(len(comparison.masks)) < 4, 0.0, 1.0)[:, None] * np.ones(N)
    assert best_places(replace(comparison, scores=dict.fromkeys(comparison.scores, worse)))[2] < 2
