"""Masks coming in and going out: files of every dialect, and the checkpoint with its proof."""

from __future__ import annotations

from pathlib import Path

import pytest
from acting import OpenPage, folder_input, hold_bundled, ran, wait_for, words
from streamlit.testing.v1 import AppTest

from vlm_analysis import Edit, Fold, PruneMask, Tensors, late_entry, mask_to_csv, mask_to_mergekit
from vlm_analysis.edits.files import edit_to_json
from vlm_analysis.ui.common.session import workspace
from vlm_analysis.workbench.shelf import keep_mask

MASK = PruneMask(16, (3, 7))


class TestMasksPage:
    @pytest.fixture
    def at(self, stocked: OpenPage) -> AppTest:
        at = stocked("pages/4_masks.py")
        at.session_state["mask_opening"] = True
        return ran(at)

    @staticmethod
    def take(at: AppTest, name: str, text: str) -> list[int]:
        at.file_uploader[0].upload(name, text.encode(), "application/octet-stream")
        ran(at)
        assert "Drops 2 of 16 layers: 3, 7" in words(at)
        next(button for button in at.button if button.label.startswith("Take its 2")).click()
        return ran(at).session_state["mask"]

    def test_mask_file_of_another_size_is_refused(self, at):
        at.file_uploader[0].upload("mask.json", edit_to_json(PruneMask(8, [2])).encode(), "application/json")
        ran(at)
        assert "The mask is for 8 layers" in at.error[0].value

    def test_file_that_is_no_mask_is_refused_in_words(self, at):
        at.file_uploader[0].upload("mask.json", b"\x00\xff{", "application/json")
        ran(at)
        assert "is not a mask" in at.error[0].value

    def test_file_of_an_edit_that_the_editor_cannot_hold_is_refused(self, at):
        folded = Edit(16, (Fold(2, Tensors("0" * 64)),))
        at.file_uploader[0].upload("edit.json", edit_to_json(folded).encode(), "application/json")
        ran(at)
        assert (
            "expected one that drops layers, also of the vision encoder, makes them narrow, or lets vision tokens skip them"
            in at.error[0].value
        )

    def test_file_of_vision_tokens_that_skip_layers_is_taken(self, at):
        edit = PruneMask(16, [3]) + late_entry(16, 2)
        at.file_uploader[0].upload("edit.json", edit_to_json(edit).encode(), "application/json")
        ran(at)
        next(button for button in at.button if button.label == "Take it into the editor").click()
        ran(at)
        assert (at.session_state["mask"], at.session_state["mask_vision"].absent) == ([3], (0, 1))

    def test_mask_file_is_taken_on_a_click(self, at):
        at.file_uploader[0].upload("mask.json", edit_to_json(PruneMask(16, [3, 7])).encode(), "application/json")
        ran(at)
        next(button for button in at.button if button.label.startswith("Take its 2")).click()
        ran(at)
        assert at.session_state["mask"] == [3, 7]

    @pytest.mark.parametrize("name", ["mask.yaml", "mask.yml"])
    def test_mergekit_file_is_taken_and_its_model_named(self, at, name):
        assert self.take(at, name, mask_to_mergekit(MASK, "owner/name@abc")) == [3, 7]
        assert "The file names the model owner/name" in words(at).replace("\\", "").replace("\u2060", "")

    def test_mergekit_file_that_repeats_layers_is_refused_by_its_reason(self, at):
        text = mask_to_mergekit(MASK, "m").replace("[4, 7]", "[2, 7]")
        at.file_uploader[0].upload("mask.yaml", text.encode(), "application/yaml")
        ran(at)
        assert "cannot reorder" in at.error[0].value

    def test_csv_is_taken(self, at):
        assert self.take(at, "order.csv", mask_to_csv(MASK)) == [3, 7]

    @pytest.mark.parametrize(
        ("name", "text", "tool"),
        [("list.json", "[7, 3]", "optipfair"), ("flag.txt", "--prune-layers 3,7", "llama.cpp")],
    )
    def test_a_list_of_another_tool_is_taken_and_the_tool_named(self, at, name, text, tool):
        assert self.take(at, name, text) == [3, 7]
        assert f"Read as a file of {tool}" in words(at).replace("\\", "").replace("\u2060", "")

    def test_the_edited_mask_is_handed_out_for_other_tools(self, at):
        at.session_state["mask"] = [3, 7]
        at.session_state["mask_handing"] = True
        offered = [button.key for button in ran(at).download_button]
        assert {"strata-mask.optipfair.json", "strata-mask.txt", "strata-mask.yaml"} <= set(offered)

    def test_csv_counted_from_one_is_taken_after_one_deliberate_click(self, at):
        rows = [f"{layer + 1},{int(layer not in (3, 7))}" for layer in range(16)]
        at.file_uploader[0].upload("order.csv", "\n".join(["layer,kept", *rows]).encode(), "text/csv")
        ran(at)
        assert "say that it counts from 1" in at.error[0].value
        at.checkbox(key="file_from_one").check()
        ran(at)
        assert "Drops 2 of 16 layers: 3, 7" in words(at)


