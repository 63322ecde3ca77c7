"""The Model page spreads a model over memory and disk, says where its weights are, and offers it again with the same bounds."""

from __future__ import annotations

from acting import OpenPage, press, put, ran, settled, wait_for, words

from vlm_analysis.ui.common.session import model_slot, workspace
from vlm_analysis.workbench.recent import RecentModel, note_model


def test_a_model_is_spread_and_says_where_its_weights_are(open_page: OpenPage) -> None:
    at = put(open_page("pages/1_model.py"), model_spread=True, model_memory="cpu=3MB")
    at = wait_for(press(at, "Load"), "Decoder layers that should stay")
    assert model_slot().arguments[1]["max_memory"] == "cpu=3MB"
    table = next(frame.value for frame in at.dataframe if "where" in frame.value)
    assert list(table["where"]) == ["cpu", "disk"]
    assert table["weights"].sum() == model_slot().loaded.n_parameters * 4 / 2**20
    assert any("--device-map auto --max-memory cpu=3MB" in code.value for code in at.code)
    model_slot().unload()


def test_a_bound_that_is_none_says_what_to_write(open_page: OpenPage) -> None:
    at = put(open_page("pages/1_model.py"), model_spread=True, model_memory="cpu 3MB")
    at = settled(press(at, "Load"))
    assert "No bound of memory: expected DEVICE=SIZE" in words(at).replace("\\", "")


def test_it_is_offered_again_with_its_bounds(open_page: OpenPage) -> None:
    open_page("pages/1_model.py")
    note_model(workspace(), RecentModel("/a/vlm", "vlm", {"device_map": "auto", "max_memory": "cpu=3MB"}))
    at = open_page("pages/1_model.py")
    at.button_group(key="model_recent").set_value("/a/vlm")
    ran(at)
    assert (at.checkbox(key="model_spread").value, at.text_input(key="model_memory").value) == (True, "cpu=3MB")
