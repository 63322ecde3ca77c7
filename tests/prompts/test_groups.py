"""Groups: prompts that share a picture are one unit, and a logo or a blank ties nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image
from tables import BLUE, RED, from_csv, from_jsonl

from vlm_analysis import Prompt, PromptSet, open_prompts, split_in_halves, write_prompts
from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.groups import make_groups
from vlm_analysis.prompts.halves import n_shared


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8))


def shown(*pictures: tuple[int, ...], **more: object) -> PromptSet:
    """Return prompts of different questions on these pictures, by number."""
    return PromptSet(
        Prompt(tuple(map(picture, numbers)), f"question {place}", **more)  # type: ignore[arg-type]
        for place, numbers in enumerate(pictures)
    )


def partition(prompts: PromptSet) -> list[int]:
    """Return the number of each prompt's group, in order of first appearance."""
    names = prompts.groups.names
    return [list(dict.fromkeys(names)).index(name) for name in names]


def test_prompts_that_share_any_picture_are_connected_through_others_too() -> None:
    assert partition(shown((0,), (1,), (0, 2), (3,), (2, 4), (5,), (6,))) == [0, 1, 0, 2, 0, 3, 4]
    assert shown((0,), (1,), (0,), (2,)).groups.number == 3


def test_prompts_with_their_own_pictures_share_nothing(packs: PromptSet) -> None:
    assert packs.groups.number == len(packs)
    assert packs.groups.shared == packs.groups.common == ()


def test_a_logo_in_more_than_half_of_the_prompts_ties_none_and_is_named() -> None:
    prompts = shown((9, 0), (9, 1), (9, 2), (3,), (3, 4))
    assert partition(prompts) == [0, 1, 2, 3, 3]
    assert prompts.groups.common == (prompts[0].image_hashes[0],)
    half = shown((9, 0), (9, 1), (2,), (3,))  # in half of them, and not in more
    assert partition(half) == [0, 0, 1, 2]
    assert half.groups.common == ()


def test_a_blank_that_all_prompts_show_ties_none_and_a_picture_that_all_ask_about_does() -> None:
    blank = PromptSet(Prompt((BLUE,), question) for question in "abcde")
    assert (blank.groups.number, len(blank.groups.common)) == (5, 1)
    asked = shown(*[(0,)] * 5)
    assert (asked.groups.number, asked.groups.common) == (1, ())
    assert shown((0,)).groups.number == 1


def test_a_given_group_counts_in_place_of_pictures() -> None:
    one, two, three = shown((0,), (0,), (1,))
    prompts = PromptSet([replace(one, group="a"), replace(two, group=" b "), replace(three, group="a")])
    assert prompts.groups.names == ("a", "b", "a")
    some = PromptSet([replace(one, group="a"), two, three])
    assert some.groups.names[0] == "a"
    assert some.groups.number == 3


def test_the_same_prompt_given_twice_is_one_group_whatever_it_shows() -> None:
    prompts = PromptSet(Prompt((BLUE,), question) for question in "abca")
    assert partition(prompts) == [0, 1, 2, 0]


pictures = st.lists(st.lists(st.sampled_from("pqrstuvw"), min_size=1, max_size=3), min_size=1, max_size=12)


@given(pictures, st.randoms())
def test_groups_are_the_components_whatever_the_order(shows: list[list[str]], random) -> None:
    keys = [f"key {place}" for place in range(len(shows))]
    groups = make_groups(keys, shows, [None] * len(shows), lambda _: False)
    tied = [{one for one in its if one not in groups.common} for its in shows]
    for one, name in enumerate(groups.names):
        reached, new = {one}, {one}
        while new:
            new = {b for a in new for b in range(len(shows)) if tied[a] & tied[b]} - reached
            reached |= new
        assert {other for other, its in enumerate(groups.names) if its == name} == reached
    order = list(range(len(shows)))
    random.shuffle(order)
    again = make_groups([keys[n] for n in order], [shows[n] for n in order], [None] * len(shows), lambda _: False)
    assert [again.names[order.index(n)] for n in range(len(shows))] == list(groups.names)


def test_a_group_enters_neither_key_nor_fingerprint_and_comes_back_from_disk(tmp_path) -> None:
    bare = shown((0,), (1,), (2,))
    grouped = PromptSet(replace(prompt, group="a") for prompt in bare)
    assert (grouped.fingerprint, grouped.row_keys) == (bare.fingerprint, bare.row_keys)
    assert '"group"' not in write_prompts(bare, tmp_path / "bare").read_text()
    again = open_prompts(write_prompts(grouped, tmp_path / "grouped"))
    assert [prompt.group for prompt in again] == ["a"] * 3
    assert again.groups == grouped.groups


def test_a_column_gives_groups_and_a_blank_cell_none(tmp_path) -> None:
    for number, one in enumerate((RED, BLUE)):
        one.save(tmp_path / f"{number}.png")
    table = from_csv(tmp_path, "image,question,group\n0.png,a?,7\n1.png,b?,\n1.png,c?, 7 \n")
    assert [prompt.group for prompt in table] == ["7", None, "7"]
    assert table.problems == ()
    (tmp_path / "prompts.csv").unlink()
    row = {"image": "0.png", "question": "a?"}
    lines = from_jsonl(tmp_path, row | {"group": 3}, row | {"question": "b?", "group": ["x"]})
    assert lines[0].group == "3"
    assert "the cell 'group' could not be read" in lines.problems[0].message


def test_halves_share_no_picture_and_know_what_they_share() -> None:
    prompts = shown(*((number % 24,) for number in range(231)))
    for seed in range(3):
        one, other = split_in_halves(prompts, seed)
        assert not {h for p in one for h in p.image_hashes} & {h for p in other for h in p.image_hashes}
        assert abs(len(one) - len(other)) < 22
        assert n_shared(other, one.groups.known) == 0
    assert n_shared(prompts[:120], prompts[120:].groups.known) == 120  # other questions on the same pictures
    with pytest.raises(PromptError, match="on pictures of their own, got 9 in 1 group for one of them only"):
        split_in_halves(shown(*[(0,)] * 9))
