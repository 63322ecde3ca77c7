"""Halves of a prompt set: every domain in both, nothing lost, nothing twice."""

from __future__ import annotations

import pytest

from vlm_analysis.errors import PromptError
from vlm_analysis.halves import n_shared, split_in_halves
from vlm_analysis.prompts import PromptSet


def test_halves_hold_every_prompt_once_and_half_of_each_domain(packs: PromptSet) -> None:
    one, other = split_in_halves(packs)
    assert {p.id for p in one} | {p.id for p in other} == {p.id for p in packs}
    assert (len(one), len(other)) == (46, 44)
    for domain in packs.domains:
        assert (len(one.for_domain(domain)), len(other.for_domain(domain))) == (23, 22)
    order = [p.id for p in packs]
    assert [p.id for p in one] == sorted((p.id for p in one), key=order.index)
    assert n_shared(other, [p.key for p in one]) == 0
    assert n_shared(packs, [p.key for p in one]) == 46


def test_a_seed_draws_the_same_halves_and_another_others(packs: PromptSet) -> None:
    assert split_in_halves(packs, 3)[0].fingerprint == split_in_halves(packs, 3)[0].fingerprint
    assert split_in_halves(packs, 3)[0].fingerprint != split_in_halves(packs, 4)[0].fingerprint


def test_a_domain_of_one_prompt_cannot_be_split(packs: PromptSet) -> None:
    with pytest.raises(PromptError, match="Domain 'general' cannot be split"):
        split_in_halves(packs[:4] + packs[45:46])
