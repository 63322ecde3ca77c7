"""The vision encoder's layers on the Masks page: dropped by hand or proposed, held by the editor, and known to the pages behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from acting import (
    PATIENCE_S,
    OpenPage,
    finish,
    hold_bundled,
    load_mask,
    masks_of,
    press,
    put,
    ran,
    send,
    strip,
    wait_for,
    words,
)
from rankings import full_recording, with_tower
from streamlit.testing.v1 import AppTest

from vlm_analysis import (
    Drop,
    Edit,
    LoadedModel,
    PromptSet,
    PruneMask,
    Recording,
    Tower,
    evaluate,
    make_tower,
    measure_cost,
    record,
    retention,
    speedup,
)
from vlm_analysis.model_info import TowerInfo
from vlm_analysis.ui.common.held import untimed
from vlm_analysis.ui.common.sent import Step, read_sent
from vlm_analysis.ui.common.session import workspace
from vlm_analysis.ui.masks.strip.left import costs_of, key_of
from vlm_analysis.workbench.shelf import keep_mask, keep_recording, open_item

ROOT, MASKS = Path(__file__).resolve().parents[2], "pages/4_masks.py"
INFO = TowerInfo(6, (10,) * 6, protected={0: "first <b>layer</b>"}, locked={2: "DeepStack"}, unread=(5,))
PLAIN = full_recording(6)
MADE = with_tower(PLAIN, np.random.default_rng(5).uniform(0.2, 0.99, (6, 6)), INFO)


def opened(open_page: OpenPage, recording: Recording = MADE) -> AppTest:
    """Return the Masks page with the recording on it, its only one."""
    open_page(MASKS)  # sets the workspace
    keep_recording(workspace(), recording, "made")
    return open_page(MASKS)


@pytest.mark.parametrize(("said", "dropped"), [("0-5", ()), ("9" * 5000, ()), ("3,3 1", (1, 3)), ("1-3", (1, 3))])
def test_an_address_drops_layers_that_are_there_and_may_go_and_never_all(
    open_page: OpenPage, said: str, dropped: tuple[int, ...]
) -> None:
    open_page(MASKS)
    keep_recording(workspace(), MADE, "made")
    at = AppTest.from_file(str(ROOT / MASKS), default_timeout=PATIENCE_S)
    at.query_params["tower"] = said
    assert ran(at).session_state["mask_tower"].dropped == dropped
    assert ("names a tower for 6 layers that is not here" in words(at)) == (not dropped)


def lines(at: AppTest) -> list[str]:
    return [one.value for one in at.code]


def test_its_layers_stand_below_with_their_similarity_and_why_some_stay(open_page: OpenPage) -> None:
    shown = strip(opened(open_page))["encoder"]
    means = MADE.rows["tower_cosine"].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose([float(one) for one in shown["rows"][0]["values"]], means, atol=5e-5)
    assert (shown["count"], shown["locked"], shown["unread"]) == (6, {"2": "DeepStack"}, [5])
    assert "Layer 2 is locked: DeepStack." in shown["guarded"]
    assert "Layer 0 is protected: first <b>layer</b>." in shown["guarded"]


@pytest.mark.parametrize("unprotect", [False, True])
def test_the_first_of_the_order_are_what_make_tower_drops(open_page: OpenPage, unprotect: bool) -> None:
    at = put(opened(open_page), mask_unprotect=unprotect)
    order = strip(at)["encoder"]["order"]
    assert len(order) == 4 + unprotect
    for n in range(1, len(order) + 1):
        (change,) = make_tower(MADE, n, unprotect=unprotect).changes
        assert change == Tower(6, tuple(order[:n]))


@pytest.mark.parametrize(
    ("recording", "why"),
    [
        (PLAIN, None),
        (replace(PLAIN, model=replace(PLAIN.model, tower=TowerInfo(0, missing="it has several"))), None),
        (with_tower(PLAIN, np.full((6, 6), np.nan), INFO), "its prompts have no image"),
    ],
)
def test_without_an_encoder_there_is_no_strip_and_without_numbers_no_proposal(
    open_page: OpenPage, recording: Recording, why: str | None
) -> None:
    shown = strip(opened(open_page, recording))["encoder"]
    if why is None:
        assert shown is None
    else:
        assert (shown["order"], shown["rows"][0]["values"]) == ([], [None] * 6)
        assert why in shown["why"]


def test_the_editor_holds_them_through_a_refresh_undo_saving_loading_and_the_address(open_page: OpenPage) -> None:
    at = send(opened(open_page), [4], tower=[2, 3, 5])
    assert (strip(at)["dropped"], strip(at)["tower"]) == ([4], [3, 5])  # 2 is locked
    assert at.query_params["tower"] == "3 5"
    assert at.session_state["mask_undo"][-1] == Step()
    assert any("--drop 4 --drop-tower 3,5" in line for line in lines(at))
    assert strip(open_page(MASKS))["tower"] == [3, 5]
    press(at, "Save mask")
    item = workspace().items("masks")[0]
    assert open_item(item) == PruneMask(9, [4]) + Edit(9, (Tower(6, (3, 5)),))
    assert item.name == "drops layers 3 and 5 of the vision encoder and drops layer 4"
    send(at, [], tower=[1])
    assert any("--drop-tower 1" in line and "--drop " not in line for line in lines(at))
    load_mask(at, item.name)
    assert (strip(at)["dropped"], strip(at)["tower"]) == ([4], [3, 5])
    again = AppTest.from_file(str(ROOT / MASKS), default_timeout=PATIENCE_S)
    again.query_params.update({"cut": "6", "tower": "1 3"})
    assert strip(ran(again))["tower"] == [1, 3]


def test_a_message_drops_only_layers_that_the_encoder_has_and_lets_go() -> None:
    message = {
        "base": "m",
        "number": 1,
        "dropped": [3],
        "own": [],
        "tower": [5, 1],
        "undo": [[[], [], [], [], [], [2, 3]]],
    }
    sent = read_sent(message, 8, tower=INFO)
    assert sent is not None
    assert (sent.now, sent.undo) == (Step((3,), tower=(1, 5)), (Step(tower=(3,)),))
    for odd in ([2], [6], "13", [True], [[1]], None):
        refused = read_sent(message | {"tower": odd}, 8, tower=INFO)
        assert refused is not None
        assert (refused.now, refused.as_sent) == (Step((3,)), False)
    assert read_sent(message | {"tower": [0, 1]}, 8, tower=TowerInfo(2)) is None  # none would stay
    without = read_sent(message, 8)
    assert without is not None
    assert without.now.tower == ()


def test_an_edit_of_another_encoder_leaves_the_editor_without_its_layers(open_page: OpenPage) -> None:
    opened(open_page)
    keep_mask(workspace(), Edit(9, (Drop((4,)), Tower(7, (3,))), name="other", model=MADE.model))
    at = load_mask(open_page(MASKS), "other")
    assert (strip(at)["dropped"], strip(at)["tower"]) == ([4], [])
    assert any("Layers of the vision encoder were left out" in one.value for one in at.toast)


def test_it_is_evaluated_timed_apart_and_known_by_its_key(
    stocked: Callable[[str], AppTest], loaded: LoadedModel, few: PromptSet
) -> None:
    hold_bundled()
    stocked(MASKS)
    keep_recording(workspace(), record(loaded, few, batch_size=1), "with the encoder")
    at = send(stocked(MASKS), [], tower=[2])
    edit = Edit(16, (Tower(3, (2,)),))
    assert strip(at)["result"]["edit"] == key_of(edit) == "||||2"
    assert strip(at)["costs"]["tower"] == list(loaded.info.tower.layer_parameters)
    at = stocked("pages/5_evaluate.py")
    press(at, "Prune and evaluate")
    wait_for(at, "edited: drops layer 2 of the vision encoder")
    assert open_item(workspace().items("evaluations")[0]).edit == edit
    assert untimed(edit, None) == "what layers of the vision encoder save"
    assert f"{untimed(edit, None)} is not in the layers' own times" in words(at)
    assert strip(stocked(MASKS))["result"]["state"] == "known"


def test_it_stands_among_the_masks_and_beside_another(
    stocked: Callable[[str], AppTest], loaded: LoadedModel, few: PromptSet
) -> None:
    hold_bundled()
    edit = Edit(16, (Tower(3, (2,)),), name="encoder", model=loaded.info)
    stocked(MASKS)
    keep_mask(workspace(), edit)
    at = stocked(MASKS)
    row = masks_of(at).set_index("name").loc["encoder"]
    assert row["parameters"] == pytest.approx(100 * edit.saved_parameters(loaded.info) / loaded.info.n_parameters)
    names = masks_of(at)["name"].tolist()
    ticked = {names.index(name): {"ticked": True} for name in ("encoder", "five and nine")}
    at.session_state[at.session_state["masks:table"]] = {"edited_rows": ticked, "added_rows": [], "deleted_rows": []}
    press(ran(at), next(one.label for one in at.button if one.label.startswith("Evaluate 1 ticked mask")))
    finish("masks")
    said = words(ran(at)).replace("\\", "")
    assert "encoder drops layer 2 of the vision encoder" in said
    dense = evaluate(loaded, few)
    kept = retention(evaluate(loaded, few, edit, reference=dense), dense)
    shown = masks_of(at).set_index("name").loc["encoder", ["kept:general", "kept:math"]]
    assert shown.tolist() == pytest.approx([100 * kept["general"], 100 * kept["math"]])


def test_the_strip_is_told_the_time_of_each_layer_once_it_was_measured(loaded: LoadedModel, few: PromptSet) -> None:
    cost = measure_cost(loaded, few[:1], Edit(16, (Tower(3, (2,)),)), rounds=1, new_tokens=2)
    told = costs_of(loaded.info, [cost])
    assert told["tower_shares"] == cost.encoder_shares.tolist()
    assert len(told["tower_shares"]) == 3
    assert told["timed"]["||||2"][0] == f"{1 / speedup(cost, 'prefill')[0]:.2f}"
    assert costs_of(loaded.info)["tower_shares"] == []
    assert (untimed(cost.edit, cost), untimed(cost.edit, None) != "") == ("", True)
