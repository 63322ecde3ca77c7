"""Short fine-tuning on the bundled model with eight layers: losses and merged weights against float64, the dense model untouched whatever
happens, the same numbers after a kill, and bad input in one message."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles import changed_copy
from tuned import CUT, SHORT, noting, state_of, stop_at

from vlm_analysis import (
    Adapt,
    Cancelled,
    Drop,
    Edit,
    LoadedModel,
    Prompt,
    PromptSet,
    PruneMask,
    Tensors,
    apply_edit,
    evaluate,
    finetune,
)
from vlm_analysis.errors import EditError
from vlm_analysis.evaluation.run import prepared
from vlm_analysis.evaluation.run.prepared import answer_logits, prepare
from vlm_analysis.recovery.finetune import finetune as work, trainer
from vlm_analysis.recovery.finetune.losses import losses
from vlm_analysis.recovery.finetune.targets import find_targets


@pytest.fixture(autouse=True)
def _dense_model_is_untouched(small: LoadedModel) -> Iterator[None]:
    before = state_of(small.model)
    yield
    assert state_of(small.model) == before


@pytest.fixture(scope="module")
def tuned(small: LoadedModel, few: PromptSet) -> Edit:
    return finetune(small, CUT, few, **SHORT)


class TestTheDenseModel:
    @pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
    def test_plain_peft_changes_it(self, loaded: LoadedModel) -> None:
        """What the fixture of this file compares notices that."""
        from peft import LoraConfig, get_peft_model

        spoilt = changed_copy(loaded)
        before = state_of(spoilt.model)
        config = LoraConfig(r=2, target_modules=["up_proj"], init_lora_weights=False)
        model = get_peft_model(apply_edit(spoilt.model, PruneMask(16, (5,))), config)
        injected = state_of(spoilt.model)
        model.merge_and_unload()
        merged = state_of(spoilt.model)
        assert before["flags"] != injected["flags"]
        assert before["weights"] == injected["weights"] != merged["weights"]

    def test_it_stays_as_it_is_when_the_work_is_stopped(self, small: LoadedModel, few: PromptSet) -> None:
        with pytest.raises(Cancelled):
            finetune(small, CUT, few, on_progress=stop_at(1), **SHORT)

    def test_it_stays_as_it_is_when_memory_runs_out(
        self, small: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(trainer, "losses", fail)
        with pytest.raises(EditError, match=r"could not be tuned: expected enough memory.*Nothing was changed"):
            finetune(small, CUT, few, **SHORT)


class TestWhatIsLearnt:
    def test_it_is_an_update_of_each_linear_module_of_the_layers_that_are_left(
        self, few: PromptSet, tuned: Edit
    ) -> None:
        assert [type(change) for change in tuned.changes] == [Drop, Adapt]
        adapt = tuned.changes[1]
        assert isinstance(adapt, Adapt)
        inner = ("mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", *(f"self_attn.{one}_proj" for one in "kqvo"))
        assert set(adapt.modules) == {f"{layer}.{name}" for layer in CUT.kept for name in inner}
        assert (adapt.learnt_on, adapt.scale, adapt.before) == (CUT.key, 2.0, "")

    def test_its_provenance_tells_how_on_what_and_with_what_success(self, few: PromptSet, tuned: Edit) -> None:
        about = tuned.provenance["finetune"]
        assert tuned.chosen_on == {few.fingerprint}
        assert (about["how"], about["n_trained"], about["n_held_out"], about["steps"]) == ("small", 4, 2, 4)
        assert [step for step, *_ in about["curve"]] == [0, 2, 4]
        assert about["held_out_nll"][1] < about["held_out_nll"][0]

    def test_merged_weights_are_those_of_a_float64_sum_and_all_others_are_shared(
        self, small: LoadedModel, tuned: Edit
    ) -> None:
        adapt = tuned.changes[1]
        assert isinstance(adapt, Adapt)
        factors, view, plain = adapt.tensors.read(), apply_edit(small.model, tuned), apply_edit(small.model, CUT)
        dense, sums = plain.state_dict(), {}
        for name in adapt.modules:
            layer, _, inner = name.partition(".")
            place = f"model.language_model.layers.{CUT.kept.index(int(layer))}.{inner}.weight"
            update = 2.0 * factors[f"{name}.B"].astype(np.float64) @ factors[f"{name}.A"].astype(np.float64)
            sums[place] = torch.tensor(dense[place].double().numpy() + update).float()
        for place, tensor in view.state_dict().items():
            if place in sums:
                assert torch.equal(tensor, sums[place])
                assert not torch.equal(tensor, dense[place])
            else:
                assert tensor.data_ptr() == dense[place].data_ptr()

    def test_it_is_measured_after_merging_on_what_was_held_out(
        self, small: LoadedModel, few: PromptSet, tuned: Edit
    ) -> None:
        before, after = (evaluate(small, few, edit).by_prompt["answer_nll"] for edit in (CUT, tuned))
        one, other = tuned.provenance["finetune"]["held_out_nll"]
        pairs = [(before[[a, b]].mean(), after[[a, b]].mean()) for a in range(3) for b in range(3, 6)]
        assert min(abs(one - left) + abs(other - right) for left, right in pairs) < 1e-5, "one prompt of each domain"

    def test_it_stays_with_its_edit(self, tuned: Edit) -> None:
        with pytest.raises(EditError, match="to stay with the edit that it was learnt on"):
            _ = Edit(8, tuned.changes[1:]) + PruneMask(8, (4,))
        assert CUT + Edit(8, tuned.changes) == tuned

    def test_only_the_layers_beside_a_cut_are_tuned_as_partners(self, small: LoadedModel, few: PromptSet) -> None:
        edit = finetune(small, CUT, few, "partners", most_steps=1, checks=1)
        assert sorted(edit.changes[1].layers) == [3, 6]

    def test_what_lies_between_tower_and_decoder_is_the_projector(self, small: LoadedModel, few: PromptSet) -> None:
        view = apply_edit(small.model, CUT)
        item = prepare(small, few[:1]).encoded[0]
        found = find_targets(view, CUT, "projector", lambda: answer_logits(small, view, [item]))
        parts = ("merger", "deepstack_merger_list.0", "deepstack_merger_list.1")
        assert set(found) == {f"model.visual.{part}.linear_fc{one}" for part in parts for one in (1, 2)}
        adapt = Adapt(Tensors.of({"x": np.ones(1)}), tuple(found.values()))
        assert (bool(adapt.before), dict(adapt.layers)) == (True, {})


class TestGoingOn:
    def test_after_a_kill_the_numbers_are_those_of_one_run(
        self, small: LoadedModel, few: PromptSet, tmp_path: Path
    ) -> None:
        options = SHORT | {"dropout": 0.1}
        whole = finetune(small, CUT, few, **options)
        found: list[Edit] = []
        with pytest.raises(Cancelled):
            finetune(small, CUT, few, folder=tmp_path, on_progress=stop_at(3), on_partial=found.append, **options)
        assert [edit.provenance["finetune"]["stopped"] for edit in found] == ["unfinished"]
        begun: list[int] = []
        again = finetune(small, CUT, few, folder=tmp_path, on_progress=noting(begun), **options)
        assert begun[0] == 2
        assert again == whole != found[0]
        assert again.provenance["finetune"]["curve"] == whole.provenance["finetune"]["curve"]

    @pytest.mark.parametrize("most", [2, pytest.param(4, marks=pytest.mark.slow)])
    def test_other_work_and_damaged_files_are_not_gone_on_with(
        self, small: LoadedModel, few: PromptSet, tuned: Edit, tmp_path: Path, most: int
    ) -> None:
        finetune(small, CUT, few, folder=tmp_path, **SHORT | {"seed": 1})
        (file,) = tmp_path.iterdir()
        content = file.read_bytes()
        for damaged in (content, content[:8] + b"[" * 1000 + content[1008:], content[:-9], b"")[:most]:
            file.write_bytes(damaged)
            begun: list[int] = []
            with pytest.raises(Cancelled):
                finetune(small, CUT, few, folder=tmp_path, on_progress=stop_at(0, begun), **SHORT)
            assert begun == [0]

    def test_numbers_that_are_not_finite_stop_with_the_last_good_state(
        self, small: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def spoil_from(step: int) -> None:
            steps = iter(range(step))

            def spoilt(*arguments: Any) -> Any:
                total, nlls = losses(*arguments)
                return total * (1 if next(steps, None) is not None else math.nan), nlls

            monkeypatch.setattr(trainer, "losses", spoilt)

        spoil_from(2)
        edit = finetune(small, CUT, few, **SHORT)
        about = edit.provenance["finetune"]
        assert (about["best_step"], about["stopped"]) == (2, "the loss was nan at step 3")
        assert len(edit.changes) == 2
        spoil_from(0)
        with pytest.raises(
            EditError, match=r"expected finite numbers, but the loss was nan at step 1\. Nothing was changed"
        ):
            finetune(small, CUT, few, **SHORT)

    def test_an_edit_that_gets_no_better_comes_back_as_it_was(
        self, small: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trainer, "mean_nll", lambda *_: 1.0)
        edit = finetune(small, CUT, few, most_steps=1, checks=1)
        assert (edit, edit.provenance["finetune"]["held_out_nll"]) == (CUT, [1.0, 1.0])


class TestBadInput:
    @pytest.mark.parametrize(
        ("edit", "how", "said"),
        [
            (CUT, "large", "There is no such fine-tuning"),
            (PruneMask(8), "partners", r"expected linear layers to update \(partners\), got none, as no layer is cut"),
            (PruneMask(16, (5,)), "small", "for 8 layers, got one for 16"),
            ("cut", "small", "There is no edit: expected an Edit, got a str"),
        ],
    )
    def test_what_cannot_be_tuned_is_refused(
        self, small: LoadedModel, few: PromptSet, edit: Any, how: str, said: str
    ) -> None:
        with pytest.raises(EditError, match=said):
            finetune(small, edit, few, how)

    def test_prompts_of_one_group_are_refused(self, small: LoadedModel, few: PromptSet) -> None:
        same = [Prompt(few[0].images, text, answer="red") for text in ("which colour?", "what colour?")]
        for prompts in (few[:1], same):
            with pytest.raises(EditError, match="expected two groups or more, as one is held out"):
                finetune(small, CUT, prompts)

    def test_an_edit_that_was_tuned_is_not_tuned_again(self, small: LoadedModel, few: PromptSet, tuned: Edit) -> None:
        with pytest.raises(EditError, match=r"expected an edit that was not tuned before.*Tune its base"):
            finetune(small, tuned, few)

    def test_weights_that_cannot_be_tuned_are_refused(
        self, small: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(LoadedModel, "dtype", property(lambda _: "float16"))
        with pytest.raises(EditError, match="expected float32 or bfloat16, got float16"):
            finetune(small, CUT, few)
        monkeypatch.setattr(LoadedModel, "quantiser", property(lambda _: "torchao"))
        with pytest.raises(EditError, match="got ones quantised with torchao"):
            finetune(small, CUT, few)

    def test_too_little_memory_is_said_before_the_first_step(
        self, small: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(work, "free_bytes", lambda _: 1000)
        with pytest.raises(
            EditError, match=r"cannot be tuned in this memory: expected .* GiB free for one prompt, got 0\.00"
        ):
            finetune(small, CUT, few)

    def test_without_answers_the_dense_responses_are_learnt_and_blank_ones_are_none(
        self, small: LoadedModel, few: PromptSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = [Prompt(prompt.images, prompt.question) for prompt in few]
        about = finetune(small, CUT, asked, most_steps=1, checks=1).provenance["finetune"]
        assert about["n_trained"] + about["n_held_out"] == 6
        monkeypatch.setattr(prepared, "decode", lambda *_: " ")
        with pytest.raises(EditError, match="expected answers, or responses of the dense model, got none"):
            finetune(small, CUT, asked)
