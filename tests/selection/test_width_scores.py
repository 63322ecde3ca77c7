"""Scores of neurons and attention groups against true weight gradients and finite differences, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from oracles import ask, changed_copy, ids_of
from tuned import state_of

from vlm_analysis import (
    Cancelled,
    LoadedModel,
    PromptSet,
    WidthScores,
    apply_edit,
    make_narrow,
    record,
    score_width,
)
from vlm_analysis.errors import EditError
from vlm_analysis.evaluation.pivots import find_pivots, in_windows
from vlm_analysis.models.decoding import decode, token_spans

LAYERS, HEAD, PER_GROUP, N_GROUPS = (0, 5), 24, 2, 2  # layers that are checked; Pocket-VL's heads
ZERO, TWIN, COPY = (3, 7), (4, 10), (4, 20)  # a neuron without a column, and one whose halves stand in two places


@pytest.fixture(scope="module")
def exact(small: LoadedModel) -> LoadedModel:
    """The small model in float64, with a neuron that writes nothing and one that stands in two places."""
    loaded = changed_copy(small)
    model = loaded.model.double()
    mlp = model.get_decoder().layers[ZERO[0]].mlp
    with torch.no_grad():
        mlp.down_proj.weight[:, ZERO[1]] = 0
        mlp = model.get_decoder().layers[TWIN[0]].mlp
        mlp.down_proj.weight[:, TWIN[1]] /= 2
        for one in (mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight.T):
            one[COPY[1]] = one[TWIN[1]]
    return LoadedModel(model, loaded.processor, loaded.name, loaded.source, loaded.max_vision_tokens)


@pytest.fixture(scope="module")
def pair(packs: PromptSet) -> PromptSet:
    """A prompt answered in steps and one answered in a word."""
    return packs[2:4]


@pytest.fixture(scope="module")
def scores(exact: LoadedModel, pair: PromptSet) -> WidthScores:
    return score_width(exact, pair, window=1, seed=0)


def nlls(loaded: LoadedModel, prompt: Any) -> torch.Tensor:
    """Return the NLL of each answer token, from the model's own forward."""
    ids = ids_of(loaded, prompt.answer)
    inputs = {name: one.double() if one.is_floating_point() else one for name, one in ask(loaded, prompt, ids).items()}
    logits = loaded.model(**inputs).logits[0, -len(ids) - 1 : -1]
    return -logits.log_softmax(-1)[range(len(ids)), ids]


def by_weight_gradients(loaded: LoadedModel, prompt: Any) -> dict[tuple[int, str], np.ndarray]:
    """Return w · gradient of each token's NLL, (n_tokens, n_units), from gradients of the weights themselves."""
    found: dict[tuple[int, str], list[np.ndarray]] = {}
    layers = loaded.model.get_decoder().layers
    for one in nlls(loaded, prompt):
        pairs = {}
        for at in LAYERS:
            mlp, attention = layers[at].mlp, layers[at].self_attn
            weights = [
                mlp.gate_proj.weight,
                mlp.up_proj.weight,
                mlp.down_proj.weight,
                attention.q_proj.weight,
                attention.o_proj.weight,
            ]
            pairs[at] = [
                (own * grad).detach()
                for own, grad in zip(weights, torch.autograd.grad(one, weights, retain_graph=True), strict=True)
            ]
        for at, (gate, up, down, query, out) in pairs.items():
            rows = query.sum(1).reshape(N_GROUPS, -1).sum(1) + out.sum(0).reshape(N_GROUPS, -1).sum(1)
            found.setdefault((at, "neurons"), []).append((gate.sum(1) + up.sum(1) + down.sum(0)).numpy())
            found.setdefault((at, "kv_groups"), []).append(rows.numpy())
    return {place: np.stack(parts) for place, parts in found.items()}


def test_scores_are_sums_of_absolute_products_of_weights_and_their_gradients(exact, pair, scores):
    fast = score_width(exact, pair, window=1, fast=True)
    windows = []
    for prompt in pair:
        ids = ids_of(exact, prompt.answer)
        spans = token_spans(exact, ids)
        assert decode(exact, ids) == prompt.answer
        starts = [
            next(at for at, (_, end) in enumerate(spans) if end > one.start) for one in find_pivots(prompt.answer)
        ]
        windows.append(in_windows(len(ids), starts, 1))
    assert windows[0].sum() == 8 < len(windows[0])  # two steps and a conclusion
    products = [by_weight_gradients(exact, prompt) for prompt in pair]
    for place in products[0]:
        layer, unit = place
        per_token = [one[place] for one in products]
        near = [one[window] for one, window in zip(per_token, windows, strict=True)]
        tight = {"rtol": 1e-4, "atol": 1e-9}  # norms run in float32, also in a model of float64
        np.testing.assert_allclose(
            scores.values("taylor", unit)[layer], sum(np.abs(one).sum(0) for one in per_token), **tight
        )
        np.testing.assert_allclose(
            scores.values("pivot", unit)[layer], sum(np.abs(one).sum(0) for one in near), **tight
        )
        np.testing.assert_allclose(
            fast.values("taylor", unit)[layer], sum(np.abs(one.sum(0)) for one in per_token), **tight
        )
        np.testing.assert_allclose(fast.values("pivot", unit)[layer], sum(np.abs(one.sum(0)) for one in near), **tight)
    assert (scores.answers, scores.tokens, scores.how, fast.how) == ((1, 0, 1), (17, 8), "exact", "fast")
    assert (np.concatenate(scores.values("random_pivot")) <= np.concatenate(scores.values("taylor")) + 1e-12).all()
    assert not np.concatenate(fast.values("random_pivot")).any()  # none were drawn


