"""Tensors that were learnt: their hash, their file beside the edit's, and edits that must not be taken apart. Values only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from vlm_analysis import Edit, Fold, PruneMask, Tensors, open_edit, save_edit, save_mask
from vlm_analysis.errors import EditError, MaskError
from vlm_analysis.workbench.shelf import keep_mask, open_item, write_notes
from vlm_analysis.workbench.workspace import Workspace

BASE = PruneMask(8, (3, 5))


def tensors(seed: int = 0, size: int = 4) -> Tensors:
    return Tensors.of({"mlp.down_proj": np.random.default_rng(seed).normal(size=(size, size)).astype("f4")})


def repaired(seed: int = 0, layer: int = 2) -> Edit:
    return BASE + Edit(8, (Fold(layer, tensors(seed), learnt_on=BASE.key),), name="repaired")


def test_tensors_are_equal_when_their_numbers_are():
    assert tensors() == tensors() != tensors(1)
    assert hash(repaired()) == hash(repaired())
    assert repaired().key == repaired().key != repaired(1).key
    assert dict(repaired().steps.layers)[2] != dict(repaired(1).steps.layers)[2]
    half = Tensors.of({name: values.astype("f2") for name, values in tensors().read().items()})
    assert half != tensors()
    assert Tensors.of({"other": tensors().read()["mlp.down_proj"]}) != tensors()


def test_tensors_that_are_held_are_a_copy_that_cannot_be_changed():
    values = np.zeros((2, 2))
    held = Tensors.of({"w": values})
    values[:] = 1
    assert not held.read()["w"].any()
    with pytest.raises(ValueError, match="read-only"):
        held.read()["w"][:] = 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "got none"),
        ({"w": np.array([1, 2])}, "float16, float32 or float64, got int"),
        ({"w": np.array([1.0, np.nan])}, "expected finite numbers"),
        ({"w": np.array([np.inf], "f2")}, "expected finite numbers"),
    ],
)
def test_what_is_no_tensor_of_finite_numbers_is_refused(given, said):
    with pytest.raises(EditError, match=said):
        Tensors.of(given)


def test_an_edit_is_saved_with_its_tensors_beside_it_and_opens_the_same(tmp_path: Path):
    edit = Edit(8, (*repaired().changes, Fold(4, tensors(1)), Fold(6, tensors(1))), name="both")
    path = save_edit(edit, tmp_path / "edit.json")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["edit.json", "edit.safetensors"]
    assert len(load_file(tmp_path / "edit.safetensors")) == 2, "equal tensors are written once"
    found = open_edit(path)
    assert (found, found.key, found.name) == (edit, edit.key, "both")
    assert "4." not in json.loads(path.read_text())["changes"][1]["tensors"]
    for one, other in zip(found.changes[1:], edit.changes[1:], strict=True):
        assert one.learnt_on == other.learnt_on
        np.testing.assert_array_equal(one.tensors.read()["mlp.down_proj"], other.tensors.read()["mlp.down_proj"])


def test_an_edit_that_was_opened_is_saved_elsewhere_and_in_its_own_place(tmp_path: Path):
    path = save_edit(repaired(), tmp_path / "edit.json")
    again = open_edit(save_edit(open_edit(path), tmp_path / "more" / "again.json"))
    assert again == open_edit(save_edit(open_edit(path), path)) == repaired()


def test_a_mask_has_no_file_beside_it(tmp_path: Path):
    save_edit(BASE, tmp_path / "mask.json")
    assert [each.name for each in tmp_path.iterdir()] == ["mask.json"]


def other_numbers(path: Path) -> None:
    stored = load_file(path)
    save_file({name: values + 1 for name, values in stored.items()}, path)


def not_finite(path: Path) -> None:
    stored = load_file(path)
    save_file({name: values * np.float32(np.inf) for name, values in stored.items()}, path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "cannot be read: .*Put the file back"),
        (lambda path: path.write_bytes(path.read_bytes()[:-8]), "cut short"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-8]),
            r"is cut short: expected [0-9]+ bytes, got [0-9]+\. Put the file back beside the edit's, or make the edit again\.$",
        ),
        (lambda path: path.write_bytes(b"\xff" * 64), "cannot be read"),
        (lambda path: save_file({"mlp.down_proj": np.zeros((4, 4), "f4")}, path), "got none of them"),
        (other_numbers, "holds other tensors: expected those with the hash"),
        (not_finite, "expected finite numbers"),
        (lambda path: save_file({f"{tensors().sha256}.w": np.zeros(4, "i8")}, path), "a tensor of I64"),
    ],
)
def test_an_edit_without_its_own_tensors_does_not_open(tmp_path: Path, damage, said):
    path = save_edit(repaired(), tmp_path / "edit.json")
    damage(tmp_path / "edit.safetensors")
    with pytest.raises(EditError, match=said):
        open_edit(path)


def test_an_edit_is_not_saved_over_its_tensors_or_without_them(tmp_path: Path):
    with pytest.raises(EditError, match=r"Name it edit\.json"):
        save_edit(repaired(), tmp_path / "edit.safetensors")
    alone = Edit(8, (Fold(2, Tensors(tensors().sha256)),))
    with pytest.raises(EditError, match="got their hash only"):
        save_edit(alone, tmp_path / "edit.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content", [{"layer": 2}, {"layer": 2, "tensors": "x"}, {"layer": 2, "tensors": 5}, {"layer": "2", "tensors": "0" * 64},
                {"layer": 9, "tensors": "0" * 64}, {"layer": 2, "tensors": "0" * 64, "learnt_on": 3}]
)  # fmt: skip
def test_a_damaged_fold_is_named(tmp_path: Path, content):
    path = save_edit(repaired(), tmp_path / "edit.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"changes": [{"kind": "fold", **content}]}))
    with pytest.raises(EditError):
        open_edit(path)


def test_what_was_learnt_stays_with_the_edit_that_it_was_learnt_on():
    edit = repaired()
    assert edit.before(edit.changes[-1]) == BASE
    with pytest.raises(
        EditError, match=r"folds a linear map into layer 2 to stay with the edit .* drops layers 3, 5 and 6"
    ):
        _ = edit + PruneMask(8, (6,))
    with pytest.raises(EditError, match="got one that changes nothing"):
        _ = Edit(8) + Edit(8, edit.changes[1:])
    assert Edit(8, (*PruneMask(8, (6,)).changes, *edit.changes)).dropped == (3, 5, 6), "asked for by name"
    assert edit + Edit(8, (Fold(4, tensors(1), learnt_on=BASE.key),))
    assert Edit(8, (Fold(2, tensors()),)) + BASE, "learnt on none"


def test_a_layer_that_is_dropped_or_does_not_exist_takes_no_fold():
    with pytest.raises(EditError, match="layer 3 is left out and changed"):
        Edit(8, (*BASE.changes, Fold(3, tensors())))
    with pytest.raises(EditError, match=r"0\.\.7, got 8"):
        Edit(8, (Fold(8, tensors()),))
    with pytest.raises(MaskError, match=r"folds a linear map into layer 2"):
        save_mask(repaired(), Path("nowhere.json"))


def test_the_workspace_keeps_the_tensors_with_their_edit(tmp_path: Path):
    home = Workspace(tmp_path)
    item = keep_mask(home, repaired())
    tensors_file = item.path.with_suffix(".safetensors")
    assert tensors_file.exists()
    assert open_item(write_notes(home, item, "noted")) == repaired()
    home.delete(item)
    assert not tensors_file.exists()
    assert [each for each in (tmp_path / "masks").iterdir() if each.is_file()] == []
