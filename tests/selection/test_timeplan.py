"""A budget of time in the units of each kind, against sums done by hand."""

from __future__ import annotations

from typing import Any

import pytest

from vlm_analysis import Edit, PruneMask, late_entry
from vlm_analysis.errors import EditError, EvaluationError
from vlm_analysis.model_info import Locks, ModelInfo
from vlm_analysis.selection.contest.candidates import mix_maker
from vlm_analysis.selection.contest.timeplan import TimePlan, edits_to_time, time_plan_of
from vlm_analysis.selection.search.mixes import Mix

INFO = ModelInfo("toy", "", 10, layer_parameters=(10,) * 10, n_parameters=120, protected={0: "first"})
LOCKS = Locks(10, {0: "first"}, {})
SKIPPING = late_entry(10, 4)


def plan(share: float = 0.3, **more: Any) -> TimePlan:
    given: dict[str, Any] = {"half": (4, 0.4), "looks": [(2, 0.1), (4, 0.35)], "visions": [(SKIPPING, 0.2)], **more}
    return time_plan_of(INFO, share, LOCKS, 0.1, **given)


def test_each_kind_saves_its_share_of_what_the_others_leave() -> None:
    made = plan()
    assert (made.layer, made.n_dropped) == (pytest.approx(0.1), 3)
    assert made.widths == pytest.approx((0, 0.05, 0.1, 0.225, 0.35))
    assert made.saved(Mix()) == 0
    assert made.saved(Mix((1, 2, 3))) == pytest.approx(0.3)
    assert made.saved(Mix((1, 2), 3, 1)) == pytest.approx(1 - 0.8 * 0.775 * 0.8)
    assert made.width_share == pytest.approx(0.4)


def test_a_step_that_was_timed_slower_saves_no_less_than_a_smaller_one() -> None:
    assert plan(looks=[(1, 0.2), (2, 0.1), (3, -0.1)]).widths == (0, 0.2, 0.2, 0.2)
    assert plan(looks=[(1, -0.3)]).widths == (0, 0)


def test_kinds_that_cannot_save_so_much_say_how_much_they_save() -> None:
    with pytest.raises(EditError, match="Narrow layers save at most 35%"):
        _ = plan(0.5).width_share
    with pytest.raises(EditError, match="Vision tokens that skip layers save at most 20%"):
        plan(0.5).skipping()
    with pytest.raises(EditError, match="save at most 0%"):
        plan(0.5, visions=[(SKIPPING, -0.2)]).skipping()
    assert plan(0.15).skipping() == [SKIPPING]
    with pytest.raises(EvaluationError, match="at most 90% of a prefill's, as 9 layers may go, got 95%"):
        plan(0.95)
    with pytest.raises(EvaluationError, match="at most 0%"):
        plan(half=(4, -0.1))


def test_mixes_are_made_of_their_parts() -> None:
    make = mix_maker(plan(), None)
    assert make(Mix((2, 3))) == PruneMask(10, (2, 3))
    assert make(Mix((2,), 0, 1)) == PruneMask(10, (2,)) + SKIPPING
    with pytest.raises(EditError, match="expected scores of the width"):
        make(Mix((), 1))


def test_half_of_the_layers_that_may_go_is_timed() -> None:
    half, looks = edits_to_time(INFO, LOCKS, 0.1, None)
    assert (half.budget, looks) == (4, [])
    assert 0 not in half.dropped
    assert isinstance(half, Edit)
    with pytest.raises(EvaluationError, match="expected layers that may go"):
        edits_to_time(INFO, Locks(10, dict.fromkeys(range(10), "stays"), {}), 0.1, None)
