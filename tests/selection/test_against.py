"""Cosine against damage: ranks, outliers and the words on where cosine would mislead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from oracles import made_recording
from rankings import evaluation, full_recording, left_out

from vlm_analysis import score_layers
from vlm_analysis.selection.certainty.against import CRUCIAL, SPARE, cosine_against_damage, misleading_words


def compared(influence: list[float], damage: list[float | None], **asked: Any) -> pd.DataFrame:
    """Return the frame of layers with this block influence and KL damage; None was not measured."""
    recording = made_recording([("math", [1 - value for value in influence])])
    masks = [
        evaluation((layer,), (value,), (2 * value,), ("math",), n_layers=len(damage))
        for layer, value in enumerate(damage)
        if value is not None
    ]
    masks = [type(one)(one.mask, recording.model, one.prompts, one.by_prompt) for one in masks]
    return cosine_against_damage(recording, masks, **asked)


class TestFrame:
    def test_ranks_gaps_and_directions_of_a_worked_case(self) -> None:
        frame = compared([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [9.0, 0.2, 0.3, 0.4, 0.5, 0.1])
        assert frame["cosine_rank"].tolist() == [0, 1, 2, 3, 4, 5]
        assert frame["damage_rank"].tolist() == [5, 1, 2, 3, 4, 0]
        assert frame["rank_gap"].tolist() == [5, 0, 0, 0, 0, -5]
        assert frame["outlier"].tolist() == [True, False, False, False, False, True]
        assert frame["direction"].tolist() == [CRUCIAL, "", "", "", "", SPARE]

    def test_an_outlier_is_a_third_of_the_ranked_layers_away_and_at_least_two(self) -> None:
        assert not compared([1, 2, 3], [2.0, 1.0, 3.0])["outlier"].any()  # one rank away
        nine = [1.0, 2, 3, 4, 5, 6, 7, 8, 9]
        assert compared(nine, [4.0, 1, 2, 3, 5, 6, 7, 8, 9])["outlier"].tolist() == [True] + [False] * 8
        assert not compared(nine, [3.0, 1, 2, 4, 5, 6, 7, 8, 9])["outlier"].any()

    def test_layers_that_were_not_measured_are_not_ranked(self) -> None:
        frame = compared([0.1, 0.2, 0.3, 0.4], [None, 0.3, 0.2, 0.1])
        assert np.isnan(frame.loc[0, ["cosine_rank", "damage_rank", "rank_gap"]].astype(float)).all()
        assert frame["cosine_rank"].tolist()[1:] == [0, 1, 2]
        assert not frame.loc[0, "outlier"]

    def test_ties_share_their_rank(self) -> None:
        assert compared([0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 1.0, 1.0])["damage_rank"].tolist() == [1.5] * 4

    def test_the_nll_can_be_ranked_instead_and_the_target_asked(self) -> None:
        recording, damage = full_recording(), left_out()
        frame = cosine_against_damage(recording, damage, "vision", "maps", by="damage_nll")
        wanted = score_layers(recording, "damage-nll", target="maps", damage=damage)
        np.testing.assert_array_equal(frame["damage_nll"], wanted.values)
        assert [wanted.order[int(rank)] for rank in frame["damage_rank"]] == list(range(9))
        influence = score_layers(recording, "block-influence", domain="maps", token_group="vision")
        np.testing.assert_array_equal(frame["block_influence"], influence.values)

    @given(st.permutations(range(8)))
    def test_equal_orders_have_no_outlier_and_turned_ones_mirror(self, order: list[int]) -> None:
        values = [float(place + 1) for place in order]
        assert not compared(values, values)["outlier"].any()
        turned = compared(values, [-value for value in values])
        assert sorted(turned["rank_gap"]) == [-7, -5, -3, -1, 1, 3, 5, 7]
        assert set(turned["direction"]) == {CRUCIAL, SPARE, ""}


class TestWords:
    def test_they_name_tau_and_the_largest_outliers_first(self) -> None:
        frame = compared([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], [9.0, 0.2, 0.3, 0.4, 0.5, 0.1, 0.7])
        said = misleading_words(frame, most=1)
        assert said[0].startswith("Over 7 layers cosine and measured damage (KL to the dense model) ")
        tau = (21 - 2 * (6 + 4)) / 21  # layer 0 stands wrong to six, layer 5 to four more
        assert f"Kendall tau {tau:.2f}" in said[0]
        assert said[1] == (
            f"Layer 0: {CRUCIAL}. It goes in place 1 by cosine (1 − cosine 0.1) and in place 7 by damage (9 nats): "
            "cosine drops it early, though 6 of the 7 layers do less harm."
        )
        assert "cosine keeps it, though only 0 of the 7 layers do less harm" in misleading_words(frame)[2]
        assert said[2] == "Outliers too: layer 5."

    def test_agreement_is_said_too(self) -> None:
        said = misleading_words(compared([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]))
        assert "agree: Kendall tau 1.00" in said[0]
        assert "misleads about none" in said[1]

    @pytest.mark.parametrize(
        ("damage", "words"),
        [([4.0, 3.0, 2.0, 1.0], "contradict each other"), ([1.0, 1.0, 1.0, 1.0], "cannot be compared over 4 layers")],
    )
    def test_every_degree_has_its_words(self, damage: list[float | None], words: str) -> None:
        assert words in misleading_words(compared([0.1, 0.2, 0.3, 0.4], damage))[0]

    def test_missing_layers_are_named(self) -> None:
        assert "Layer 0 lacks one" in misleading_words(compared([0.1, 0.2, 0.3], [None, 2.0, 3.0]))[-1]
        assert misleading_words(compared([0.1, 0.2, 0.3], [None, None, 3.0]))[0].startswith("Too few layers")
