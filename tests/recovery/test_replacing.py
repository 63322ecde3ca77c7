"""A window of layers becomes one trained layer: the edit against a model built by hand, the training against float64, the dense model
untouched whatever happens."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles import ask, changed_copy, cosine, ids_of, walk
from tuned import state_of

from vlm_analysis import (
    Cancelled,
    Edit,
    LoadedModel,
    PromptSet,
    PruneMask,
    Replace,
    Tensors,
    Vision,
    apply_edit,
    export_checkpoint,
    open_edit,
    replace_window,
    save_edit,
)
from vlm_analysis.errors import EditError, NothingLearntError
from vlm_analysis.progress import no_progress
from vlm_analysis.recovery import standin
from vlm_analysis.recovery.learning import prepare_to_learn
from vlm_analysis.recovery.replacements import Replacing, replacing_of
from vlm_analysis.recovery.replacing import Work, similarity_of
from vlm_analysis.recovery.standin import StandIn

FAST: dict[str, Any] = {"batch_size": 2, "most_steps": 4, "epochs": 4, "checks": 2, "learning_rate": 1e-3}


@pytest.fixture(autouse=True)
def _dense_model_is_untouched(small: LoadedModel) -> Iterator[None]:
    before = state_of(small.model)
    yield
    assert state_of(small.model) == before


def weights_of_layer(loaded: LoadedModel, layer: int) -> dict[str, np.ndarray]:
    state = loaded.model.get_decoder().layers[layer].state_dict()
    return {name: values.numpy() for name, values in state.items()}


class TestTheEdit:
    def test_it_runs_one_layer_with_its_own_weights_where_the_window_was(self, small: LoadedModel, few: PromptSet):
        """With the weights of the window's second layer it is the model without the first and the third."""
        edit = Edit(8, (Replace((3, 4, 5), Tensors.of(weights_of_layer(small, 4))),))
        inputs = ask(small, few[0])
        with torch.no_grad():
            found, expected = (apply_edit(small.model, one)(**inputs).logits for one in (edit, PruneMask(8, (3, 5))))
        assert torch.equal(found, expected)
        assert [layer for layer, _ in edit.steps.layers] == [0, 1, 2, 3, 6, 7]
        assert (edit.gone, edit.dropped, edit.words()) == ((4, 5), (), "replaces layers 3, 4 and 5 by one")
        assert edit.saved_parameters(small.info) == 2 * small.layer_parameters[3]

    def test_it_goes_with_changes_of_other_layers_and_not_of_its_own(self, small: LoadedModel):
        tensors = Tensors.of(weights_of_layer(small, 3))
        replaced = Edit(8, (Replace((3, 4), tensors, learnt_on=Edit(8).key),))
        both = replaced + PruneMask(8, (6,)) + Edit(8, (Vision(absent=(3, 4, 5)),))
        assert [change.kind for change in both.changes] == ["replace", "drop", "vision"]
        assert both.changes[2] == Vision(absent=(3, 5)), "a layer that is gone has no vision tokens"
        with pytest.raises(EditError, match="layer 4 is left out and changed"):
            _ = replaced + PruneMask(8, (4,))
        with pytest.raises(EditError, match="expected consecutive layers"):
            Replace((3, 5), tensors)
        with pytest.raises(EditError, match=r"Layer 5 cannot be dropped: it is needed"):
            apply_to_locked(Edit(8, (Replace((4, 5), tensors),)))

    @pytest.mark.parametrize(
        ("tensors", "said"),
        [
            ({"mlp.none.weight": np.ones(3)}, "got no such weight"),
            ({"mlp.down_proj.weight": np.ones((2, 2))}, "of shape"),
        ],
    )
    def test_weights_of_another_layer_are_refused(self, small: LoadedModel, tensors, said):
        with pytest.raises(EditError, match=said):
            apply_edit(small.model, Edit(8, (Replace((3, 4), Tensors.of(tensors)),)))


def apply_to_locked(edit: Edit) -> None:
    """Raise what a model would whose layer 5 is locked."""
    from vlm_analysis.model_info import ModelInfo

    reason = edit.refuses(ModelInfo("any", "", 8, locked={5: "it is needed"}))
    raise EditError(reason)