class TestExportPage:
    def test_the_mask_is_offered_in_every_dialect_each_explained(self, stocked):
        at = stocked("pages/7_export.py")
        offered = {button.key: button.disabled for button in at.download_button}
        assert offered == {
            f"strata-mask.{ending}": False for ending in ("json", "yaml", "csv", "optipfair.json", "txt")
        }
        assert all(part in words(at) for part in ("layers from 0", "mergekit-yaml", "counted from 0", "llama-quantize"))
        assert "for the width of its layers, got none" in words(at)  # of Puzzletron: no model is loaded

    def test_mask_of_no_model_has_no_mergekit_file_and_says_why(self, open_page):
        keep_mask(workspace(), MASK)
        at = open_page("pages/7_export.py")
        assert "A mergekit file names a model" in words(at)
        assert "strata-mask.yaml" not in [button.key for button in at.download_button]

    def test_people_who_look_for_skip_entries_are_told_why_there_are_none(self, stocked):
        assert "per_layer_config` are not written" in words(stocked("pages/7_export.py"))

    @pytest.mark.slow  # tests/e2e/test_demo.py exports on the page
    def test_checkpoint_is_proved_equal_and_both_answers_are_shown(self, stocked, tmp_path: Path):
        hold_bundled()
        at = stocked("pages/7_export.py")
        target = tmp_path / "pruned"
        folder_input(at).set_value(str(target))
        ran(at)
        next(button for button in at.button if button.label == "Export and verify").click()
        wait_for(at, "equal to the last bit")
        assert "strata-mask.puzzletron.json" in [button.key for button in at.download_button]
        assert (target / "model.safetensors").exists()
        shown = [code.value for code in at.code if not code.value.startswith("strata ")]
        assert shown[0] == shown[1] != ""
        assert "in a process of its own" in words(at)
        assert [text for text in shown if text.startswith("python -c ")]
        assert f"strata probe http://127.0.0.1:8000 --export {target}" in [code.value for code in at.code]
        assert f"vllm serve {target}" in [
            code.value for code in at.code
        ]  # and not the next folder, which the field names now
        assert "8 prompts;" in words(at)
        card = (target / "README.md").read_text()
        assert (
            "| domain | n | exact match | retention |" in card
        )  # the workspace holds this mask's evaluation and the dense one

    def test_before_the_export_the_page_says_which_engines_load_it_and_how(self, stocked):
        hold_bundled()
        at = stocked("pages/7_export.py")
        folder_input(at).set_value("~/not yet")
        ran(at)
        assert "Will it serve?" in words(at)
        assert "DeepStack features of the image are lost" in words(at)
        lines = "\n".join(code.value for code in at.code)
        assert f"vllm serve '{Path.home() / 'not yet'}'" in lines  # a shell would leave a quoted ~ as it is
        assert "llama-quantize --prune-layers 5,9 dense.gguf pruned.gguf COPY" in lines

    def test_export_into_a_folder_that_holds_something_is_refused(self, stocked, tmp_path: Path):
        hold_bundled()
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "mine.txt").write_text("mine")
        at = stocked("pages/7_export.py")
        folder_input(at).set_value(str(tmp_path / "full"))
        ran(at)
        next(button for button in at.button if button.label == "Export and verify").click()
        wait_for(at, "cannot be exported to")
        assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
