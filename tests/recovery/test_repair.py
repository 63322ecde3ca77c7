"""What a repair gets back, on models whose dropped layers do what the test says, and on the bundled one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from oracles import ask, changed_copy, same_weights, weights_of

from vlm_analysis import Edit, Fold, LoadedModel, PromptSet, PruneMask, Tensors, apply_edit, evaluate, repair
from vlm_analysis.errors import EditError, PromptError
from vlm_analysis.recovery.closed_form import REPAIR, why_not_repaired

N, RUN, AFTER = 8, (4, 5), 3  # layers of `small`, the run that is dropped, and the layer before it
DOWN = "mlp.down_proj"


class Adds(torch.nn.Module):
    """Stands where a layer stood and adds a linear map of what is kept in a list, or of its input."""

    def __init__(self, left: torch.Tensor, of: list[torch.Tensor] | None) -> None:
        super().__init__()
        self.left, self.of = left, of

    def forward(self, hidden_states: torch.Tensor, **_: Any) -> torch.Tensor:
        return hidden_states + (hidden_states if self.of is None else self.of[-1]) @ self.left.T


def made_of(small: LoadedModel, *, of_stream: bool = False) -> LoadedModel:
    """Return the model in float64 whose layers of the run add linear maps of what the MLP before them wrote, or of the stream."""
    loaded = changed_copy(small)
    loaded.model.double()
    layers = loaded.model.get_decoder().layers
    wrote: list[torch.Tensor] = []
    layers[AFTER].mlp.register_forward_hook(lambda _, __, output: wrote.append(output) or None)
    size = layers[AFTER].mlp.down_proj.out_features
    for seed, layer in enumerate(RUN):
        left = 0.3 * torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        layers[layer] = Adds(left / size**0.5, None if of_stream else wrote)
    return LoadedModel(loaded.model, loaded.processor, loaded.name, loaded.source, loaded.max_vision_tokens)


def logits(loaded: LoadedModel, model: Any, prompt: Any) -> torch.Tensor:
    inputs = {
        name: value.double() if value.is_floating_point() else value for name, value in ask(loaded, prompt).items()
    }
    with torch.no_grad():
        return model(**inputs).logits


@pytest.fixture(scope="module")
def linear(small: LoadedModel) -> LoadedModel:
    return made_of(small)


def test_layers_that_map_what_the_mlp_before_them_wrote_come_back_whole(linear, few):
    before = weights_of(linear.model)
    mask = PruneMask(N, RUN, name="mine")
    edit = repair(linear, mask, few[:4], penalty=0)
    whole = logits(linear, linear.model, few[4])
    assert (logits(linear, apply_edit(linear.model, mask), few[4]) - whole).abs().max() > 1e-2
    torch.testing.assert_close(logits(linear, apply_edit(linear.model, edit), few[4]), whole, rtol=1e-6, atol=1e-6)
    assert same_weights(linear.model, before)
    assert (edit.dropped, [change.layer for change in edit.changes[1:]]) == (RUN, [AFTER])
    assert (edit.changes[1].learnt_on, edit.name) == (mask.key, "mine, repaired (ridge)")
    (run,) = edit.provenance[REPAIR]["runs"]
    assert (run["dropped"], run["layer"], run["module"]) == ([4, 5], 3, DOWN)
    assert run["gap_left"] < 1e-12
    assert why_not_repaired(edit) == {}


def test_layers_that_map_the_stream_do_not_come_back(small, few):
    loaded = made_of(small, of_stream=True)
    mask, whole = PruneMask(N, RUN), logits(loaded, loaded.model, few[4])
    views = [apply_edit(loaded.model, edit) for edit in (mask, repair(loaded, mask, few[:4], penalty=0))]
    cut, repaired = ((logits(loaded, view, few[4]) - whole).norm() for view in views)
    assert repaired > 0.1 * cut


def test_the_fold_is_numpys_least_squares_over_the_states(small, few):
    """States are taken by hand: what the MLP writes and the stream before and behind the run, of all tokens of each prompt."""
    few = PromptSet([replace(prompt, answer=None) for prompt in few[:4]])
    loaded = made_of(small)
    layers = loaded.model.get_decoder().layers
    wrote, streams = [], {RUN[0]: [], RUN[-1] + 1: []}
    handles = [layers[AFTER].mlp.register_forward_hook(lambda _, __, output: wrote.append(output[0].numpy()))]
    for layer, kept in streams.items():
        handles.append(
            layers[layer].register_forward_pre_hook(lambda _, args, kept=kept: kept.append(args[0][0].numpy()))
        )
    for prompt in few:
        logits(loaded, loaded.model, prompt)
    for handle in handles:
        handle.remove()
    rows, missing = np.concatenate(wrote), np.concatenate(streams[6]) - np.concatenate(streams[4])
    for penalty in (0.0, 0.01):
        pull = np.sqrt(penalty * np.square(rows).sum() / rows.shape[1]) * np.eye(rows.shape[1])
        by_hand = np.linalg.lstsq(np.vstack([rows, pull]), np.vstack([missing, 0 * pull]), rcond=None)[0].T + np.eye(
            len(pull)
        )
        found = repair(loaded, PruneMask(N, RUN), few, penalty=penalty).changes[1].tensors.read()[DOWN]
        np.testing.assert_allclose(found, by_hand, atol=1e-8)


def test_runs_are_repaired_first_to_last_on_what_is_repaired_already(small, few):
    few = few[:2]
    both = repair(small, PruneMask(N, (2, 5)), few)
    first = repair(small, PruneMask(N, (2,)), few)
    assert [change.layer for change in both.changes[1:]] == [1, 4]
    assert both.changes[1].tensors == first.changes[1].tensors
    alone = repair(small, PruneMask(N, (5,)), few)
    assert both.changes[2].tensors != alone.changes[1].tensors
    by_hand = repair(small_with(small, first), PruneMask(N - 1, (4,)), few)
    assert both.changes[2].tensors == by_hand.changes[1].tensors


def small_with(small: LoadedModel, edit: Edit) -> LoadedModel:
    return LoadedModel(apply_edit(small.model, edit), small.processor, "with", small.source, small.max_vision_tokens)


@pytest.mark.parametrize("how", ["ridge", "scale", "subspace"])
def test_the_bundled_model_is_repaired_and_told_apart(loaded, few, how):
    mask = PruneMask(16, (5, 9, 10))
    edit = repair(loaded, mask, few, how)
    assert [change.layer for change in edit.changes[1:]] == [4, 8]
    assert len({edit.key, mask.key, repair(loaded, mask, few[:3], how).key}) == 3
    assert repair(loaded, mask, few, how) == edit
    dense = evaluate(loaded, few)
    kl = [evaluate(loaded, few, one, reference=dense).by_prompt["kl_to_dense"].mean() for one in (mask, edit)]
    if how == "ridge":
        assert kl[1] < kl[0], "on the prompts it was fitted on"
    told = edit.provenance[REPAIR]
    assert (told["how"], told["n_prompts"], told["prompts"]) == (how, 6, few.fingerprint)
    assert few.fingerprint in edit.chosen_on


def test_a_run_without_a_layer_before_it_stays_as_it_was(small, few):
    edit = repair(small, PruneMask(N, (0, 4)), few[:1])
    assert [change.layer for change in edit.changes[1:]] == [3]
    assert why_not_repaired(edit) == {"layer 0": "no layer before it is kept"}
    none = repair(small, PruneMask(N, (0, 1), name="mine"), few[:1])
    assert (none, none.name) == (PruneMask(N, (0, 1)), "mine")
    assert why_not_repaired(none) == {"layers 0 and 1": "no layer before it is kept"}


def test_what_cannot_be_repaired_is_said_at_once(small, few):
    with pytest.raises(EditError, match="got one that drops none"):
        repair(small, Edit(N), few)
    with pytest.raises(EditError, match="nothing learnt yet, got one that folds a linear map into layer 3"):
        repair(small, Edit(N, (*PruneMask(N, (4,)).changes, Fold(3, Tensors("0" * 64)))), few)
    with pytest.raises(EditError, match="one of ridge, subspace, scale as how"):
        repair(small, PruneMask(N, (4,)), few, "magic")
    with pytest.raises(PromptError):
        repair(small, PruneMask(N, (4,)), [])
    with pytest.raises(EditError, match="expected at most"):
        repair(small, PruneMask(N, (4,)), few[:1], "subspace", k=10_000)


def test_states_that_are_not_finite_are_refused(small, few):
    loaded = changed_copy(small)
    loaded.model.get_decoder().layers[4].mlp.down_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(EditError, match=r"are not finite: expected numbers, got NaN"):
        repair(loaded, PruneMask(N, (4,)), few[:2])


def test_progress_is_told_and_a_stop_leaves_no_hooks(small, few):
    from vlm_analysis import Cancelled

    def hooks() -> list[int]:
        return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in small.model.modules()]

    told: list[tuple[int, int, str]] = []
    before = hooks()
    repair(small, PruneMask(N, (2, 4)), few[:2], on_progress=lambda *now: told.append(now))
    assert told[-1][:2] == (told[-1][1],) * 2

    def stop(done: int, total: int, message: str) -> None:
        if "measuring" in message:
            raise Cancelled

    with pytest.raises(Cancelled):
        repair(small, PruneMask(N, (2, 4)), few[:2], on_progress=stop)
    assert hooks() == before


def test_the_subspace_can_be_of_what_the_attention_writes(small, few):
    mask = PruneMask(N, (4,))
    edits = [repair(small, mask, few[:2], "subspace", weight=weight) for weight in ("mlp", "attention")]
    maps = [edit.changes[1].tensors.read() for edit in edits]
    assert [list(one) for one in maps] == [[DOWN], ["self_attn.o_proj"]]
    assert np.array_equal(maps[0][DOWN], maps[1]["self_attn.o_proj"]), "of the same directions"
    assert "gap_left" not in edits[1].provenance[REPAIR]["runs"][0]
    layer, dense = (apply_edit(small.model, edit).get_decoder().layers[3].self_attn for edit in (edits[1], mask))
    expected = torch.tensor(maps[0][DOWN], dtype=torch.float64) @ dense.o_proj.weight.double()
    torch.testing.assert_close(layer.o_proj.weight.double(), expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(EditError, match="expected mlp, or with how='subspace' attention, as weight, got 'attention'"):
        repair(small, mask, few[:2], weight="attention")