@pytest.fixture(scope="module")
def replaced(small: LoadedModel, few: PromptSet) -> Edit:
    return replace_window(small, few, 1, window=3, answer_epochs=1, **FAST)


class TestWhatIsLearnt:
    def test_it_tells_how_on_what_and_with_what_success(self, few: PromptSet, replaced: Edit):
        about = replaced.provenance["replace"]
        (change,) = replaced.changes
        assert isinstance(change, Replace)
        assert (change.window, change.learnt_on, replaced.chosen_on) == ((3, 4), Edit(8).key, {few.fingerprint})
        before, after = about["held_out_distance"]
        assert after < before < about["window_distance"] * 10
        assert (about["n_trained"], about["n_held_out"], about["steps"], about["answer_steps"]) == (4, 2, 4, 2)
        assert about["held_out_nll"][1] <= about["held_out_nll"][0]

    @pytest.mark.usefixtures("_proved_here")
    def test_it_opens_as_it_was_saved_and_exports_as_a_plain_checkpoint(
        self, small: LoadedModel, replaced: Edit, tmp_path: Path
    ):
        assert open_edit(save_edit(replaced, tmp_path / "one.json")) == replaced
        manifest = export_checkpoint(small, replaced, tmp_path / "out")
        assert (manifest.verified, manifest.n_layers_after, manifest.dropped) == (True, 7, ())

    def test_the_window_is_that_with_the_most_similar_streams_around_it(self, small: LoadedModel, few: PromptSet):
        found = similarity_of(small, few[:2], 2, no_progress)
        expected = []
        for prompt in few[:2]:
            n_prompt = ask(small, prompt)["input_ids"].shape[1]
            entering, leaving = walk(small, ask(small, prompt, ids_of(small, prompt.answer)))
            streams = [one[:n_prompt] for one in (*entering, leaving[-1])]
            expected.append([cosine(streams[first], streams[first + 3]).mean() for first in range(6)])
        np.testing.assert_allclose(found, np.mean(expected, axis=0), atol=1e-6)
        edit = replace_window(small, few[:2], 2, most_steps=2, checks=1, learning_rate=1e-3)
        first = edit.changes[0].window[0]
        assert first == max(range(2, 5), key=lambda one: np.mean(expected, axis=0)[one]), "0, 1 and 7 stay"
        assert edit.provenance["replace"]["similarity"] == pytest.approx(np.mean(expected, axis=0)[first], abs=1e-6)


def training(
    loaded: LoadedModel, prompts: PromptSet, window: tuple[int, ...], start: Any, *, seen: bool = False, **options: Any
) -> StandIn:
    """Return a training; where `seen`, it is measured on the prompts it trains on."""
    settings = replacing_of(options)
    learning = prepare_to_learn(loaded, prompts, settings, no_progress)
    if seen:
        learning = replace(learning, held_out=learning.rows)
    work = Work(loaded, window, learning, settings, np.zeros(0), start)
    return work.training(work.layer(), None)


