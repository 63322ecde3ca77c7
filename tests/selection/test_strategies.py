"""Strategies: each drops exactly its budget of layers that may go, and the ones its rule names."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from rankings import full_recording, left_out

from vlm_analysis import CRITERIA, STRATEGIES, LayerScores, Recording, Share, make_mask, random_masks, score_layers
from vlm_analysis.edits.files import edit_from_json, edit_to_json
from vlm_analysis.errors import MaskError, RecordingError
from vlm_analysis.recording.measures import triangle
from vlm_analysis.selection.criteria.spans import Spans
from vlm_analysis.selection.strategies.pairs import valid_pairs
from vlm_analysis.words import TOKEN_GROUPS

CHOOSING = [key for key, row in STRATEGIES.items() if row.choose]


def scores(values: list[float], drop: str = "highest") -> LayerScores:
    return LayerScores("made", np.array(values, float), np.zeros(len(values)), drop)  # type: ignore[arg-type]


def with_spans(matrix: Any, group: str = "last") -> Recording:
    """Return a recording of one prompt with these cosines between streams (n_layers + 1, n_layers + 1) in one group."""
    matrix = np.array(matrix, float)
    recording = full_recording(1, len(matrix) - 1, ("math",))
    recording.rows["span"][:] = 0.0
    recording.rows["span"][:, TOKEN_GROUPS.index(group)] = triangle(matrix)
    return recording


@given(
    st.sampled_from(CHOOSING),
    st.integers(3, 10),
    st.integers(0, 30),
    st.sets(st.integers(0, 9), max_size=3) | st.none(),
    st.sets(st.integers(0, 9), max_size=2),
    st.integers(0, 9),
)
def test_a_mask_has_exactly_the_budget_of_layers_that_may_go_or_says_why_not(
    strategy: str, n_layers: int, seed: int, protected: set[int] | None, locked: set[int], budget: int
) -> None:
    recording = full_recording(3, n_layers, seed=seed)
    ranked = score_layers(recording, "block-influence")
    stay = ({0, n_layers - 1} if protected is None else protected) | locked
    asked = {"recording": recording, "protected": protected, "locked": locked, "seed": seed}
    try:
        mask = make_mask(ranked, strategy, budget, **asked)  # type: ignore[arg-type]
    except MaskError as error:
        free = n_layers - len(stay & set(range(n_layers)))
        blocked = "contiguous" in str(error) or "kept between" in str(error)
        assert budget > free or blocked or budget == n_layers
        return
    assert mask.budget == len(set(mask.dropped)) == budget
    assert not stay & set(mask.dropped)
    assert edit_from_json(edit_to_json(mask)).provenance == mask.provenance


class TestMinimumGap:
    def test_no_two_neighbours_go(self) -> None:
        mask = make_mask(scores([0, 5, 9, 8, 7, 1, 0]), "minimum-gap", 2)
        assert (mask.dropped, mask.provenance["gap"]) == ((2, 4), 1)

    def test_a_layer_that_leaves_no_room_for_the_rest_is_passed_over(self) -> None:
        # of 1..5 three can go only as 1, 3, 5: the best two, 2 and 4, must stay
        assert make_mask(scores([0, 1, 9, 2, 8, 3, 0]), "minimum-gap", 3).dropped == (1, 3, 5)

    @given(st.lists(st.floats(0, 1), min_size=3, max_size=9, unique=True), st.integers(0, 3), st.integers(1, 5))
    def test_it_is_the_first_possible_set_in_drop_order(self, values: list[float], gap: int, budget: int) -> None:
        ranked = scores(values)
        possible = [
            layers
            for layers in itertools.combinations(range(len(values)), budget)
            if all(two - one > gap for one, two in itertools.pairwise(layers))
        ]
        if not possible:
            most = -(-len(values) // (gap + 1))
            with pytest.raises(MaskError, match=f"a budget of at most {most}|may go, the others"):
                make_mask(ranked, "minimum-gap", budget, gap=gap, protected=())
            return
        if budget == len(values):
            return
        places = {layer: place for place, layer in enumerate(ranked.order)}
        best = min(possible, key=lambda layers: sorted(places[layer] for layer in layers))
        assert make_mask(ranked, "minimum-gap", budget, gap=gap, protected=()).dropped == best

    def test_layers_without_a_score_do_not_count_as_room(self) -> None:
        with pytest.raises(MaskError, match="at most 1"):
            make_mask(scores([0, 1, math.nan, math.nan, math.nan, 0]), "minimum-gap", 2)

    @pytest.mark.parametrize("gap", [-1, 0.5, True])
    def test_a_gap_that_is_none_is_refused(self, gap: Any) -> None:
        with pytest.raises(MaskError, match="whole numbers of at least 0"):
            make_mask(scores([1] * 6), "minimum-gap", 1, gap=gap)


class TestBaselines:
    def test_last_layers_evenly_spaced_and_the_middle(self) -> None:
        def dropped(strategy: str, budget: int, **asked: Any) -> tuple[int, ...]:
            return make_mask(None, strategy, budget, n_layers=10, **asked).dropped

        assert dropped("last-n", 3) == (6, 7, 8)
        assert dropped("last-n", 2, protected={8}) == (7, 9)
        assert dropped("evenly-spaced", 2) == (3, 7)
        assert dropped("evenly-spaced", 4) == (2, 4, 6, 8)
        assert dropped("evenly-spaced", 8) == (1, 2, 3, 4, 5, 6, 7, 8)
        assert dropped("middle-block", 2) == (4, 5)
        assert dropped("middle-block", 3) == (3, 4, 5)  # 3.5 is the middle of both 3..5 and 4..6: the lower
        assert dropped("middle-block", 2, locked={5}) == (3, 4)

    def test_a_random_draw_is_seeded_and_takes_every_layer_about_as_often(self) -> None:
        one, again, *rest = (make_mask(None, "random-draw", 3, n_layers=12, seed=seed) for seed in (1, 1, *range(400)))
        assert one == again
        counts = np.bincount([layer for mask in rest for layer in mask.dropped], minlength=12)
        assert counts[0] == counts[11] == 0
        assert counts[1:11] == pytest.approx(120, abs=40)

    def test_random_masks_are_those_of_the_following_seeds(self) -> None:
        masks = random_masks(3, 0.25, n_layers=12, seed=7)
        assert masks == [make_mask(None, "random-draw", 3, n_layers=12, seed=seed) for seed in (7, 8, 9)]
        assert [mask.provenance["seed"] for mask in masks] == [7, 8, 9]


class TestAngularBlock:
    def test_the_run_with_the_nearest_ends_goes(self) -> None:
        cosines = np.full((7, 7), 0.2)
        cosines[1, 3], cosines[2, 4], cosines[3, 5] = 0.5, 0.9, 0.8
        mask = make_mask(None, "angular-block", 2, recording=with_spans(cosines))
        assert mask.dropped == (2, 3)
        assert mask.provenance["angular_distance"] == pytest.approx(math.acos(0.9) / math.pi)
        assert mask.provenance["token_group"] == "last"
        assert make_mask(None, "angular-block", 2, recording=with_spans(cosines), locked={3}).dropped == (1, 2)

    def test_angles_are_averaged_and_not_cosines(self) -> None:
        recording = full_recording(2, 4, ("math",))
        one, two = np.full((5, 5), -1.0), np.full((5, 5), -1.0)
        one[1, 2], two[1, 2] = 1.0, 0.0  # angles 0 and ½: ¼; cosine ½
        one[2, 3] = two[2, 3] = 0.6  # angle arccos 0.6 = 0.295 of π; cosine 0.6
        for row, matrix in enumerate((one, two)):
            recording.rows["span"][row, TOKEN_GROUPS.index("last")] = triangle(matrix)
        mask = make_mask(None, "angular-block", 1, recording=recording)
        assert (mask.dropped, mask.provenance["angular_distance"]) == ((1,), pytest.approx(0.25))

    @given(st.integers(0, 30), st.integers(1, 6), st.sampled_from(["last", "vision", None]))
    def test_it_is_the_best_of_all_allowed_blocks(self, seed: int, budget: int, group: str | None) -> None:
        recording = full_recording(5, 8, seed=seed)
        place = TOKEN_GROUPS.index(group or "last")
        pairs = list(itertools.combinations(range(9), 2))
        angles = {
            start: math.fsum(
                math.acos(max(-1, min(1, row[pairs.index((start, start + budget))]))) / math.pi
                for row in recording.rows["span"][:, place]
            )
            / 5
            for start in range(1, 8 - budget)
        }
        mask = make_mask(None, "angular-block", budget, recording=recording, token_group=group)
        assert mask.provenance["angular_distance"] == pytest.approx(min(angles.values()), abs=1e-12)
        assert angles[mask.dropped[0]] == pytest.approx(min(angles.values()), abs=1e-12)

    def test_cosines_beyond_one_by_rounding_are_no_angle(self) -> None:
        cosines = np.full((6, 6), 1 + 1e-12)
        assert make_mask(None, "angular-block", 2, recording=with_spans(cosines)).dropped == (1, 2)

    def test_without_measured_spans_it_says_so(self) -> None:
        recording = full_recording(2, 5, ("math",))
        recording.rows["span"][:] = np.nan
        with pytest.raises(MaskError, match="expected one with a measured distance"):
            make_mask(None, "angular-block", 2, recording=recording)
        with pytest.raises(MaskError, match="only 0 that may go have a measured span"):
            make_mask(None, "interlace", 2, recording=recording)

    def test_a_prompt_on_which_a_layer_broke_keeps_its_spans_from_being_chosen(self) -> None:
        recording = full_recording(3, 6, ("math",))
        recording.rows["nonfinite"][1, 3] = 2
        spans = recording.rows["span"][1]
        pairs = list(itertools.combinations(range(7), 2))
        spans[:, [place for place, (_, later) in enumerate(pairs) if later > 3]] = np.nan
        assert make_mask(None, "angular-block", 2, recording=recording).dropped == (1, 2)
        with pytest.raises(MaskError, match="expected one with a measured distance"):
            make_mask(None, "angular-block", 3, recording=recording)
        assert np.isnan(recording.span_similarity()[3, 4])

    @given(st.integers(0, 20))
    def test_span_means_are_those_of_the_recording(self, seed: int) -> None:
        recording = full_recording(4, 6, seed=seed)
        for domain, step in itertools.product((None, "maps"), (1, 2, 6)):
            found = Spans(recording, domain, "vision").similarity(step)
            wanted = np.diagonal(recording.span_similarity(domain, "vision"), step)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


class TestInterlace:
    def cosines(self) -> np.ndarray:
        """Nine layers. S_3 is largest at 4, then 5 (overlapping), then 1; S_1 is larger at 5 than at 4, at 1 than at 2."""
        cosines = np.full((10, 10), 0.1)
        for start, value in {4: 0.9, 5: 0.8, 1: 0.7}.items():
            cosines[start, start + 3] = value
        for layer, value in {4: 0.3, 5: 0.6, 1: 0.5, 2: 0.4}.items():
            cosines[layer, layer + 1] = value
        return cosines

    def test_one_layer_of_each_triplet_goes_and_its_partners_are_told(self) -> None:
        mask = make_mask(None, "interlace", 2, recording=with_spans(self.cosines(), "all"))
        assert mask.dropped == (1, 5)
        assert (mask.provenance["tuned"], mask.provenance["frozen"]) == ([2, 4], [3, 6])
        assert make_mask(None, "interlace", 1, recording=with_spans(self.cosines(), "all")).dropped == (5,)

    def test_of_a_half_protected_triplet_the_other_layer_goes(self) -> None:
        mask = make_mask(None, "interlace", 1, recording=with_spans(self.cosines(), "all"), protected={0, 5, 8})
        assert mask.dropped == (4,)
        assert mask.provenance["tuned"] == [5]

    def test_pairs_and_then_single_layers_follow_when_triplets_run_out(self) -> None:
        # triplets 4-6 and 1-3 leave 0, 7, 8; pair (7, 8) with 8 protected gives 7; then the best S_1 among what is left
        recording = with_spans(self.cosines(), "all")
        assert make_mask(None, "interlace", 3, recording=recording).dropped == (1, 5, 7)
        mask = make_mask(None, "interlace", 4, recording=recording)
        assert mask.dropped == (1, 2, 5, 7)
        assert 2 not in mask.provenance["tuned"]
        assert make_mask(None, "interlace", 7, recording=recording).dropped == (1, 2, 3, 4, 5, 6, 7)

    def test_single_layers_outside_all_groups_go_before_partners(self) -> None:
        cosines = np.full((9, 9), 0.1)
        cosines[1, 4] = cosines[4, 7] = 0.9  # the triplets 1-3 and 4-6; layers 0 and 7 are alone
        for layer, value in {1: 0.5, 2: 0.4, 4: 0.3, 5: 0.6, 0: 0.05, 7: 0.2}.items():
            cosines[layer, layer + 1] = value
        recording = with_spans(cosines, "all")
        assert make_mask(None, "interlace", 3, recording=recording, protected=()).dropped == (1, 5, 7)
        mask = make_mask(None, "interlace", 5, recording=recording, protected=())
        assert mask.provenance["drop_order"] == [1, 5, 7, 0, 2]


class TestShare:
    COSTS = (5, 1, 2, 3, 4, 5)

    def test_the_fewest_layers_that_reach_the_share_go(self) -> None:
        ranked = scores([0, 4, 3, 2, 1, 0])
        assert make_mask(ranked, "first-k", Share(0.1), costs=self.COSTS).dropped == (
            1,
            2,
        )  # 1 of 20 is too little, 3 do
        assert make_mask(ranked, "first-k", Share(0.15), costs=self.COSTS).dropped == (1, 2)
        assert make_mask(ranked, "first-k", Share(0.151), costs=self.COSTS).dropped == (1, 2, 3)
        assert make_mask(ranked, "first-k", Share(0.0), costs=self.COSTS).dropped == ()

    def test_the_total_may_be_the_whole_models(self) -> None:
        mask = make_mask(scores([0, 4, 3, 2, 1, 0]), "first-k", Share(0.1, of="latency", total=40), costs=self.COSTS)
        assert mask.dropped == (1, 2, 3)
        assert mask.provenance["budget"] == {"share": 0.1, "of": "latency", "total": 40}
        assert mask.name == "made, first-k, 3"

    @given(st.sampled_from(sorted(set(CHOOSING) - {"minimum-gap"})), st.floats(0, 0.5), st.integers(0, 9))
    def test_every_strategy_reaches_it_and_one_layer_fewer_does_not(
        self, strategy: str, share: float, seed: int
    ) -> None:
        recording = full_recording(3, 8, seed=seed)
        costs = np.random.default_rng(seed).uniform(1, 2, 8)
        ranked = score_layers(recording, "block-influence")
        mask = make_mask(ranked, strategy, Share(share), costs=costs, recording=recording)
        assert costs[list(mask.dropped)].sum() >= (share - 1.001e-9) * costs.sum()  # a share is met within 1e-9
        for fewer in range(mask.budget):
            less = make_mask(ranked, strategy, fewer, recording=recording)
            assert costs[list(less.dropped)].sum() < share * costs.sum()

    def test_a_share_out_of_reach_says_how_far_it_goes(self) -> None:
        with pytest.raises(MaskError, match=r"Cannot drop 60.0% of the parameters: .* make up 50.0% at most"):
            make_mask(scores([0, 4, 3, 2, 1, 0]), "first-k", Share(0.6), costs=self.COSTS)
        with pytest.raises(MaskError, match=r"20.0% at most\. Cannot drop 3 layers with 1 kept"):
            make_mask(scores([0, 4, 3, 2, 1, 0]), "minimum-gap", Share(0.3), costs=self.COSTS)

    @pytest.mark.parametrize("costs", [None, (1, 2), (1, 1, 1, 1, 1, math.nan), (1, 1, 1, 1, 1, -1), (0,) * 6])
    def test_costs_that_do_not_fit_are_refused(self, costs: Any) -> None:
        with pytest.raises(MaskError, match=r"needs the costs|do not fit"):
            make_mask(scores([0, 4, 3, 2, 1, 0]), "first-k", Share(0.1), costs=costs)

    @pytest.mark.parametrize(
        "wrong", [{"share": 1.0}, {"share": -0.1}, {"share": math.nan}, {"share": 0.1, "total": 0}]
    )
    def test_shares_that_make_no_sense_are_refused(self, wrong: dict[str, float]) -> None:
        with pytest.raises(MaskError, match=r"must lie in \[0, 1\)|positive number"):
            Share(**wrong)  # type: ignore[arg-type]


class TestQuestions:
    def test_a_strategy_without_what_it_needs_says_what(self) -> None:
        for strategy, words in {
            "minimum-gap": "layer scores",
            "interlace": "a recording",
            "angular-block": "a recording",
            "greedy": "Call greedy",
        }.items():
            with pytest.raises(MaskError, match=words):
                make_mask(None, strategy, 1, n_layers=6)

    def test_spans_of_an_unknown_domain_or_group_are_refused(self) -> None:
        for asked in ({"domain": "art"}, {"token_group": "pixels"}):
            with pytest.raises(RecordingError):
                make_mask(None, "interlace", 1, recording=full_recording(), **asked)  # type: ignore[arg-type]

    def test_valid_pairs_name_the_reason_of_those_that_are_not(self) -> None:
        pairs = valid_pairs(full_recording(attention=False))
        by_score = [key for key, row in STRATEGIES.items() if row.needs == "scores"]
        assert {pair for pair in pairs if pair[0]} == set(itertools.product(CRITERIA, by_score))
        assert pairs["block-influence", "minimum-gap"] == pairs[None, "interlace"] == pairs[None, "last-n"] == ""
        assert "attention maps" in pairs["important-tokens", "first-k"]
        assert "damage" in pairs["damage-kl", "first-k"]
        assert "Call greedy" in pairs[None, "greedy"]
        full = valid_pairs(full_recording(), damage=left_out())
        assert [pair for pair, reason in full.items() if reason] == [
            (None, "greedy"),
            (None, "beam"),
            (None, "evolutionary"),
        ]

    def test_every_valid_pair_makes_a_mask_of_every_budget_that_fits(self) -> None:
        recording, damage = full_recording(), left_out()
        for criterion, strategy in valid_pairs(recording, damage=damage):
            ranked = score_layers(recording, criterion, damage=damage) if criterion else None
            for budget in (1, 2, 3, 0.34) if STRATEGIES[strategy].needs != "model" else ():
                mask = make_mask(ranked, strategy, budget, recording=recording)
                assert mask.budget == (3 if budget == 0.34 else budget)

    def test_every_strategy_says_what_it_is(self) -> None:
        for key, row in STRATEGIES.items():
            assert row.title, key
            assert row.source, key
            assert row.needs in ("scores", "recording", "nothing", "model")
            assert (row.choose is None) == (row.needs == "model")
