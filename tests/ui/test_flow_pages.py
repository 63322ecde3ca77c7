"""Every page but Prompts: empty, full, and its action, on the real model."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from acting import (
    PATIENCE_S,
    OpenPage,
    hold_bundled,
    load_bundled,
    load_mask,
    ran,
    send,
    settled,
    strip,
    wait_for,
    words,
)
from streamlit.testing.v1 import AppTest

from vlm_analysis import PromptSet, PruneMask, record
from vlm_analysis.errors import ModelError
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.progress import no_progress
from vlm_analysis.ui.common.session import bench, last_choices, model_slot, opened, runner, workspace
from vlm_analysis.ui.common.work import job
from vlm_analysis.workbench.shelf import keep_evaluation, keep_mask, keep_prompts, keep_recording

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "app.py": "No result yet",
    "pages/1_model.py": "No model is loaded",
    "pages/3_similarity.py": "There are no prompts to record on",
    "pages/4_masks.py": "Masks start from a recording",
    "pages/5_evaluate.py": "There is no mask to evaluate",
    "pages/7_export.py": "There is no mask to export",
}


@pytest.mark.parametrize("page", PAGES)
def test_empty_page_names_the_next_step(open_page, page):
    assert PAGES[page] in words(open_page(page))


@pytest.mark.parametrize(
    ("page", "sign"),
    [
        ("app.py", "five and nine on a few"),
        ("pages/3_similarity.py", "works harder on"),
        ("pages/4_masks.py", "Propose"),
        ("pages/5_evaluate.py", "What broke"),
        ("pages/7_export.py", "Drops 2 of 16 layers: 5, 9"),
    ],
)
def test_full_page_shows_what_is_there(stocked, page, sign):
    at = stocked(page)
    assert not at.error
    assert sign in words(at)


def test_bundled_model_loads_and_shows_why_layers_should_stay(stocked):
    at = load_bundled(stocked)
    assert at.metric[0].value == "16"
    reasons = at.dataframe[0].value
    assert list(reasons["layer"]) == [0, 1, 15]
    assert "DeepStack" in reasons["why"][1]


def test_folder_that_is_no_model_is_one_clear_message(stocked, tmp_path):
    at = stocked("pages/1_model.py")
    at.segmented_control(key="model_kind").set_value("Folder on this machine")
    ran(at)
    at.text_input[0].set_value(str(tmp_path / "nowhere"))
    ran(at)
    next(button for button in at.button if button.label == "Load").click()
    wait_for(at, "No model at")
    assert len(at.error) == 1
    assert not at.expander or "For a bug report" not in [expander.label for expander in at.expander]


def test_loading_another_model_asks_first(stocked):
    at = load_bundled(stocked)
    load = next(button for button in at.button if button.label == "Load")
    assert load.disabled
    at.checkbox(key="unload_agreed").check()
    ran(at)
    assert not next(button for button in at.button if button.label == "Load").disabled


def test_record_button_makes_a_recording_and_draws_it(stocked):
    hold_bundled()
    before = len(workspace().items("recordings"))
    at = stocked("pages/3_similarity.py")
    next(button for button in at.button if button.label == "Record").click()
    ran(at)
    settled(at)
    assert len(workspace().items("recordings")) == before + 1
    figure = json.loads(at.get("plotly_chart")[0].proto.spec)
    assert figure["data"][0]["type"] == "heatmap"


def test_heatmap_follows_the_token_group(stocked):
    at = stocked("pages/3_similarity.py")
    every = at.get("plotly_chart")[0].proto.spec
    at.segmented_control(key="similarity_group").set_value("vision")
    ran(at)
    assert at.get("plotly_chart")[0].proto.spec != every


class TestMasksPage:
    @pytest.fixture
    def at(self, stocked: OpenPage) -> AppTest:
        return stocked("pages/4_masks.py")

    def test_what_the_strip_sends_is_the_mask_with_its_history_and_locks(self, at):
        send(at, [4, 8], own=[6])
        assert at.session_state["mask"] == [4, 8]
        given = strip(at)
        assert (given["dropped"], given["own"], given["undo"], given["redo"]) == (
            [4, 8],
            [6],
            [[[], [], [], [], [], []]],
            [],
        )
        send(at, [], undo=[], redo=[[[4, 8], [6]]])
        assert (at.session_state["mask"], strip(at)["redo"]) == ([], [[[4, 8], [6], [], [], [], []]])

    def test_a_message_is_taken_once_and_none_that_builds_on_another_mask(self, at):
        send(at, [4])
        first = at.session_state["mask_strip"]
        load_mask(at)
        loaded = at.session_state["mask"]
        assert (loaded != [4], strip(at)["undo"]) == (True, [[[], [], [], [], [], []], [[4], [], [], [], [], []]])
        at.session_state["mask_strip"] = {"sent": {**first["sent"], "number": 9}}  # sent before the candidate was there
        assert ran(at).session_state["mask"] == loaded

    def test_protected_layers_go_only_when_they_may_and_locked_ones_never(self, at):
        assert (strip(at)["unprotected"], "0" in strip(at)["protected"]) == (False, True)
        at.toggle(key="mask_unprotect").set_value(True)
        assert strip(ran(at))["unprotected"]

    def test_layers_that_the_user_locked_are_saved_with_the_mask_and_no_candidate(self, at):
        at.slider(key="candidate_budget").set_value(4)
        taken = ran(at).session_state["mask_candidates"]["Block influence"].dropped
        send(at, [13], own=taken[:2])
        assert not set(taken[:2]) & set(at.session_state["mask_candidates"]["Block influence"].dropped)
        next(button for button in at.button if button.label == "Save mask").click()
        ran(at)
        saved = json.loads(workspace().items("masks")[0].path.read_text())
        assert saved["provenance"]["own_locks"] == list(taken[:2])
        send(at, [13], own=[])
        load_mask(at, "drops 13")
        assert strip(ran(at))["own"] == list(taken[:2])

    def test_candidate_is_taken_into_the_editor(self, at):
        at.slider(key="candidate_budget").set_value(4)
        ran(at)
        load_mask(at)
        assert len(at.session_state["mask"]) == 4

    def test_saved_mask_keeps_name_notes_and_where_it_came_from(self, at):
        load_mask(at)
        at.text_input(key="mask_name").set_value("my mask")
        at.text_input(key="mask_notes").set_value("because")
        ran(at)
        next(button for button in at.button if button.label == "Save mask").click()
        ran(at)
        item = workspace().items("masks")[0]
        saved = json.loads(item.path.read_text())
        assert (item.name, saved["notes"]) == ("my mask", "because")
        assert saved["provenance"]["started_from"]["criterion"] == "block-influence"


def test_prune_and_evaluate_shows_what_broke(stocked):
    hold_bundled()
    at = stocked("pages/5_evaluate.py")
    before = len(workspace().items("evaluations"))
    next(button for button in at.button if button.label == "Prune and evaluate").click()
    ran(at)
    wait_for(at, "What broke")
    assert len(workspace().items("evaluations")) == before + 1
    assert [metric.label for metric in at.metric] == ["Retention", "Answers lost", "KL to dense", "Parameters saved"]
    said = words(at).replace("\\", "")
    assert "; 6 prompts" in said
    assert "no interval: 3 groups, it takes 5" in said  # of each domain


def on_tab(at, name):
    at.session_state["evaluate_tab"] = name
    return ran(at)


def test_both_models_answer_side_by_side(stocked):
    hold_bundled()
    at = on_tab(stocked("pages/5_evaluate.py"), "Ask both")
    next(button for button in at.button if button.label == "Ask both").click()
    ran(at)
    assert not at.error
    assert "Dense model" in words(at)
    assert "Without layers 5, 9" in words(at)


def test_page_shows_what_the_model_is_given_with_its_tokens_by_group(stocked):
    hold_bundled()
    at = on_tab(stocked("pages/5_evaluate.py"), "Ask both")
    next(button for button in at.button if button.label == "Show what the model is given").click()
    ran(at)
    assert any("<|vision_start|><|image_pad|><|vision_end|>" in code.value for code in at.code)
    counts = dict(re.findall(r"(\w+) (\d+)", next(text.value for text in at.text if text.value.startswith("Tokens:"))))
    assert counts["vision"] == "16"  # a 64×64 image in patches of 8, merged by two
    assert int(counts["all"]) == int(counts["vision"]) + int(counts["text"])
    assert counts["last"] == "1"


def test_mask_of_another_model_needs_one_deliberate_click(stocked):
    hold_bundled()
    info = model_slot().info
    stranger = ModelInfo("stranger", "f" * 64, info.n_layers)
    keep_mask(workspace(), replace(PruneMask(16, [3], name="foreign"), model=stranger))
    at = stocked("pages/5_evaluate.py")
    assert not [option for option in at.selectbox(key="pick:mask").options if option.startswith("foreign")]
    next(box for box in at.sidebar.selectbox if box.label == "Work of").select(stranger.fingerprint)
    assert "made for another model" in words(ran(at))
    evaluate_button = next(button for button in at.button if button.label == "Prune and evaluate")
    assert evaluate_button.disabled
    next(box for box in at.checkbox if box.label == "Use it anyway").check()
    ran(at)
    assert not next(button for button in at.button if button.label == "Prune and evaluate").disabled


def test_mask_of_a_model_of_another_size_is_not_offered_for_evaluation(stocked):
    hold_bundled()
    keep_mask(workspace(), PruneMask(8, [3], name="small"))
    at = stocked("pages/5_evaluate.py")
    assert not [option for option in at.selectbox(key="pick:mask").options if option.startswith("small")]


def test_damaged_recording_is_one_message_and_not_a_crash(stocked):
    item = workspace().items("recordings")[0]
    item.path.write_bytes(item.path.read_bytes()[:500])
    at = AppTest.from_file(str(ROOT / "pages/3_similarity.py"), default_timeout=PATIENCE_S).run()
    assert not at.exception
    assert "is not a whole recording" in words(at)


def test_job_started_for_one_model_does_not_run_on_the_next(stocked, tmp_path):
    hold_bundled()
    prompts = workspace().items("prompts")[0]
    work = job(bench().record, prompts, "a recording")
    held = model_slot().held
    model_slot().held = replace(held, info=replace(held.info, fingerprint="another"))
    with pytest.raises(ModelError, match="no longer loaded"):
        work(no_progress)


def test_model_that_does_not_fit_in_the_present_ones_place_leaves_it_loaded(stocked, tmp_path, monkeypatch):
    import vlm_analysis.models.fit

    hold_bundled()
    slot, mib = model_slot(), 2**20
    monkeypatch.setattr(
        vlm_analysis.models.fit, "free_bytes", lambda device: 11 * mib
    )  # 8 MiB and a margin is 17: 11 and the present 8
    slot.load("pocket-vl", {"dtype": "float32"}, no_progress)
    kept = slot.loaded
    monkeypatch.setattr(vlm_analysis.models.fit, "free_bytes", lambda device: -7 * mib)
    with pytest.raises(ModelError, match="does not fit into memory"):
        slot.load("pocket-vl", {}, no_progress)
    assert slot.loaded is kept
    assert kept.model is not None


def test_typo_in_a_model_folder_keeps_the_loaded_model(stocked, tmp_path):
    hold_bundled()
    with pytest.raises(ModelError, match="No model at"):
        model_slot().load(str(tmp_path / "nowhere"), {}, no_progress)
    assert model_slot().loaded.n_layers == 16


def test_different_requests_of_one_kind_are_both_done(stocked):
    gate = threading.Event()
    runner().submit("hold", "Holding", lambda progress: gate.wait(PATIENCE_S))
    ids = {runner().submit("evaluate", name, lambda progress: None, dedupe=repr((name,))) for name in ("a", "b", "a")}
    gate.set()
    assert len(ids) == 2


def test_refresh_keeps_the_chosen_prompts_and_the_edited_mask(stocked, few):
    home = workspace()
    chosen_set = home.items("prompts")[0]
    at = stocked("pages/4_masks.py")
    send(at, [6])
    choices = last_choices()
    choices["prompts"] = chosen_set.id
    keep_prompts(home, few[:2], "newer")
    fresh = stocked("pages/4_masks.py")  # a refresh is a new session
    assert fresh.session_state["mask"] == [6]
    assert "a few" in words(stocked("app.py"))


def test_last_layer_cannot_be_dropped(stocked):
    at = stocked("pages/4_masks.py")
    send(at, [6])
    send(at, range(16))
    assert at.session_state["mask"] == [6]


def test_domain_named_like_a_column_is_drawn(open_page, loaded, few):
    odd = PromptSet(replace(prompt, domain={"math": "layer", "general": "n"}[prompt.domain]) for prompt in few)
    keep_recording(workspace(), record(loaded, odd), "odd")
    assert not open_page("pages/3_similarity.py").error


def test_damaged_dense_evaluation_is_named_and_does_not_block(stocked):
    for item in workspace().items("evaluations"):
        if not item.details["dropped"]:
            item.path.write_bytes(item.path.read_bytes()[:50])
    at = stocked("pages/5_evaluate.py")
    assert "is not a whole evaluation" in words(at)
    assert list(at.dataframe[0].value.index) == ["math", "general"]


def test_a_saved_item_is_renamed_and_deleted_where_it_is_chosen(stocked):
    at = stocked("pages/5_evaluate.py")
    before = [item.name for item in workspace().items("evaluations")]
    box = next(one for one in at.text_input if one.label == "New name")
    box.set_value("the one to show")
    ran(at)
    assert [item.name for item in workspace().items("evaluations")] == ["the one to show", *before[1:]]
    next(button for button in at.button if button.label == "Delete for good").click()
    ran(at)
    assert [item.name for item in workspace().items("evaluations")] == before[1:]
    next(button for button in at.button if button.label == "Delete for good").click()
    ran(at)
    assert "Nothing evaluated yet." in words(at)


def test_a_loaded_mask_brings_its_name_and_a_hand_edit_takes_it_away(stocked):
    at = stocked("pages/4_masks.py")
    load_mask(at)
    first = at.session_state["mask_name"]
    assert first
    assert at.session_state["mask_origin"]["name"] == first
    layers = at.session_state["mask"]
    send(at, [])
    assert at.session_state["mask_name"] == ""
    at.session_state["mask_name"] = "my own"
    ran(at)
    send(at, layers)
    assert at.session_state["mask_name"] == "my own"  # what was typed stays


def test_a_mask_chosen_on_some_of_the_evaluated_prompts_is_told(stocked, few):
    home = workspace()
    part = few[:2] + few[3:5]
    keep_prompts(home, part, "a part")
    dense = opened(next(item for item in home.items("evaluations") if item.name == "dense"))
    mask = PruneMask(16, [6], name="searched", model=dense.model, provenance={"prompts": part.fingerprint})
    keep_evaluation(home, replace(dense, edit=mask), "searched on a few")
    assert "chosen on 4 of these 6 prompts" in words(stocked("pages/5_evaluate.py"))
    whole = replace(mask, provenance={"started_from": {"recording_prompts": few.fingerprint}})
    keep_evaluation(home, replace(dense, edit=whole), "ranked on a few")
    assert "chosen on 6 of these 6 prompts" in words(stocked("pages/5_evaluate.py"))


def test_the_edited_mask_is_there_on_evaluate_after_a_refresh(stocked):
    hold_bundled()
    at = stocked("pages/4_masks.py")
    load_mask(at)
    layers = at.session_state["mask"]
    again = stocked("pages/5_evaluate.py")  # a new session
    box = next(one for one in again.selectbox if one.label == "Mask")
    assert box.value == "The mask in the editor"
    assert again.session_state["mask"] == layers