def test_an_answer_tokens_products_are_its_finite_differences_within_one_percent(exact, pair):
    products, step = by_weight_gradients(exact, pair[0]), 3e-3
    layer = exact.model.get_decoder().layers[LAYERS[1]]
    neuron = int(np.argmax(np.abs(products[LAYERS[1], "neurons"]).sum(0)))
    heads = slice(0, PER_GROUP * HEAD)
    mlp, attention = layer.mlp, layer.self_attn
    units = {
        ("neurons", neuron): [
            mlp.gate_proj.weight[neuron],
            mlp.up_proj.weight[neuron],
            mlp.down_proj.weight[:, neuron],
        ],
        ("kv_groups", 0): [attention.q_proj.weight[heads], attention.o_proj.weight[:, heads]],
    }
    for (unit, at), weights in units.items():
        ends = []
        with torch.no_grad():
            for factor in (1 + step, (1 - step) / (1 + step)):
                for weight in weights:
                    weight.mul_(factor)
                ends.append(nlls(exact, pair[0]).numpy())
            for weight in weights:
                weight.div_(1 - step)
        found = products[LAYERS[1], unit][:, at]
        np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), found, rtol=0.01, atol=1e-2 * np.abs(found).max())


def test_a_neuron_that_writes_nothing_goes_first_and_the_halves_of_one_score_alike(scores):
    neurons = scores.values("taylor")
    assert neurons[ZERO[0]][ZERO[1]] == 0 == scores.values("pivot")[ZERO[0]][ZERO[1]]
    (change,) = make_narrow(scores, 0.0005, units=("neurons",)).changes
    assert ZERO[1] not in dict(change.neurons)[ZERO[0]]
    np.testing.assert_allclose(neurons[TWIN[0]][TWIN[1]], neurons[COPY[0]][COPY[1]], rtol=1e-9)
    assert neurons[TWIN[0]][TWIN[1]] > 0


def test_what_protects_layers_is_the_recordings_and_magnitude_the_norm_of_the_weights(exact, pair, scores):
    recording = record(exact, pair)
    np.testing.assert_allclose(scores.cmds, recording.cross_modal_distance(), rtol=1e-6)
    np.testing.assert_allclose(scores.sens, recording.layer_values("output_rms"), rtol=1e-6)
    mlp = exact.model.get_decoder().layers[2].mlp
    squares = (mlp.gate_proj.weight**2).sum(1) + (mlp.up_proj.weight**2).sum(1) + (mlp.down_proj.weight**2).sum(0)
    np.testing.assert_allclose(scores.values("magnitude")[2], squares.sqrt().detach().numpy(), rtol=1e-9)


@pytest.mark.parametrize("mode", ["uniform", "global"])
def test_the_narrow_model_lacks_the_share_of_parameters_within_one_unit(small, scores, mode):
    edit = make_narrow(scores, 0.2, mode)
    layers = apply_edit(small.model, edit).get_decoder().layers
    whole = sum(scores.model.layer_parameters)
    left = sum(parameter.numel() for parameter in layers.parameters())
    step = scores.model.widths[0].neuron_parameters * (1 if mode == "global" else len(layers))
    assert 0 <= left - 0.8 * whole < step
    for layer in layers:
        assert layer.self_attn.q_proj.out_features == PER_GROUP * layer.self_attn.k_proj.out_features


def test_the_dense_model_stays_as_it_was_also_where_scoring_is_stopped(small, packs):
    before = state_of(small.model)
    with pytest.raises(Cancelled):
        score_width(small, packs[3:5], batch_size=1, on_progress=stop)
    assert state_of(small.model) == before
    with torch.no_grad():
        assert not nlls_of_float32(small, packs[3]).requires_grad


def stop(done: int, total: int, message: str) -> None:
    if message.startswith("scoring"):
        raise Cancelled


def nlls_of_float32(loaded: LoadedModel, prompt: Any) -> torch.Tensor:
    return loaded.model(**ask(loaded, prompt, ids_of(loaded, prompt.answer))).logits


@pytest.mark.parametrize(
    ("options", "said"),
    [({"window": 0}, "a whole number in 1..1,000,000 as window"), ({"sides": "left"}, "one of each, all as sides")],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(small, packs, options, said):
    with pytest.raises(EditError, match=said):
        score_width(small, packs[:1], **options)


def test_weights_that_give_no_gradients_are_refused_with_the_reason(small, packs):
    loaded = changed_copy(small)
    loaded.model.config.quantization_config = {"quant_method": "made-up"}
    with pytest.raises(EditError, match="quantised with made-up"):
        score_width(loaded, packs[:1])
    routed = changed_copy(small)
    for layer in routed.model.get_decoder().layers:
        layer.mlp.experts = torch.nn.Parameter(torch.zeros(2, 3, 4))
        del layer.self_attn.q_proj
    with pytest.raises(EditError, match="routes tokens to experts"):
        score_width(routed, packs[:1])
