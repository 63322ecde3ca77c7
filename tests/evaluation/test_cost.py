"""Measured cost: what is counted, what takes turns, what is timed, and that the model is left as it was."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles import ask
from safetensors import safe_open

from vlm_analysis import (
    Adapt,
    Cancelled,
    Edit,
    Fold,
    LoadedModel,
    PromptSet,
    PruneMask,
    Tensors,
    export_checkpoint,
    measure_cost,
    measure_costs,
    open_cost,
    save_cost,
    speedup,
)
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.errors import EvaluationError, MaskError
from vlm_analysis.evaluation.cost import flops_without
from vlm_analysis.evaluation.run.timing import LAYER_ROUNDS, budget_masks, count_weights
from vlm_analysis.models.layers import find_decoder_layers
from vlm_analysis.progress import stoppable

MASK = PruneMask(16, (5, 9))
SMALL = PruneMask(8, (5, 6))
QUICK = {"rounds": 2, "new_tokens": 3}
WIDTHS = {"F32": 4, "BF16": 2, "F16": 2}


def n_hooks(loaded: LoadedModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in loaded.model.modules())


@contextmanager
def noted_calls(loaded: LoadedModel, *layers: int) -> Iterator[list[tuple[int, int]]]:
    """Yield (layer, tokens it is given) of every call of some layers; a pruned view made meanwhile notes its calls too."""
    calls: list[tuple[int, int]] = []

    def note(layer: int) -> Any:
        return lambda module, args, output: calls.append((layer, output.shape[1]))

    handles = [find_decoder_layers(loaded.model)[layer].register_forward_hook(note(layer)) for layer in layers]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def test_a_cost_says_what_was_measured_and_leaves_no_hook(loaded: LoadedModel, few: PromptSet) -> None:
    before = n_hooks(loaded)
    cost = measure_cost(loaded, few[:2], MASK, **QUICK)
    assert n_hooks(loaded) == before
    assert (cost.edit, cost.model.fingerprint, cost.device, cost.rounds) == (MASK, loaded.fingerprint, "cpu", 2)
    assert (cost.n_prompts, cost.new_tokens) == (2, 3)
    assert cost.layer_shares.shape == (2, 16)
    assert (cost.layer_shares > 0).all()
    assert (cost.layer_shares.sum(axis=1) < 1).all()
    assert cost.prompt_tokens == np.mean([ask(loaded, prompt)["input_ids"].shape[1] for prompt in few[:2]])


def test_parameters_and_bytes_are_those_of_the_exported_files(
    loaded: LoadedModel, few: PromptSet, tmp_path: Path
) -> None:
    cost = measure_cost(loaded, few[:1], MASK, rounds=1, new_tokens=2)
    unique = {parameter.data_ptr(): parameter for parameter in loaded.model.parameters()}
    layers = find_decoder_layers(loaded.model)
    gone = [parameter for layer in MASK.dropped for parameter in layers[layer].parameters()]
    dense = sum(parameter.numel() for parameter in unique.values())
    assert cost.n_parameters == (dense, dense - sum(parameter.numel() for parameter in gone))
    assert cost.n_bytes[0] == loaded.n_bytes
    export_checkpoint(loaded, MASK, tmp_path / "pruned", verify=False)
    written = 0
    for path in (tmp_path / "pruned").glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            tensors = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118 - not a dictionary
            written += sum(int(np.prod(one.get_shape())) * WIDTHS[one.get_dtype()] for one in tensors)
    assert written == cost.n_bytes[1]


def test_tied_weights_are_counted_once(loaded: LoadedModel) -> None:
    assert loaded.model.config.tie_word_embeddings
    held = loaded.model.state_dict()
    assert sum(tensor.numel() for tensor in held.values()) > count_weights(loaded.model)[0]


def test_what_was_learnt_adds_nothing_to_what_a_mask_costs(small: LoadedModel, few: PromptSet, tmp_path: Path) -> None:
    down = find_decoder_layers(small.model)[4].mlp.down_proj
    update = {"7.mlp.down_proj.A": np.ones((2, down.in_features)), "7.mlp.down_proj.B": np.ones((down.out_features, 2))}
    fold = Fold(4, Tensors.of({"mlp.down_proj": np.eye(down.out_features)}), learnt_on=SMALL.key)
    edit = Edit(8, (*SMALL.changes, fold, Adapt(Tensors.of(update), ("7.mlp.down_proj",), 1e-3)))
    before = count_weights(small.model), n_hooks(small)
    cost = measure_cost(small, few[:1], edit, rounds=1, new_tokens=2)
    assert (count_weights(small.model), n_hooks(small)) == before
    assert (cost.n_parameters[1], cost.n_bytes[1]) == count_weights(apply_edit(small.model, SMALL))
    assert edit.saved_parameters(small.info) == SMALL.saved_parameters(small.info)
    assert open_cost(save_cost(cost, tmp_path / "cost.json")).edit == edit


def test_models_take_turns_and_each_writes_all_its_tokens(small: LoadedModel, few: PromptSet) -> None:
    with noted_calls(small, 4, 5) as calls:
        measure_cost(small, few[:1], SMALL, rounds=4, new_tokens=6)
    n_tokens = max(tokens for _, tokens in calls)
    runs = "".join("p" if tokens == n_tokens else "t" for layer, tokens in calls if layer == 4)
    one = "pp" + "t" * 5  # a prefill by itself, then writing: a prefill and five passes of one token
    assert runs == "ppp" + one * (
        2 * (4 + 1) + LAYER_ROUNDS
    )  # first a trial of the prompt, and a look at the cache of both
    del calls[:5]
    of_dense = [calls[at + 1][0] == 5 for at, (layer, tokens) in enumerate(calls) if (layer, tokens) == (4, n_tokens)]
    turns = "".join("D" if is_dense else "P" for is_dense in of_dense[::2])
    assert turns == "DP PD(D) DP(D) PD(D) DP".translate(str.maketrans("", "", " ()"))


def test_no_round_begins_after_the_given_time_and_each_is_told(small: LoadedModel, few: PromptSet) -> None:
    told: list[list[int]] = []
    (cost,) = measure_costs(
        small,
        few[:1],
        [SMALL],
        rounds=5,
        new_tokens=2,
        most_s=0,
        on_partial=lambda costs: told.append([one.rounds for one in costs]),
    )
    assert (cost.rounds, told) == (1, [[1]])


def test_flops_of_a_token_are_twice_the_weights_it_meets_in_the_layers(loaded: LoadedModel) -> None:
    weights = [sum(one.numel() for one in layer.parameters()) for layer in find_decoder_layers(loaded.model)]
    assert flops_without(loaded.info, MASK) == (
        2 * sum(weights),
        2 * (sum(weights) - sum(weights[i] for i in MASK.gone)),
    )


def test_many_masks_share_the_dense_times(loaded: LoadedModel, few: PromptSet) -> None:
    masks = [MASK, PruneMask(16, (3, 4, 5, 6))]
    with noted_calls(loaded, 4, 9) as calls:
        costs = measure_costs(loaded, few[:1], masks, rounds=1, new_tokens=2)
    assert [cost.edit for cost in costs] == masks
    np.testing.assert_array_equal(costs[0].prefill_ms[0], costs[1].prefill_ms[0])
    np.testing.assert_array_equal(costs[0].tokens_per_s[0], costs[1].tokens_per_s[0])
    passes = 1 + 2
    expected = 1 + 2 + passes * (2 + 2 + 1)  # a trial; caches and times of dense and one mask; layers timed once
    assert [layer for layer, _ in calls].count(4) == [layer for layer, _ in calls].count(9) == expected


def test_a_slow_layer_is_seen_in_its_share_and_in_what_dropping_it_saves(
    small: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = dataclasses.replace(small, model=copy.deepcopy(small.model))
    now = [0.0]  # of a clock that goes on when it is read, and by what the slow layer takes

    def moment(device: object) -> float:
        now[0] += 1e-3
        return now[0]

    def work(*_: Any) -> None:
        now[0] += 0.1

    for module in ("latency", "timing"):
        monkeypatch.setattr(f"vlm_analysis.evaluation.run.{module}.moment", moment)
    find_decoder_layers(slow.model)[5].mlp.register_forward_pre_hook(work)
    cost = measure_cost(slow, few[:1], PruneMask(8, (5,)), rounds=3, new_tokens=3)
    for phase in ("prefill", "decode"):
        assert cost.layer_shares[("prefill", "decode").index(phase)].argmax() == 5
        assert cost.expected_share(phase) < 0.6
        value, low, high = speedup(cost, phase)
        assert 1.5 < low <= value <= high
    assert cost.ms("decode")[0].min() > 100
    assert cost.prefill_ms[0].min() > 100


def test_cancel_works_between_passes_and_between_tokens(small: LoadedModel, few: PromptSet) -> None:
    before, told = n_hooks(small), []

    def stop(done: int, total: int, message: str) -> None:
        told.append((done, total, message))
        if done == 6:
            raise Cancelled

    with pytest.raises(Cancelled):
        measure_cost(small, few[:2], SMALL, **QUICK, on_progress=stop)
    assert [done for done, _, _ in told] == list(range(7))
    assert {total for _, total, _ in told} == {2 * (3 * 2 + 2)}
    assert [told[at][2] for at in (0, 4, 6)] == ["warming up", "round 1 of 2", "round 1 of 2, timing layers"]
    assert n_hooks(small) == before


@pytest.mark.parametrize(("slow_s", "more"), [(1e9, 2 * 14), (0.0, 3)], ids=["short passes", "long passes"])
def test_a_cancel_in_a_prefill_waits_for_the_next_token_or_in_a_long_one_for_the_next_layer(
    loaded: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch, slow_s: float, more: int
) -> None:
    monkeypatch.setattr("vlm_analysis.evaluation.run.timing.SLOW_S", slow_s)
    before, begun = n_hooks(loaded), []

    def note(done: int, total: int, message: str) -> None:
        if message == "round 1 of 1" and not begun:  # its first model is the pruned one, of 14 layers
            begun.append(len(calls))

    def check() -> None:
        if begun and len(calls) >= begun[0] + 3:  # cancelled in the third layer of the prefill
            raise Cancelled

    with noted_calls(loaded, *range(16)) as calls, stoppable(check), pytest.raises(Cancelled):
        measure_cost(loaded, few[:1], MASK, rounds=1, new_tokens=6, on_progress=note)
    assert len(calls) == begun[0] + more
    assert n_hooks(loaded) == before


def test_a_cancel_while_warming_up_waits_for_the_next_layer(loaded: LoadedModel, few: PromptSet) -> None:
    def check() -> None:
        if len(calls) == 3:
            raise Cancelled

    with noted_calls(loaded, *range(16)) as calls, stoppable(check), pytest.raises(Cancelled):
        measure_cost(loaded, few[:1], MASK, **QUICK)
    assert len(calls) == 3


def test_progress_ends_where_it_said(small: LoadedModel, few: PromptSet) -> None:
    told: list[tuple[int, int]] = []
    measure_cost(small, few[:1], SMALL, **QUICK, on_progress=lambda done, total, _: told.append((done, total)))
    assert told == [(done, 8) for done in range(8)]


@pytest.mark.parametrize(
    ("asked", "count"), [({"rounds": 0}, 1), ({"rounds": 1001}, 1), ({"new_tokens": 1}, 1), ({}, 0)]
)
def test_too_little_or_too_much_to_measure_is_refused(
    loaded: LoadedModel, few: PromptSet, asked: dict[str, int], count: int
) -> None:
    with pytest.raises(EvaluationError, match="at least"):
        measure_cost(loaded, list(few)[:count], MASK, **asked)


def test_a_mask_of_another_model_is_refused(loaded: LoadedModel, few: PromptSet) -> None:
    with pytest.raises(MaskError, match="does not fit"):
        measure_cost(loaded, few[:1], PruneMask(8, (3,)))


def test_budgets_go_through_the_mask_up_to_half_the_layers(loaded: LoadedModel) -> None:
    masks = budget_masks(loaded, MASK)
    assert [mask.budget for mask in masks] == [2, 3, 5, 6, 8]
    assert MASK in masks
    assert all(set(MASK.dropped) <= set(mask.dropped) for mask in masks)
    assert not {0, 1, 15} & set(masks[-1].dropped)
    for mask in masks:
        apply_edit(loaded.model, mask)
    large = PruneMask(16, tuple(range(2, 13)))
    assert budget_masks(loaded, large)[-1] == large
    assert {mask.budget for mask in budget_masks(loaded, large)} == {2, 3, 5, 6, 8, 11}
