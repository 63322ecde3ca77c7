"""A kind of change of this file's own goes the whole way: apply, evaluate, sweep, save and open, strip, cost and export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import pytest
import torch
from oracles import by_hand, weights_of
from transformers import AutoModelForImageTextToText

from vlm_analysis import (
    KINDS,
    Change,
    Drop,
    Edit,
    LoadedModel,
    PromptSet,
    PruneMask,
    apply_edit,
    evaluate,
    export_checkpoint,
    measure_cost,
    open_edit,
    open_evaluation,
    open_mask,
    save_edit,
    save_evaluation,
    save_mask,
    stream_both,
    sweep,
)
from vlm_analysis.edits.view import View
from vlm_analysis.errors import EditError, ExportError, MaskError, ModelError
from vlm_analysis.evaluation.run.prepared import prepare
from vlm_analysis.evaluation.run.sharing import SharedRunner, ordered
from vlm_analysis.evaluation.scores import ScoreStore
from vlm_analysis.figures.heatmaps import edit_strips
from vlm_analysis.workbench.details import edit_key, is_dense, is_mask
from vlm_analysis.workbench.shelf import keep_evaluation, keep_mask, open_item
from vlm_analysis.workbench.workspace import Workspace


@dataclass(frozen=True)
class Scale(Change):
    """Scales what the MLP of a layer adds to the stream."""

    kind: ClassVar[str] = "scale-mlp"

    layer: int
    factor: float

    @property
    def layers(self) -> Mapping[int, str | None]:
        return {} if self.factor == 1 else {self.layer: repr(self.factor)}

    def apply(self, view: Any) -> None:
        view.own(view.layer(self.layer).mlp.down_proj).mul_(self.factor)

    def words(self) -> str:
        return f"scales the MLP of layer {self.layer} by {self.factor:g}"

    def to_json(self) -> dict[str, Any]:
        return {"layer": self.layer, "factor": self.factor}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls(int(content["layer"]), float(content["factor"]))


@dataclass(frozen=True)
class Blur(Change):
    """Changes what happens ahead of the first layer: halves the embeddings of tokens."""

    kind: ClassVar[str] = "blur"
    reason_not_served: ClassVar[str] = "this test says so"

    @property
    def layers(self) -> Mapping[int, str | None]:
        return {}

    @property
    def before(self) -> str:
        return "half"

    def apply(self, view: Any) -> None:
        view.own(view.model.get_input_embeddings()).mul_(0.5)

    def words(self) -> str:
        return "halves the embeddings"

    def to_json(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return cls()


@pytest.fixture(autouse=True)
def _rows_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, Scale.kind, Scale)
    monkeypatch.setitem(KINDS, Blur.kind, Blur)


def scaled(layer: int = 6, factor: float = 0.25, dropped: tuple[int, ...] = ()) -> Edit:
    return Edit(16, (Scale(layer, factor), Drop(dropped)))


@pytest.fixture
def inputs(loaded: LoadedModel, few: PromptSet) -> dict[str, torch.Tensor]:
    from oracles import ask

    return ask(loaded, few[0])


class TestValue:
    def test_an_edit_without_changes_is_the_dense_model_and_so_is_a_change_of_nothing(self):
        assert Edit(16).is_dense
        assert Edit(16, (Scale(3, 1.0), Drop(()))) == Edit(16) == PruneMask(16)

    def test_changes_stand_in_one_order(self):
        one, other = Edit(16, (Scale(6, 0.5), Drop((3,)))), Edit(16, (Drop((3,)), Scale(6, 0.5)))
        assert (one, one.key, one.steps) == (other, other.key, other.steps)
        assert [type(change) for change in one.changes] == [Drop, Scale]
        assert hash(one) == hash(other)

    def test_a_prune_mask_is_an_edit_with_one_drop(self):
        mask = PruneMask(16, [5, 3], name="mine")
        assert mask == Edit(16, (Drop((3, 5)),))
        assert (mask.is_mask, scaled().is_mask) == (True, False)
        assert (mask.dropped, mask.gone, mask.name) == ((3, 5), (3, 5), "mine")

    def test_steps_leave_out_what_goes_and_tell_what_changed(self):
        steps = scaled(6, 0.5, (3,)).steps
        assert [layer for layer, _ in steps.layers] == [layer for layer in range(16) if layer != 3]
        changed = {layer: variant for layer, variant in steps.layers if variant}
        assert list(changed) == [6]
        assert dict(scaled(6, 0.5).steps.layers)[6] == changed[6] != dict(scaled(6, 0.75).steps.layers)[6]
        assert (steps.before, steps.after) == ("", "")
        assert Edit(16, (Blur(),)).steps.before

    def test_keys_part_what_is_done_and_nothing_else(self):
        edits = [Edit(16), PruneMask(16, (3,)), scaled(), scaled(6, 0.5), scaled(7), Edit(16, (Blur(),)), Edit(15)]
        assert len({edit.key for edit in edits}) == len(edits)
        named = Edit(16, (Scale(6, 0.25),), name="named", notes="noted", provenance={"from": "here"})
        assert (named.key, named) == (scaled().key, scaled())

    def test_edits_add_up(self):
        assert PruneMask(16, (3,)) + scaled(6) + PruneMask(16, (5,)) == scaled(6, dropped=(3, 5))

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ((Drop((6,)), Scale(6, 0.5)), "layer 6 is left out and changed"),
            ((Scale(6, 0.5), Scale(6, 0.25)), "Layer 6 is changed twice"),
            ((Blur(), Blur()), "two changes of the kind 'blur'"),
            ((Scale(16, 0.5),), r"0\.\.15, got 16"),
            (("drop",), "got a str"),
            (Drop((3,)), "takes a tuple of changes"),
        ],
    )
    def test_changes_that_contradict_each_other_are_refused(self, changes, said):
        with pytest.raises(EditError, match=said):
            Edit(16, changes)

    def test_a_kind_that_is_not_in_the_table_is_refused(self, monkeypatch):
        monkeypatch.delitem(KINDS, Scale.kind)
        with pytest.raises(EditError, match=r"got a Scale\. Add it to the table"):
            Edit(16, (Scale(3, 0.5),))

    def test_edits_of_different_models_do_not_add_up(self):
        with pytest.raises(EditError, match="expected two of 16 layers, got one of 15"):
            Edit(16) + Edit(15)


class TestModel:
    def test_the_view_is_the_model_with_the_change_and_the_dense_model_never_notices(self, loaded, inputs):
        before = weights_of(loaded.model)
        view = apply_edit(loaded.model, scaled(6, 0.5, (3,)))
        with torch.no_grad():
            found = view(**inputs).logits
        skipped = apply_edit(loaded.model, PruneMask(16, (3,)))
        torch.testing.assert_close(found, by_hand(skipped, {5: 0.5}, inputs), rtol=1e-5, atol=1e-5)
        assert not torch.equal(found, loaded.model(**inputs).logits)
        after = weights_of(loaded.model)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_only_what_is_changed_is_copied(self, loaded):
        view = apply_edit(loaded.model, scaled(6))
        shared = {tensor.data_ptr() for tensor in loaded.model.state_dict().values()}
        own = [name for name, tensor in view.state_dict().items() if tensor.data_ptr() not in shared]
        assert own == ["model.language_model.layers.6.mlp.down_proj.weight"]

    def test_a_kind_that_writes_into_the_dense_model_is_named(self, loaded, monkeypatch):
        weight = loaded.model.get_decoder().layers[6].mlp.down_proj.weight
        kept = weight.detach().clone()
        monkeypatch.setattr(Scale, "apply", lambda self, view: view.layer(6).mlp.down_proj.weight.data.mul_(0.5))
        try:
            with pytest.raises(ModelError, match=r"changed the dense model itself.*View\.own"):
                apply_edit(loaded.model, scaled(6, 0.5))
        finally:
            weight.data.copy_(kept)

    def test_what_a_view_does_not_have_is_named(self, loaded):
        view = View(loaded.model, [0, 1, 15])
        with pytest.raises(EditError, match=r"no layer 9: expected one of \[0, 1, 15\]"):
            view.layer(9)
        with pytest.raises(ModelError, match=r"no parameter 'bias': expected one of \['weight'\]"):
            view.own(view.layer(1).mlp.down_proj, "bias")

    def test_an_edited_view_is_edited_again(self, loaded, inputs):
        twice = apply_edit(apply_edit(loaded.model, scaled(6, 0.5)), scaled(6, 0.5))
        with torch.no_grad():
            assert torch.equal(twice(**inputs).logits, apply_edit(loaded.model, scaled(6, 0.25))(**inputs).logits)


@pytest.fixture(scope="module")
def dense(loaded: LoadedModel, few: PromptSet) -> Any:
    return evaluate(loaded, few)


def many() -> list[Edit]:
    masks = [PruneMask(16, (layer,)) for layer in (3, 9, 14)]
    return [
        *masks,
        scaled(6),
        scaled(6, 0.5),
        scaled(12),
        scaled(12, 0.25, (9,)),
        Edit(16, (Blur(),)),
        Edit(16, (Blur(), Scale(6, 0.25))),
    ]


class TestScores:
    def test_the_scores_are_those_of_the_model_changed_by_hand(self, loaded, few, dense):
        found = evaluate(loaded, few, scaled(6, 0.0), reference=dense)
        weight = loaded.model.get_decoder().layers[6].mlp.down_proj.weight
        kept = weight.detach().clone()
        try:
            weight.data.zero_()
            other = evaluate(loaded, few)
        finally:
            weight.data.copy_(kept)
        np.testing.assert_allclose(found.by_prompt["answer_nll"], other.by_prompt["answer_nll"], rtol=1e-6)
        assert found.edit == scaled(6, 0.0)
        assert not found.is_dense
        assert (found.by_prompt["kl_to_dense"] >= 0).all()
        assert found.by_prompt["kl_to_dense"].max() > 0

    def test_a_sweep_gives_each_edit_what_evaluating_it_alone_gives_to_the_last_bit(self, loaded, few, dense):
        found = list(sweep(loaded, few, many(), reference=dense, batch_size=4))
        for edit, one in zip(many(), found, strict=True):
            alone = evaluate(loaded, few, edit, reference=dense, batch_size=4)
            pd.testing.assert_frame_equal(one.by_prompt, alone.by_prompt, check_exact=True)
            assert one.edit == edit

    def test_a_sweep_shares_equal_steps_and_no_others(self, loaded, few):
        runner, plan = SharedRunner(loaded), ordered(many())
        items = [prepare(loaded, few).encoded[0]]
        assert [edit for edit, _ in runner.run(items, plan)] == plan
        starts = {
            (edit.steps.before, edit.steps.layers[:length])
            for edit in plan
            for length in range(1, len(edit.steps.layers) + 1)
        }
        assert runner.layers_run == len(starts) < runner.layers_counted

    def test_a_sweep_that_was_stopped_goes_on(self, loaded, few, dense, tmp_path):
        first = list(sweep(loaded, few, many()[:5], reference=dense, folder=tmp_path))
        done: list[tuple[int, int]] = []
        again = list(
            sweep(
                loaded, few, many(), reference=dense, folder=tmp_path, on_progress=lambda *told: done.append(told[:2])
            )
        )
        assert done[-1] == (4, 4)
        for one, other in zip(first, again, strict=False):
            pd.testing.assert_frame_equal(one.by_prompt, other.by_prompt, check_exact=True)

    def test_scores_stand_under_the_key_of_their_edit(self):
        store = ScoreStore(16, 2)
        score = {"exact_match": True, "answer_nll": 0.5, "token_agreement": 1.0, "kl_to_dense": 0.0}
        store.put(scaled(6).key, [0], [score])
        assert store.of(scaled(6, 0.5).key) == store.of(PruneMask(16).key) == {}
        assert store.of(scaled(6).key) == {0: score}

    def test_both_models_are_asked(self, loaded, few):
        *_, last = stream_both(loaded, few[0], scaled(6, 0.0), max_new_tokens=3)
        assert last.dense.ids
        assert last.pruned.ids


class TestFiles:
    def test_an_edit_file_opens_as_what_was_saved(self, tmp_path):
        edit = Edit(16, (Scale(6, 0.25), Drop((3,))), name="both", notes="why", provenance={"strategy": "by hand"})
        found = open_edit(save_edit(edit, tmp_path / "edit.json"))
        assert (found, found.key, found.name, found.notes, found.provenance) == (
            edit,
            edit.key,
            edit.name,
            edit.notes,
            edit.provenance,
        )

    def test_a_mask_keeps_its_form_and_anything_else_is_no_mask(self, tmp_path):
        save_mask(PruneMask(16, (3,)), tmp_path / "mask.json")
        assert json.loads((tmp_path / "mask.json").read_text())["kind"] == "strata-mask"
        assert open_edit(tmp_path / "mask.json") == open_mask(tmp_path / "mask.json") == PruneMask(16, (3,))
        with pytest.raises(MaskError, match=r"scales the MLP of layer 6 by 0\.25"):
            save_mask(scaled(), tmp_path / "other.json")
        save_edit(scaled(), tmp_path / "edit.json")
        with pytest.raises(MaskError, match=r"edit\.json is no mask: .* scales the MLP"):
            open_mask(tmp_path / "edit.json")

    @pytest.mark.parametrize(
        "changes",
        [None, "drop", [3], [{}], [{"kind": "other"}], [{"kind": "scale-mlp"}], [{"kind": "drop", "layers": 3}], [{"kind": ["drop"]}],
         [{"kind": "scale-mlp", "layer": 99, "factor": 2}], [{"kind": "drop", "layers": [0.5]}]],
    )  # fmt: skip
    def test_a_damaged_file_is_named(self, tmp_path, changes):
        path = save_edit(scaled(), tmp_path / "edit.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"changes": changes}))
        with pytest.raises(EditError):
            open_edit(path)

    def test_an_evaluation_keeps_its_edit(self, loaded, few, dense, tmp_path):
        found = open_evaluation(save_evaluation(evaluate(loaded, few, scaled(), reference=dense), tmp_path / "e.json"))
        assert found.edit == found.mask == scaled()
        assert not found.is_dense

    def test_the_workspace_tells_edits_apart(self, loaded, few, dense, tmp_path):
        home = Workspace(tmp_path)
        evaluations = [dense, *(evaluate(loaded, few, edit, reference=dense) for edit in (scaled(), scaled(6, 0.5)))]
        items = [keep_evaluation(home, one, "one") for one in evaluations]
        assert [edit_key(item.details) for item in items] == [one.edit.key for one in evaluations]
        assert [is_dense(item.details) for item in items] == [True, False, False]
        for item, one in zip(items, evaluations, strict=True):
            assert open_item(item).edit == one.edit
        kept = keep_mask(home, scaled())
        assert open_item(kept) == scaled()
        assert (is_mask(kept.details), is_mask(keep_mask(home, PruneMask(16, (3,))).details)) == (False, True)


def test_a_strip_draws_steps():
    figure = edit_strips([("both", scaled(6, 0.5, (3,))), ("dense", Edit(16))], 16)
    drawn = figure.data[0].z
    assert [[int(value) for value in row] for row in drawn] == [
        [1 if layer == 3 else 2 if layer == 6 else 0 for layer in range(16)],
        [0] * 16,
    ]


def test_the_cost_is_measured_on_the_edited_model(loaded, few):
    cost = measure_cost(loaded, few[:1], scaled(6, 0.5, (3,)), rounds=1, new_tokens=2)
    assert cost.edit == scaled(6, 0.5, (3,))
    assert cost.n_parameters == (loaded.n_parameters, loaded.n_parameters - loaded.layer_parameters[3])
    assert cost.expected_share("prefill") == pytest.approx(1 - cost.layer_shares[0, 3])


@pytest.fixture(scope="module")
def exported(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("exported") / "edited"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KINDS, Scale.kind, Scale)
        return folder, export_checkpoint(loaded, scaled(6, 0.5, (3,)), folder)


@pytest.mark.slow  # tests/export/test_export.py exports one of dropped layers
class TestExport:
    def test_the_checkpoint_is_the_evaluated_model_to_the_last_bit(self, loaded, exported, inputs):
        folder, manifest = exported
        assert manifest.verified
        assert manifest.changes == [{"kind": "drop", "layers": [3]}, {"kind": "scale-mlp", "layer": 6, "factor": 0.5}]
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        dense, found = apply_edit(loaded.model, scaled(6, 0.5, (3,))).state_dict(), model.state_dict()
        assert dense.keys() == found.keys()
        assert all(torch.equal(dense[name], found[name]) for name in dense)

    def test_it_tells_what_was_done(self, exported):
        folder, manifest = exported
        assert open_edit(folder / "strata-edit.json") == scaled(6, 0.5, (3,))
        assert "scales the MLP of layer 6 by 0.5" in (folder / "README.md").read_text()
        assert "strata-edit.json" in manifest.reproduce

    def test_what_no_stock_class_loads_is_refused_with_the_reason(self, loaded, tmp_path: Path):
        with pytest.raises(ExportError, match=r"halves the embeddings: this test says so"):
            export_checkpoint(loaded, Edit(16, (Blur(),)), tmp_path / "no")
        assert not (tmp_path / "no").exists()
