"""Halves of a prompt set: every domain in both, nothing lost, nothing twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from tables import BLUE

from vlm_analysis import Prompt, PromptSet, split_in_halves
from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.halves import n_shared


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
    with pytest.raises(
        PromptError,
        match="'general' cannot be split: expected different prompts for each half, on pictures of their own, got 1 in 1 group",
    ):
        split_in_halves(packs[:4] + packs[45:46])


def asked(*named: tuple[str, str]) -> PromptSet:
    """Return prompts of these questions and domains, all of one image, numbered by their place."""
    return PromptSet(Prompt((BLUE,), question, domain) for question, domain in named)


def test_prompts_that_differ_are_split_as_by_one_permutation_a_domain(packs: PromptSet) -> None:
    rng, first = np.random.default_rng(3), set()
    for domain, places in (("math", range(45)), ("general", range(45, 90))):
        assert {packs[place].domain for place in places} == {domain}
        first |= {packs[place].id for place in rng.permutation(places)[:23].tolist()}
    assert {p.id for p in split_in_halves(packs, 3)[0]} == first


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.just("math")), min_size=2, max_size=30), st.integers(0, 9))
def test_the_same_prompt_is_never_in_both_halves(named: list[tuple[str, str]], seed: int) -> None:
    if len(set(named)) < 2:
        return
    prompts = asked(*named)
    one, other = split_in_halves(prompts, seed)
    assert {p.question for p in one}.isdisjoint(p.question for p in other)
    assert sorted((*(p.id for p in one), *(p.id for p in other))) == sorted(p.id for p in prompts)
    most = max(Counter(named).values())
    assert -(-len(named) // 2) - most < len(one) <= -(-len(named) // 2)


def test_the_same_prompt_in_two_domains_is_in_one_half() -> None:
    prompts = asked(*[(question, domain) for domain in ("math", "bars") for question in "abcdef"])
    for seed in range(5):
        one, other = split_in_halves(prompts, seed)
        assert {p.question for p in one}.isdisjoint(p.question for p in other)
        assert [len(half.for_domain(domain)) for half in (one, other) for domain in prompts.domains] == [3, 3, 3, 3]


def test_one_prompt_given_twice_cannot_be_split() -> None:
    with pytest.raises(PromptError, match="'math' cannot be split: expected different prompts for each half"):
        split_in_halves(asked(("a", "math"), ("a", "math")))


def test_shared_prompts_are_known_under_other_ids_and_in_other_domains(packs: PromptSet) -> None:
    renamed = PromptSet(replace(prompt, id=None, domain="mixed") for prompt in packs[40:50])
    assert n_shared(packs, renamed.row_keys) == n_shared(packs, [p.key for p in renamed]) == 10
    assert n_shared(PromptSet([replace(packs[0], answer="other")]), packs.row_keys) == 0
