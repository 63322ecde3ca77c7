"""Every way to a mask: each is what `make_mask` alone gives, and what is missing is said by name."""

from __future__ import annotations

import pytest

from vlm_analysis import (
    CRITERIA,
    Cancelled,
    LoadedModel,
    PromptSet,
    PruneMask,
    Recording,
    make_mask,
    many_masks,
    random_masks,
    read_damage,
    record,
    score_layers,
    sweep,
)
from vlm_analysis.progress import stoppable


@pytest.fixture(scope="module")
def recording(loaded: LoadedModel, few: PromptSet) -> Recording:
    return record(loaded, few, attention=True)


@pytest.fixture(scope="module")
def damage(loaded: LoadedModel, few: PromptSet):
    masks = [PruneMask(16, (layer,)) for layer in range(16)]
    return read_damage(list(sweep(loaded, few, [PruneMask(16), *masks])), loaded.info)


def test_every_criterion_is_there_for_every_domain_it_takes(recording, damage) -> None:
    ways, refused = many_masks(recording, range(1, 4), damage=damage)
    assert {way.criterion for way in ways} == set(CRITERIA) - {"random"} | {None}
    assert refused == {}
    methods = {way.method for way in ways if way.criterion == "target-aware" and way.strategy == "first-k"}
    assert methods == {"Target-aware (math)", "Target-aware (general)"}
    damaged = {way.target for way in ways if way.criterion == "damage-kl"}
    assert damaged == {None, "math", "general"}
    assert len({(way.method, way.budget, way.draw) for way in ways}) == len(ways)


def test_masks_are_those_of_make_mask_alone(recording, loaded) -> None:
    protected = loaded.protected_layers
    ways, _ = many_masks(recording, (2, 5), criteria=("mixed", "block-influence"), protected=protected, seed=3)
    for way in ways:
        if way.criterion is not None:
            scores = score_layers(recording, way.criterion, target=way.target, seed=3)
            assert way.mask == make_mask(scores, way.strategy, way.budget, protected=protected)
        elif way.method == "random":
            assert way.mask == random_masks(5, way.budget, n_layers=16, protected=protected, seed=3)[way.draw]
        assert not set(way.mask.dropped) & set(protected)
        assert way.mask.budget == way.budget


def test_a_mask_tells_the_prompts_it_was_chosen_on(recording, damage, few) -> None:
    ways, _ = many_masks(recording, (2,), damage=damage, criteria=("mixed", "damage-kl"))
    for way in ways:
        if way.criterion is not None or way.strategy in ("angular-block", "interlace"):
            assert way.mask.chosen_on == {few.fingerprint}
        else:
            assert way.mask.chosen_on == frozenset()


def test_what_cannot_be_ranked_is_refused_by_name_and_the_rest_goes_on(recording) -> None:
    ways, refused = many_masks(recording, (1,), criteria=("damage-kl", "block-influence"), strategies=("first-k",))
    assert {way.method for way in ways} == {"Block influence"}
    assert all("needs measured damage" in reason for reason in refused.values())
    assert len(refused) == 3


def test_budgets_beyond_the_layers_that_may_go_are_left_out(recording, loaded) -> None:
    ways, refused = many_masks(recording, range(17), criteria=("block-influence",), protected=range(4))
    assert {way.budget for way in ways if way.strategy == "first-k"} == set(range(1, 13))
    assert max(way.budget for way in ways if way.strategy == "minimum-gap") == 6
    assert "Lower the budget" in refused["Block influence, no two adjacent"]


def test_it_stops_before_the_next_ranking_or_mask_when_asked(recording) -> None:
    asked = []

    def check() -> None:
        asked.append(None)
        if len(asked) == 5:
            raise Cancelled

    with stoppable(check), pytest.raises(Cancelled):
        many_masks(recording, range(1, 9), criteria=("block-influence", "mixed"))
    assert len(asked) == 5
    asked[:] = [None] * 5
    with stoppable(check):
        ways, _ = many_masks(recording, range(1, 4), criteria=("block-influence", "mixed"))
    assert len(asked) - 5 >= len(ways) + 3  # each mask, and each ranking before it is made
