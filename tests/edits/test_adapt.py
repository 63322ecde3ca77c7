"""Adapt: low-rank updates are a value; merged, saved, exported as a checkpoint or as an adapter they are the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles import ask, same_weights, weights_of

from vlm_analysis import (
    Adapt,
    Edit,
    LoadedModel,
    PromptSet,
    PruneMask,
    Tensors,
    apply_edit,
    export_adapter,
    export_checkpoint,
    load_model,
    open_edit,
    save_edit,
)
from vlm_analysis.errors import EditError, ExportError
from vlm_analysis.models.adapter import with_update

UP, MERGER = "5.mlp.up_proj", "model.visual.merger.linear_fc2"
CUT = PruneMask(8, (3,))


def adapt(model: Any, *names: str, learnt_on: str = CUT.key, scale: float = 0.5) -> Adapt:
    """Return random updates of rank 2 of these modules of a model."""
    draw, factors = np.random.default_rng(0), {}
    for name in names:
        first = name.partition(".")[0]
        module = model.get_submodule(f"model.language_model.layers.{name}" if first.isdecimal() else name)
        factors[f"{name}.A"] = draw.normal(size=(2, module.in_features)).astype(np.float32)
        factors[f"{name}.B"] = draw.normal(size=(module.out_features, 2)).astype(np.float32) / 50
    return Adapt(Tensors.of(factors), names, scale, learnt_on=learnt_on)


@pytest.fixture(scope="module")
def edit(small: LoadedModel) -> Edit:
    return Edit(8, (*CUT.changes, adapt(small.model, UP, MERGER)), name="tuned")


def test_its_steps_tell_which_layers_it_touches_and_whether_what_lies_ahead(small: LoadedModel, edit: Edit) -> None:
    one = Edit(8, (adapt(small.model, UP),)).steps
    assert [layer for layer, variant in one.layers if variant] == [5]
    assert (one.before, bool(edit.steps.before)) == ("", True)
    assert one != Edit(8, (adapt(small.model, UP, scale=0.25),)).steps
    assert edit.words() == "drops layer 3 and adds low-rank updates to layer 5 and what lies ahead of the layers"


def test_other_tensors_are_shared_and_the_dense_model_stays(small: LoadedModel, edit: Edit) -> None:
    before = weights_of(small.model)
    view, dense = (
        apply_edit(small.model, edit).state_dict(),
        {one.data_ptr() for one in small.model.state_dict().values()},
    )
    own = [name for name, tensor in view.items() if tensor.data_ptr() not in dense]
    assert sorted(own) == ["model.language_model.layers.4.mlp.up_proj.weight", f"{MERGER}.weight"]
    assert same_weights(small.model, before)


def test_the_sum_is_rounded_once(small: LoadedModel) -> None:
    draw = np.random.default_rng(0)
    weight, a, b = (torch.tensor(draw.normal(size=size), dtype=torch.float32) for size in ((5, 7), (2, 7), (5, 2)))
    exact = weight.bfloat16().double().numpy() + 0.3 * b.double().numpy() @ a.double().numpy()
    assert torch.equal(with_update(weight.bfloat16(), a, b, 0.3), torch.tensor(exact).bfloat16())


def test_it_is_saved_and_opened_with_its_tensors(small: LoadedModel, edit: Edit, tmp_path: Path) -> None:
    opened = open_edit(save_edit(edit, tmp_path / "tuned.json"))
    assert (opened, opened.changes[1].learnt_on) == (edit, CUT.key)  # type: ignore[attr-defined]
    assert same_weights(apply_edit(small.model, opened), weights_of(apply_edit(small.model, edit)))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.usefixtures("_proved_here")
def test_a_checkpoint_and_an_adapter_on_its_base_hold_the_same_weights(
    small: LoadedModel, edit: Edit, few: PromptSet, tmp_path: Path
) -> None:
    from peft import PeftModel

    expected = weights_of(apply_edit(small.model, edit))
    export_checkpoint(small, edit, tmp_path / "merged")
    assert same_weights(load_model(tmp_path / "merged").model, expected)
    export_checkpoint(small, CUT, tmp_path / "base", verify=False)
    export_adapter(small, edit, tmp_path / "adapter", tmp_path / "base")
    assert same_weights(load_model(tmp_path / "adapter").model, expected), "Strata's own merge"
    inputs, base = ask(small, few[0]), load_model(tmp_path / "base")
    with torch.no_grad():
        logits = PeftModel.from_pretrained(base.model, str(tmp_path / "adapter"))(**inputs).logits
        torch.testing.assert_close(logits, apply_edit(small.model, edit)(**inputs).logits, rtol=1e-3, atol=1e-3)


def test_an_adapter_needs_its_base_and_something_learnt(small: LoadedModel, edit: Edit, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"expected the checkpoint of what it was learnt on as `base`, a model that drops layer 3"
    ):
        export_adapter(small, edit, tmp_path / "adapter")
    with pytest.raises(ExportError, match="expected an edit with low-rank updates, got one that drops layer 3"):
        export_adapter(small, CUT, tmp_path / "adapter")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("5.mlp.nothing", "got no such module"),
        ("5.mlp", "got a Qwen3VLTextMLP"),
        ("5.mlp.down_proj", r"\(2, 96\) and \(288, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(small: LoadedModel, name: str, said: str) -> None:
    factors = adapt(small.model, UP).tensors.read()
    named = Tensors.of({f"{name}.{part}": factors[f"{UP}.{part}"] for part in "AB"})
    with pytest.raises(EditError, match=said):
        apply_edit(small.model, Edit(8, (Adapt(named, (name,)),)))


@pytest.mark.parametrize("wrong", [{"modules": ()}, {"modules": "5.mlp"}, {"scale": float("nan")}, {"tensors": "x"}])
def test_what_is_no_update_is_refused(wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {"tensors": Tensors("0" * 64), "modules": (UP,), "scale": 1.0}
    with pytest.raises(EditError, match="An update is not whole"):
        Adapt(**right | wrong)
