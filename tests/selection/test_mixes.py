"""The search over mixes of kinds, against every mix there is on damage that is made up and adds up."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pandas as pd
import pytest

from vlm_analysis import Cancelled, Edit, Evaluation, Locks, Narrow, early_exit, search_mix
from vlm_analysis.edits.edit import PruneMask
from vlm_analysis.errors import EditError, MaskError
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.selection.search.mixes import STOPPED, Mix

N_LAYERS = 6
MODEL = ModelInfo("m", "f" * 64, N_LAYERS)
HARM = {0: 9.0, 1: 0.4, 2: 0.1, 3: 0.35, 4: 0.9, 5: 9.0}
STEPS = (0.0, 0.15, 0.4, 1.0)  # harm of so many steps of width
VISION = (0.0, 0.05, 0.6)
UNIT, SAVED_BY_VISION = 0.125, (0.0, 0.0625, 0.25)


def make(mix: Mix) -> Edit:
    if 4 in mix.dropped and mix.narrow > 2:
        raise EditError("There is no such width.")
    edit = PruneMask(N_LAYERS, mix.dropped)
    if mix.narrow:
        stay = [layer for layer in range(N_LAYERS) if layer not in mix.dropped]
        edit += Edit(N_LAYERS, (Narrow({layer: range(9 - mix.narrow) for layer in stay}),))
    return edit + early_exit(N_LAYERS, N_LAYERS - mix.vision) if mix.vision else edit


def saved(mix: Mix) -> float:
    return UNIT * (len(mix.dropped) + mix.narrow) + SAVED_BY_VISION[mix.vision]


def harm(mix: Mix) -> float:
    return sum(HARM[layer] for layer in mix.dropped) + STEPS[mix.narrow] + VISION[mix.vision]


class Measured:
    """Measures by the table above, and counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Edit] = []
        every = (Mix(dropped, narrow, vision) for dropped in subsets() for narrow in range(4) for vision in range(3))
        self._harm: dict[Edit, float] = {}
        for mix in every:
            if not (4 in mix.dropped and mix.narrow > 2):
                self._harm[make(mix)] = harm(mix)

    def __call__(self, edits: list[Edit]) -> list[Evaluation]:
        self.asked += edits
        return [self._of(edit) for edit in edits]

    def _of(self, edit: Edit) -> Evaluation:
        row = {"id": "p", "domain": "d", "exact_match": True, "answer_nll": 1.0, "token_agreement": 1.0}
        row |= {"kl_to_dense": self._harm[edit], "answer": "a", "answer_source": "given", "answer_ids": [1]}
        return Evaluation(edit, MODEL, "p" * 64, pd.DataFrame([row]))


def subsets() -> list[tuple[int, ...]]:
    return [one for n in range(N_LAYERS) for one in combinations(range(N_LAYERS), n)]


def least(share: float, n_vision: int) -> float:
    """Return the least harm of every mix that meets the budget, tried one by one."""
    mixes = (
        Mix(dropped, narrow, vision)
        for dropped in subsets()
        if not {0, 5} & {*dropped}
        for narrow in range(4)
        for vision in range(n_vision + 1)
        if not (4 in dropped and narrow > 2)
    )
    return min(harm(mix) for mix in mixes if saved(mix) >= share - 1e-9)


def searched(measure: Any, share: float, **options: Any) -> Edit:
    return search_mix(measure, make, saved, share, n_layers=N_LAYERS, most_narrow=3, **options)


@pytest.mark.parametrize("share", [0.1, 0.125, 0.25, 0.375, 0.5])
@pytest.mark.parametrize("n_vision", [0, 2])
def test_a_wide_beam_finds_the_least_harm_of_every_mix(share: float, n_vision: int) -> None:
    found = Mix(**searched(Measured(), share, n_vision=n_vision, width=500).provenance["mix"])
    assert saved(found) >= share - 1e-9
    assert harm(found) == pytest.approx(least(share, n_vision))


@pytest.mark.parametrize("share", [0.125, 0.25, 0.375])
def test_greedy_finds_it_too_where_steps_save_alike_and_no_step_pays_for_the_next(share: float) -> None:
    measure = Measured()
    edit = searched(measure, share)
    assert harm(Mix(**edit.provenance["mix"])) == pytest.approx(least(share, 0))
    assert edit == make(Mix(**edit.provenance["mix"]))
    assert edit.provenance["strategy"] == "greedy over kinds"
    assert edit.provenance["tried"] == len(measure.asked) - 1
    assert sum(one["tried"] for one in edit.provenance["steps"]) == edit.provenance["tried"]
    assert "stopped" not in edit.provenance


def test_protected_layers_stay() -> None:
    locks = Locks(N_LAYERS, locked={1: "it stays", 2: "it stays"})
    assert not {1, 2} & {*searched(Measured(), 0.5, locks=locks, width=50).dropped}


def test_a_limit_of_time_fills_the_best_so_far_up_to_the_budget_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 0.0, 5.0, 5.0])
    monkeypatch.setattr("vlm_analysis.selection.search.mixes.time.monotonic", lambda: next(ticks))
    edit = searched(Measured(), 0.5, most_s=4.0)
    found = Mix(**edit.provenance["mix"])
    assert edit.provenance["stopped"] == STOPPED
    assert len(edit.provenance["steps"]) == 1
    assert saved(found) >= 0.5
    assert 2 in found.dropped, "what was measured first is kept"


def test_what_no_mix_can_save_is_said() -> None:
    with pytest.raises(MaskError, match="No mix meets the budget: expected one that saves 99%"):
        searched(Measured(), 0.99, width=4)
    with pytest.raises(MaskError, match="a width of at least 1"):
        searched(Measured(), 0.5, width=0)
    with pytest.raises(MaskError, match="No mix meets the budget"):
        searched(Measured(), 0.5, most_s=-1.0)


def test_a_search_can_be_cancelled_before_each_step() -> None:
    seen: list[str] = []

    def progress(done: int, total: int, message: str) -> None:
        seen.append(message)
        if done == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        searched(Measured(), 0.5, on_progress=progress)
    assert seen[0].startswith("step 1 of")
