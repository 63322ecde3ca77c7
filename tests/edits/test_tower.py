"""Layers of the vision encoder are left out: as a value, in a sweep, and in an export that a fresh process loads."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from oracles import ask, same_weights, weights_of
from torch.nn.modules.module import register_module_forward_hook

from vlm_analysis import (
    Drop,
    Edit,
    LoadedModel,
    PromptSet,
    PruneMask,
    Tower,
    apply_edit,
    evaluate,
    export_checkpoint,
    measure_cost,
    open_edit,
    save_edit,
    sweep,
)
from vlm_analysis.errors import EditError
from vlm_analysis.evaluation.run.prepared import prepare
from vlm_analysis.evaluation.run.sharing import SharedRunner, ordered
from vlm_analysis.model_info import ModelInfo, TowerInfo

CUT = Edit(16, (Tower(3, (2,)),))  # the bundled model's: the layers before are read by DeepStack


class TestTheValue:
    def test_it_stands_first_and_changes_no_decoder_layer(self):
        edit = PruneMask(16, (3,)) + CUT
        assert [change.kind for change in edit.changes] == ["tower", "drop"]
        assert not edit.is_mask
        assert edit.steps.layers == PruneMask(16, (3,)).steps.layers
        assert edit.steps.before == CUT.steps.before != Edit(16).steps.before
        assert edit.words() == "drops layer 2 of the vision encoder and drops layer 3"

    def test_two_towers_are_equal_before_the_decoder_only_where_the_same_layers_go(self):
        one, other = (Edit(4, (Tower(6, dropped),)) for dropped in ((1,), (1, 2)))
        assert one.steps.before != other.steps.before != Edit(4, (Tower(7, (1, 2)),)).steps.before
        assert one + Edit(4, (Tower(6, [2]),)) == other  # type: ignore[arg-type]
        assert Edit(4, (Tower(6, ()),)) == Edit(4)

    @pytest.mark.parametrize(
        ("n_layers", "dropped", "said"),
        [
            (3, (3,), r"expected whole numbers 0\.\.2, got 3"),
            (3, (0, 1, 2), "must keep a layer"),
            (3, (1, 1), "once"),
            (3, "1", "expected their numbers"),
            (0, (), "number of its layers: expected a whole number"),
            (True, (), "number of its layers"),
        ],
    )
    def test_what_is_no_tower_is_refused(self, n_layers: Any, dropped: Any, said: str):
        with pytest.raises(EditError, match=said):
            Tower(n_layers, dropped)

    def test_towers_of_two_sizes_contradict_each_other(self):
        with pytest.raises(EditError, match="contradict each other: expected towers of 3 layers, got one of 4"):
            _ = CUT + Edit(16, (Tower(4, (1,)),))

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"n_layers": "3"}, "expected a whole number"),
            ({"n_layers": 2}, r"expected whole numbers 0\.\.1, got 2"),
            ({"dropped": 2}, "expected a list of layers as 'dropped', got 2"),
        ],
    )
    def test_a_damaged_file_is_refused(self, tmp_path: Path, change: dict[str, Any], said: str):
        path = save_edit(CUT, tmp_path / "cut.json")
        assert open_edit(path) == CUT
        content = json.loads(path.read_text("utf-8"))
        content["changes"][0] |= change
        path.write_text(json.dumps(content), "utf-8")
        with pytest.raises(EditError, match=said):
            open_edit(path)


class TestWhatTheModelSays:
    info = ModelInfo("m", "f" * 64, 4, tower=TowerInfo(3, (5, 6, 7), {0: "first"}, {1: "it is read"}, (2,)))

    def test_it_is_kept_with_saved_work_and_older_work_has_none(self):
        content = json.loads(json.dumps(asdict(self.info)))
        assert ModelInfo.from_json(content) == self.info
        del content["tower"]
        assert ModelInfo.from_json(content) == replace(self.info, tower=None)

    @pytest.mark.parametrize("change", [{"locked": {"3": "no"}}, {"unread": [4]}, {"layer_parameters": [1, 2]}])
    def test_one_that_does_not_fit_together_is_refused(self, change: dict[str, Any]):
        content = asdict(self.info)
        content["tower"] |= change
        with pytest.raises(ValueError, match=r"of a tower of 3|of 3 layers of the tower"):
            ModelInfo.from_json(content)

    @pytest.mark.parametrize(
        ("tower", "said"),
        [
            (Tower(3, (1,)), "Layer 1 of the vision encoder cannot be dropped: it is read"),
            (Tower(4, (2,)), "expected one for a vision encoder of 3 layers, got one for 4"),
        ],
    )
    def test_it_says_why_a_tower_does_not_fit(self, tower: Tower, said: str):
        assert said in Edit(4, (tower,)).refuses(self.info)
        assert not Edit(4, (tower,)).refuses(replace(self.info, tower=None))
        missing = replace(self.info, tower=TowerInfo(0, missing="it has none"))
        assert "can be dropped: it has none" in Edit(4, (tower,)).refuses(missing)

    def test_parameters_of_its_layers_are_saved(self):
        edit = Edit(4, (Tower(3, (0, 2)), Drop((1,))))
        info = replace(self.info, layer_parameters=(1, 10, 100, 1000))
        assert edit.saved_parameters(info) == 5 + 7 + 10
        assert edit.saved_parameters(replace(info, tower=None)) == 10


@torch.no_grad()
def test_the_dense_model_never_notices_and_the_weights_are_shared(loaded: LoadedModel, few: PromptSet):
    inputs, before = ask(loaded, few[0]), weights_of(loaded.model)
    dense = loaded.model(**inputs).logits
    view: Any = apply_edit(loaded.model, CUT)
    assert not torch.equal(view(**inputs).logits, dense)
    assert torch.equal(loaded.model(**inputs).logits, dense)
    assert same_weights(loaded.model, before)
    stored = {parameter.data_ptr() for parameter in loaded.model.parameters()}
    assert {parameter.data_ptr() for parameter in view.parameters()} < stored
    mask = PruneMask(16, (4,))
    once, twice = apply_edit(loaded.model, CUT + mask), apply_edit(view, mask)
    assert torch.equal(once(**inputs).logits, twice(**inputs).logits)


def test_a_sweep_gives_the_scores_that_each_has_alone(loaded: LoadedModel, few: PromptSet):
    few, dense = few[:3], evaluate(loaded, few[:3])
    masks = [PruneMask(16, layers) for layers in ((6,), (6, 9))]
    edits = [*masks, CUT, *(CUT + mask for mask in masks)]
    for edit, found in zip(edits, sweep(loaded, few, edits, reference=dense, batch_size=2), strict=True):
        alone = evaluate(loaded, few, edit, reference=dense, batch_size=2)
        pd.testing.assert_frame_equal(found.by_prompt, alone.by_prompt, check_exact=True)


def test_each_tower_runs_once_a_batch_and_prefixes_are_shared_among_equal_ones_only(
    loaded: LoadedModel, few: PromptSet
):
    masks = [PruneMask(16), PruneMask(16, (6,)), PruneMask(16, (9,))]
    plan = ordered([edit for mask in masks for edit in (mask, CUT + mask)])
    items, runner = [prepare(loaded, few[:1]).encoded[0]], SharedRunner(loaded)
    list(runner.run(items, plan))  # with the trial
    seen, run = [], runner.layers_run

    def count(module: Any, args: Any, output: Any) -> None:
        if "VisionModel" in type(module).__name__:
            seen.append(len(module.blocks))

    handle = register_module_forward_hook(count)
    try:
        list(runner.run(items, plan))
    finally:
        handle.remove()
    assert sorted(seen) == [2, 3]
    assert runner.layers_run - run == 2 * (16 + (16 - 7) + (16 - 10))


def test_it_is_timed_and_its_parameters_and_bytes_are_counted(loaded: LoadedModel, few: PromptSet):
    cost = measure_cost(loaded, few[:1], CUT, rounds=1, new_tokens=2)
    tower = loaded.info.tower
    assert tower is not None
    assert cost.n_parameters[0] - cost.n_parameters[1] == tower.layer_parameters[2] == CUT.saved_parameters(loaded.info)
    assert cost.n_bytes[0] - cost.n_bytes[1] == 4 * tower.layer_parameters[2]


def test_a_fresh_process_loads_the_export_equal_to_the_last_bit(loaded: LoadedModel, tmp_path: Path):
    manifest = export_checkpoint(loaded, CUT + PruneMask(16, (6,)), tmp_path / "cut")
    assert manifest.verified
    assert manifest.fresh_process
    config = json.loads((tmp_path / "cut" / "config.json").read_text("utf-8"))
    assert config["vision_config"]["depth"] == 2
    assert config["vision_config"]["deepstack_visual_indexes"] == [0, 1]
    assert manifest.changes[0] == {"kind": "tower", "n_layers": 3, "dropped": [2]}
