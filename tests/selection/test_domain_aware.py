"""The preset of arXiv:2603.20275: its numbers of layers, its z-scores, and its orders beside a second implementation."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, strategies as st
from oracles import made_recording
from rankings import full_recording

from vlm_analysis import READINGS, Recording, domain_aware_mask, domain_aware_masks, make_mask, score_layers
from vlm_analysis.edits.files import edit_from_json, edit_to_json
from vlm_analysis.errors import MaskError, RecordingError
from vlm_analysis.recording.pooled import Pooled
from vlm_analysis.recording.tasks import tasks_in
from vlm_analysis.selection.strategies.domain_aware import count_dropped, pooled_cka
from vlm_analysis.words import TOKEN_GROUPS

ALL = TOKEN_GROUPS.index("all")
TASKS = ("one", "two", "three", "four")


def with_tasks(n_layers: int = 9, *, seed: int = 0, n_prompts: int = 16) -> Recording:
    """Return a drawn recording of two domains with four tasks each, and pooled states that drift from layer to layer."""
    recording = full_recording(n_prompts, n_layers, ("math", "general"), seed=seed)
    tasks = tuple(TASKS[number // 2 % 4] for number in range(n_prompts))
    recording = replace(recording, tasks=tasks)
    rng, names = np.random.default_rng(seed), tasks_in(recording)
    states = {name: rng.normal(size=(n_layers + 1, 6)).cumsum(0) + 2 for name in dict.fromkeys(names)}
    return replace(recording, pooled={name: Pooled(part, names.count(name)) for name, part in states.items()})


def second(recording: Recording, reading: str, share: float, target: str) -> list[int]:
    """Return the layers that a reading drops, in order, straight from the words of the paper."""
    n_layers = recording.n_layers
    middle = list(range(1, n_layers - 1))
    budget = math.floor(Fraction(str(share)) * len(middle))

    def z(*domains: str) -> dict[int, float]:
        mean = {}
        for layer in middle:
            per_domain = []
            for name in domains:
                passes = [
                    float(row["cosine"][layer, ALL])
                    for row, its in zip(recording.rows, recording.domains, strict=True)
                    if its == name
                ]
                per_domain.append(sum(passes) / len(passes))
            mean[layer] = sum(per_domain) / len(per_domain)
        centre = sum(mean.values()) / len(middle)
        spread = math.sqrt(sum((value - centre) ** 2 for value in mean.values()) / len(middle))
        return {layer: (value - centre) / spread for layer, value in mean.items()}

    others = [name for name in recording.domain_names if name != target]
    rows = np.stack([part.sums / part.n_prompts for part in recording.pooled.values()])
    if reading == "domain-aware-interlace":
        cosine = [
            [one @ two / np.linalg.norm(one) / np.linalg.norm(two) for one, two in pairwise(task)] for task in rows
        ]
        s = np.mean(cosine, axis=0)
        apart = [
            [one @ two / np.linalg.norm(one) / np.linalg.norm(two) for one, two in zip(task, task[2:], strict=False)]
            for task in rows
        ]
        s_2 = np.mean(apart, axis=0)
        order, used = [], set()
        for size, value in (
            (3, {i: (s[i] + s[i + 1]) / 2 for i in middle[:-2]}),
            (2, {i: s_2[i] for i in middle[:-1]}),
        ):
            for start in sorted(value, key=lambda i: -value[i]):
                group = set(range(start, start + size))
                if not group & used and len(order) < budget:
                    used |= group
                    order.append(start if s[start] >= s[start + 1] else start + 1)
        rest = [layer for layer in middle if layer not in order]
        return order + sorted(rest, key=lambda i: (i in used, -s[i]))[: budget - len(order)]
    if reading == "domain-aware-cka":
        centred = rows - rows.mean(axis=0)
        value = {}
        for layer in middle:
            x, y = centred[:, layer], centred[:, layer + 1]
            value[layer] = np.linalg.norm(y.T @ x) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)
    elif reading == "domain-aware-mixed":
        own, other = z(target), z(*others)
        value = {layer: 0.7 * other[layer] + 0.3 * own[layer] for layer in middle}
    else:
        value = z(target) if reading == "domain-aware-target" else z(*others)
    return sorted(middle, key=lambda layer: -value[layer])[:budget]


@pytest.mark.parametrize(
    ("n_layers", "counts"), [(28, (2, 6, 10)), (36, (3, 8, 13)), (16, (1, 3, 5))], ids=["2B", "4B", "Pocket-VL"]
)
def test_the_numbers_of_layers_are_those_of_the_paper(n_layers: int, counts: tuple[int, ...]) -> None:
    assert tuple(count_dropped(n_layers, share) for share in (0.1, 0.25, 0.4)) == counts


def test_shares_are_exact() -> None:
    assert int(0.29 * 100) == 28
    assert count_dropped(102, 0.29) == 29
    assert count_dropped(5, Fraction(1, 3)) == 1


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan, "half", True])
def test_a_share_that_is_none_is_refused(share: object) -> None:
    with pytest.raises(MaskError, match=r"expected a number in \[0, 1\]"):
        count_dropped(16, share)  # type: ignore[arg-type]


@given(
    st.integers(4, 14),
    st.sampled_from(
        [
            "domain-aware-target",
            "domain-aware-others",
            "domain-aware-mixed",
            "domain-aware-cka",
            "domain-aware-interlace",
        ]
    ),
    st.sampled_from([0.1, 0.25, 0.4, 0.9]),
    st.sampled_from(["math", "general"]),
    st.integers(0, 50),
)
def test_every_order_is_that_of_the_second_implementation(n_layers, reading, share, target, seed) -> None:
    recording = with_tasks(n_layers, seed=seed, n_prompts=8)
    mask = domain_aware_mask(recording, reading, share, target=target)
    assert mask.provenance["drop_order"] == second(recording, reading, share, target)


def test_z_over_the_pruneable_layers_is_another_than_z_over_the_free_or_over_all() -> None:
    """The last layers of the other domain are so unlike that they would drown what is between its middle layers."""
    rows = [("math", [0.5, 0.9, 0.6, 0.5, 0.5]), ("general", [-1.0, 0.6, 0.62, 0.5, -1.0])]
    recording = made_recording(rows)
    ours = score_layers(recording, "mixed-others", target="math", weight=0.7)
    assert make_mask(ours, "first-k", 1).dropped == (1,)
    assert domain_aware_mask(recording, share=0.34, target="math").dropped == (2,)
    within = recording.layer_similarity("general")[1:-1]
    free = recording.layer_similarity("general")[2:-1]
    assert (within - within.mean())[1] / within.std() != (free - free.mean())[0] / free.std()


def test_cka_is_that_of_numpy_on_the_centred_rows() -> None:
    recording = with_tasks(seed=3)
    rows = np.stack([part.sums / part.n_prompts for part in recording.pooled.values()])
    for layer, found in enumerate(pooled_cka(recording)):
        x, y = (rows[:, place] - rows[:, place].mean(axis=0) for place in (layer, layer + 1))
        k, l = x @ x.T, y @ y.T  # noqa: E741
        assert found == pytest.approx(np.trace(k @ l) / math.sqrt(np.trace(k @ k) * np.trace(l @ l)), rel=1e-12)


def test_first_and_last_stay_deepstack_goes_and_the_switch_keeps_it_and_the_number() -> None:
    recording = with_tasks(16)
    protected = {0: "first", 1: "DeepStack: one", 2: "DeepStack: two", 15: "last"}
    recording = replace(recording, model=replace(recording.model, protected=protected))
    free = domain_aware_mask(recording, share=0.9)
    assert free.budget == 12
    assert {1, 2} & set(free.dropped)
    assert not {0, 15} & set(free.dropped)
    kept = domain_aware_mask(recording, share=0.4, keep_deepstack=True)
    assert kept.budget == domain_aware_mask(recording, share=0.4).budget == 5
    assert not {0, 1, 2, 15} & set(kept.dropped)
    assert (kept.provenance["keep_deepstack"], kept.provenance["pruneable"]) == (True, list(range(1, 15)))
    with pytest.raises(MaskError, match="Cannot drop 12 layers: 11 may go"):
        domain_aware_mask(recording, share=0.9, keep_deepstack=True, keep=(7,))


def test_everything_that_was_chosen_is_in_the_provenance_and_in_the_file() -> None:
    mask = domain_aware_mask(with_tasks(16), "domain-aware-mixed", 0.25, target="general")
    told = mask.provenance
    assert (told["share"], told["budget"], told["weight"], told["target"]) == ("1/4", 3, 0.7, "general")
    assert (told["token_group"], told["preset"]) == ("all", "Domain-aware, as in arXiv:2603.20275")
    assert edit_from_json(edit_to_json(mask)).provenance == told


def test_what_is_missing_is_said() -> None:
    plain = full_recording()
    with pytest.raises(RecordingError, match="expected prompts of 3 to 64 tasks, got 0"):
        domain_aware_mask(plain, "domain-aware-cka")
    with pytest.raises(RecordingError, match=r"without\. Record the prompts again"):
        domain_aware_mask(replace(with_tasks(), pooled={}), "domain-aware-interlace")
    with pytest.raises(RecordingError, match=r"without\. Record the prompts again"):
        domain_aware_mask(replace(with_tasks(), tasks=("one", "two", "three", "else") * 4), "domain-aware-cka")
    with pytest.raises(MaskError, match="at least two, got only 'math'"):
        domain_aware_mask(full_recording(domains=("math",)))
    with pytest.raises(MaskError, match="Unknown reading"):
        domain_aware_mask(plain, "mixed")


def test_all_masks_of_the_preset_are_ways_to_compare() -> None:
    recording = with_tasks(16)
    ways, refused = domain_aware_masks(recording)
    assert refused == {}
    assert {way.strategy for way in ways} == set(READINGS)
    assert {way.budget for way in ways} == {1, 3, 5}
    by_target = {(way.strategy, way.target) for way in ways if way.target}
    assert by_target == set(product(list(READINGS)[:3], ("math", "general")))
    assert sum(way.strategy == "random-draw" for way in ways) == 15
    some, refused = domain_aware_masks(full_recording(), (0.25, 0.26))
    assert {way.budget for way in some} == {1}
    assert list(refused) == ["CKA over tasks, arXiv:2603.20275", "Interlace over tasks, arXiv:2603.20275"]
