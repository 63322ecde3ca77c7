"""Settings of other tools in which vision tokens skip layers: they open as edits, are written again, and refused where no edit says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm_analysis import (
    Edit,
    PruneMask,
    early_exit,
    edit_to_fastv,
    edit_to_shortv,
    edit_to_vtw,
    freeze,
    late_entry,
    open_dialect,
    open_edit,
)
from vlm_analysis.errors import EditError, MaskError, NoLayerCountError

FASTV = "python demo.py --use-fast-v --fast-v-sys-length 36 --fast-v-agg-layer 3 --fast-v-attention-rank "


@pytest.mark.parametrize(
    ("text", "edit", "tool"),
    [
        ('export REPLACED_LAYERS="5,6,0"\npython -m llava.serve.cli', freeze(8, [0, 5, 6]), "ShortV"),
        ("REPLACED_LAYERS=7", freeze(8, [7]), "ShortV"),
        ("--use_vtw --k=5", early_exit(8, 5), "VTW"),
        ("python -m lmms_eval --use_vtw --k 0", early_exit(8, 0), "VTW"),
        (f"{FASTV}0", early_exit(8, 3), "FastV"),
    ],
)
def test_they_open_as_edits(tmp_path: Path, text: str, edit: Edit, tool: str) -> None:
    found = open_dialect(text.encode(), "run.txt", n_layers=8)
    assert (found, found.provenance["opened_from"]) == (edit, tool)
    (tmp_path / "run.txt").write_text(text)
    assert open_edit(tmp_path / "run.txt", n_layers=8) == edit
    with pytest.raises(NoLayerCountError):
        open_dialect(text.encode(), "run.txt")


def test_a_json_object_of_shortv_opens() -> None:
    assert open_dialect(b'{"replaced_layers": [6, 5]}', "m.json", n_layers=8) == freeze(8, [5, 6])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("REPLACED_LAYERS=8", r"no edit of this model.*0\.\.7, got 8"),
        ("REPLACED_LAYERS=1,1", "each layer once"),
        ("REPLACED_LAYERS=", "layer numbers with commas"),
        ("--use_vtw", "one whole number after --k, got none"),
        ("--use_vtw --k=9", r"no edit of this model.*0\.\.8, got 9"),
        ("--use_vtw --k=x --k=3", "one whole number after --k, got x, 3"),
        (f"{FASTV}288", r"288 vision tokens that stay \(FastV\)"),
        ("--use-fast-v", "one whole number after --fast-v-attention-rank"),
    ],
)
def test_what_no_edit_says_is_refused(text: str, said: str) -> None:
    with pytest.raises(MaskError, match=said):
        open_dialect(text.encode(), "run.txt", n_layers=8)


def test_they_are_written_again() -> None:
    assert edit_to_shortv(freeze(8, [6, 5])) == 'export REPLACED_LAYERS="5,6"\n'
    assert edit_to_vtw(early_exit(8, 5, form="sliced")) == "--use_vtw --k=5\n"
    for write, edit in (
        (edit_to_shortv, freeze(8, [2])),
        (edit_to_vtw, early_exit(8, 0)),
        (edit_to_fastv, early_exit(8, 3)),
    ):
        assert open_dialect(write(edit).encode(), "run.txt", n_layers=8) == edit


@pytest.mark.parametrize(
    ("write", "edit"),
    [
        (edit_to_shortv, early_exit(8, 3)),
        (edit_to_shortv, freeze(8, [3]) + PruneMask(8, [1])),
        (edit_to_shortv, Edit(8)),
        (edit_to_vtw, late_entry(8, 3)),
        (edit_to_vtw, Edit(8)),
        (edit_to_fastv, early_exit(8, 3) + freeze(8, [1])),
    ],
)
def test_an_edit_that_a_tool_cannot_say_is_not_written(write, edit) -> None:
    with pytest.raises(EditError, match=r"cannot be written for \w+: expected .*Save it as JSON"):
        write(edit)