def with_noise(name: str, values: torch.Tensor) -> torch.Tensor:
    """Return weights with Gaussian noise of 5 % of their spread."""
    draw = torch.randn(values.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    return values + 0.05 * values.std() * draw


def fallen(loaded: LoadedModel, prompts: PromptSet, start: Any, **options: Any) -> float:
    """Return the share of the squared distance to layer 3 that is left after 300 steps, of the state that is kept, in float64."""
    double = changed_copy(loaded)
    double.model.double()
    layer = changed_copy(double).model.get_decoder().layers[3]
    trainer = training(loaded, prompts, (3,), start, seen=True, batch_size=4, epochs=300, most_steps=300, **options)
    assert trainer.n_steps == 300

    def distance(weights: dict[str, Any]) -> float:
        layer.load_state_dict(weights)
        found = []
        for row in trainer.rows:
            seen = standin.watch_window(double, (3,), [trainer.work.encoded[row]])
            with torch.no_grad():
                found.append(float((seen.run(layer) - seen.leaving).square().mean()))
        return float(np.mean(found))

    first = distance(trainer.factors)
    trainer.begin()
    assert trainer.run(no_progress, lambda: None) == ""
    left = distance(trainer.best)
    assert [trainer.curve[0][2], min(found for *_, found in trainer.curve)] == pytest.approx([first, left], rel=1e-3)
    return left / first


class TestTraining:
    def test_gradients_summed_over_batches_are_those_of_one_whole_batch_by_hand(
        self, small: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch
    ):
        double = changed_copy(small)
        double.model.double()
        monkeypatch.setattr("vlm_analysis.recovery.replacing.plan_memory", lambda **_: type("Plan", (), {"batch": 2}))
        trainer = training(double, few, (3, 4), None, batch_size=4, most_norm=1e9)
        assert (trainer.batch, len(trainer.rows)) == (2, 4)
        trainer._train(trainer.rows)
        layer = changed_copy(double).model.get_decoder().layers[3]
        total = 0.0
        for row in trainer.rows:
            seen = standin.watch_window(double, (3, 4), [trainer.work.encoded[row]])
            total = total + (seen.run(layer) - seen.leaving).square().mean() / len(trainer.rows)
        total.backward()
        for name, parameter in layer.named_parameters():
            found = trainer.factors[name].grad
            assert (found - parameter.grad).abs().max() <= 1e-6 * parameter.grad.abs().max(), name

    @pytest.mark.slow
    def test_from_the_very_layer_with_noise_the_distance_falls_to_a_hundredth_at_the_rates_of_the_paper(
        self, small: LoadedModel, few: PromptSet
    ):
        assert fallen(small, few, with_noise) <= 0.01

    @pytest.mark.slow
    @pytest.mark.parametrize("wrong", [2, 4, 5])
    def test_from_another_layer_it_falls_tenfold(self, small: LoadedModel, few: PromptSet, wrong: int):
        other = dict(small.model.get_decoder().layers[wrong].named_parameters())
        assert fallen(small, few, lambda name, _: other[name], learning_rate=1e-3) <= 0.1

    def test_after_a_stop_the_numbers_are_those_of_one_run(self, small, few, replaced, tmp_path):
        begun: list[int] = []

        def stop_at(step: int) -> Any:
            def progress(done: int, total: int, message: str) -> None:
                if message.startswith("training: "):
                    begun.append(done)
                    if done == step:
                        raise Cancelled

            return progress

        partial: list[Edit] = []
        options = {"window": 3, "folder": tmp_path, "answer_epochs": 1, "on_partial": partial.append, **FAST}
        with pytest.raises(Cancelled):
            replace_window(small, few, 1, on_progress=stop_at(3), **options)
        assert partial[0].provenance["replace"]["stopped"] == "unfinished"
        begun.clear()
        assert replace_window(small, few, 1, on_progress=stop_at(-1), **options) == replaced
        assert begun[0] == 2

    def test_when_memory_runs_out_it_says_so(self, small, few, monkeypatch):
        def fail(*_: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(standin, "distances", fail)
        with pytest.raises(EditError, match=r"could not be replaced: expected enough memory.*Nothing was changed"):
            replace_window(small, few[:2], 1, window=3)


@pytest.mark.parametrize(
    ("n", "options", "said"),
    [
        (0, {}, "expected 1 layer or more to go, got 0"),
        (6, {}, "expected 7 layers in a row that may go"),
        (2, {"window": 6}, r"expected a first layer in 0\.\.5, got 6"),
        (2, {"window": 1}, r"no layer that stays among them, got layer 1 \(DeepStack"),
        (1, {"rank": 8}, "The replacement has no such setting: expected one of answer_epochs, learning_rate"),
        (1, {"answer_epochs": -1}, "The window cannot be replaced: expected a whole number from 0 on as answer_epochs"),
    ],
)
def test_what_cannot_be_replaced_is_refused(small, few, n, options, said):
    with pytest.raises(EditError, match=said):
        replace_window(small, few[:2], n, **options)


def test_a_layer_that_gets_no_nearer_is_no_edit(small, few):
    with pytest.raises(NothingLearntError, match="nearer to layers 3-4 than the first of them"):
        replace_window(small, few[:2], 1, window=3, learning_rate=1e-30, last_rate=0.0, most_steps=1)


def test_the_settings_are_those_of_llm_streamline():
    settings = Replacing()
    rates = [settings.rate_at(step, 101) for step in (0, 50, 100)]
    assert rates == pytest.approx([2e-4, 1.25e-4, 5e-5], rel=2e-2)
    assert (settings.weight_decay, settings.most_norm, settings.epochs) == (1e-3, 5.0, 1)
