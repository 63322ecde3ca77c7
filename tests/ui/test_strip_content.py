"""The strip's values: what it is given to draw, and what of its messages is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from vlm_analysis import Adapt, Change, Drop, Edit, Fold, PruneMask, Tensors, early_exit
from vlm_analysis.edits.kinds.table import KINDS
from vlm_analysis.figures.scales import DAMAGE, SCALES
from vlm_analysis.figures.shades import N_SHADES, palette, shades
from vlm_analysis.model_info import Locks
from vlm_analysis.ui.common.sent import MOST_UNDO, Step, read_sent
from vlm_analysis.ui.masks.strip.content import edit_row, strip_rows
from vlm_analysis.ui.masks.strip.left import key_of

HOSTILE = "![x](http://host.example/p.png) <b>$x$</b>"


def message(dropped: Any, own: Any = (), **changes: Any) -> dict[str, Any]:
    return {"base": "m:1", "number": 3, "dropped": dropped, "own": own, "undo": [], "redo": []} | changes


class TestMessages:
    def test_a_whole_mask_comes_with_its_history_and_look(self) -> None:
        sent = read_sent(message([4, 7], [5], undo=[[[], []], [[4], []]], scale="fitted", pinned=["a"]), 8)
        assert sent is not None
        assert (sent.base, sent.number, sent.now, sent.as_sent) == ("m:1", 3, Step((4, 7), (5,)), True)
        assert (sent.undo, sent.view.scale, sent.view.pinned) == ((Step(), Step((4,))), "fitted", ("a",))

    @pytest.mark.parametrize(
        ("dropped", "own", "now"),
        [
            ([2, 4], [], Step((4,))),  # 2 is locked
            ([4, 5], [5], Step((4,), (5,))),
            ([4, 8, -1, True, "5", 4.0, None], [9], Step((4,))),
            ("45", {"5": 1}, Step()),
        ],
    )
    def test_what_cannot_be_dropped_is_left_out_and_told(self, dropped: Any, own: Any, now: Any) -> None:
        sent = read_sent(message(dropped, own), 8, locked=(2,))
        assert sent is not None
        assert (sent.now, sent.as_sent) == (now, False)

    @pytest.mark.parametrize("sent", [None, 5, [], {}, {"number": "3"}, {"number": True}, message(list(range(8)))])
    def test_no_message_and_one_that_leaves_no_layer_are_none(self, sent: Any) -> None:
        assert read_sent(sent, 8) is None

    def test_vision_tokens_skip_only_where_they_can_and_one_way_a_layer(self) -> None:
        sent = read_sent(message([4], absent=[6, 7, 2], frozen=[5, 6, 1], vision=True), 8, vision_locked={1: "", 2: ""})
        assert sent is not None
        assert (sent.now, sent.as_sent, sent.view.vision) == (Step((4,), (), (6, 7), (5,)), False, True)
        undone = read_sent(message([], undo=[[[], [], [7], [6]], [[3], []]]), 8)
        assert undone is not None
        assert undone.undo == (Step((), (), (7,), (6,)), Step((3,)))

    def test_history_and_rows_in_view_are_bounded(self) -> None:
        long = message([1], undo=[[[1], []]] * 500, redo=[7, [], [[9], [3]]], pinned=[1, "a", "b", "c", "d"], scale="x")
        sent = read_sent(long, 8)
        assert sent is not None
        assert (len(sent.undo), sent.redo) == (MOST_UNDO, (Step(), Step(), Step((), (3,))))
        assert (sent.view.pinned, sent.view.scale) == (("a", "b", "c"), "fixed")


class TestContent:
    def test_rows_hold_values_and_the_heatmaps_colours(self) -> None:
        values = np.array([[0.0, 0.9, 0.999, np.nan]])
        given = strip_rows(values, [HOSTILE], np.array([1e-3, 10.0, np.nan, 0.1]))
        domain, damage = given["rows"]
        assert (given["count"], domain["name"], domain["values"][1:]) == (4, HOSTILE, ["0.9000", "0.9990", None])
        third = round((N_SHADES - 1) / 3)
        assert domain["fixed"] == [0, third, N_SHADES - 1, -1]  # -log10(1 - cosine) from 0 to 3, as in the heatmap
        assert (damage["values"], damage["fixed"]) == (["0.001", "10", None, "0.1"], [0, 100, -1, 50])
        assert [scale["fixed"] for scale in given["scales"]] == [["0", "0.999"], ["0.001", "10"]]

    def test_colours_fitted_to_a_recording_span_its_numbers(self) -> None:
        given = strip_rows(np.array([[0.99, 0.995], [0.992, 0.999]]), ["a", "b"])
        assert (given["rows"][0]["fitted"][0], given["rows"][1]["fitted"][1]) == (0, N_SHADES - 1)
        assert given["scales"][0]["fitted"] == ["0.9900", "0.9990"]
        alone = strip_rows(np.array([[np.nan], [0.5]]), ["a", "b"])
        assert [row["fitted"] for row in alone["rows"]] == [[-1], [0]]

    def test_the_edit_and_reasons_are_told_by_layer(self) -> None:
        locks = Locks(8, {0: "first"}, {2: "cache"}).keeping([5])
        told = edit_row(PruneMask(8, (4, 6)), locks)
        assert (told["dropped"], told["own"], told["changed"]) == ([4, 6], [5], {})
        assert (told["locked"], told["protected"]) == ({"2": "cache"}, {"0": "first"})

    def test_vision_tokens_have_a_row_of_their_own(self) -> None:
        told = edit_row(PruneMask(8, (7,)) + early_exit(8, 5), Locks(8), {0: "a state"})
        assert (told["dropped"], told["absent"], told["frozen"], told["changed"]) == ([7], [5, 6], [], {})
        assert told["vision_locked"] == {"0": "a state"}
        assert key_of(PruneMask(8, (7,)) + early_exit(8, 5)) == "7|5,6|||"

    def test_a_change_of_any_kind_is_drawn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        @dataclass(frozen=True)
        class Halve(Change):
            kind = "halve"
            layer: int

            @property
            def layers(self) -> dict[int, str | None]:
                return {self.layer: "half"}

            def to_json(self) -> dict[str, Any]:
                return {"layer": self.layer}

            @classmethod
            def from_json(cls, content: Any) -> Halve:
                return cls(content["layer"])

            def words(self) -> str:
                return f"halves layer {self.layer}"

            def apply(self, view: Any) -> None:
                pass

        monkeypatch.setitem(KINDS, "halve", Halve)
        told = edit_row(PruneMask(8, (4,)) + Edit(8, (Halve(6),)), Locks(8))
        assert (told["dropped"], told["changed"]) == ([4], {"6": "halves layer 6"})

    def test_what_was_learnt_is_told_at_each_layer_that_it_touches(self) -> None:
        learnt = Tensors("0" * 64)
        adapt = Adapt(learnt, ("3.mlp.up_proj", "6.mlp.up_proj", "model.visual.merger.linear_fc1"), 1.0)
        told = edit_row(Edit(8, (Drop((4,)), Fold(3, learnt), adapt)), Locks(8))
        updates = "adds low-rank updates to layers 3 and 6 and what lies ahead of the layers"
        assert told["changed"] == {"3": f"folds a linear map into layer 3; {updates}", "6": updates}


@pytest.mark.parametrize("scale", [SCALES["cosine"], SCALES["norm_ratio"], DAMAGE], ids=lambda scale: scale.unit)
def test_every_shade_has_readable_ink(scale: Any) -> None:
    def luminance(parts: tuple[int, ...]) -> float:  # WCAG 2.2
        linear = [part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    for colour, ink in palette(scale):
        parts = tuple(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
        one, other = sorted([luminance(parts), 0.0 if ink == "#000" else 1.0])
        assert (other + 0.05) / (one + 0.05) > 4.5


def test_no_value_has_no_shade() -> None:
    assert shades(np.array([np.nan, 2.0, -5.0]), SCALES["cosine"]).tolist() == [-1, N_SHADES - 1, 0]
