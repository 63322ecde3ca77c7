"""The Similarity page: every side of a recording, files in and out, and a recording taken up again after a cancel."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from acting import OpenPage, chart, hold_bundled, ran, send, wait_for, words
from PIL import Image
from streamlit.testing.v1 import AppTest

from vlm_analysis import LoadedModel, Prompt, PromptSet, record, save_recording
from vlm_analysis.recording.findings import similarity_finding
from vlm_analysis.ui.common.session import runner, workspace
from vlm_analysis.workbench.shelf import keep_prompts, keep_recording, open_item

PAGE = "pages/3_similarity.py"


def open_tab(at: AppTest, name: str) -> AppTest:
    at.session_state["similarity_tab"] = name
    return ran(at)


@pytest.fixture
def rich(stocked: OpenPage, loaded: LoadedModel, few: PromptSet) -> OpenPage:
    """A workspace whose newest recording has attention maps and token maps."""
    keep_recording(workspace(), record(loaded, few, attention=True, token_maps=True), "with maps")
    return stocked


class TestTabs:
    def test_any_measure_can_be_drawn_with_its_formula_and_source(self, rich: OpenPage) -> None:
        at = open_tab(rich(PAGE), "Measures")
        for name in at.selectbox(key="measure").options:
            at.selectbox(key="measure").select(name)
            assert not ran(at).error
            assert "x enters the layer" in words(at)
        assert len(at.selectbox(key="measure").options) == 13

    def test_without_attention_maps_the_page_says_how_to_get_them(self, stocked: OpenPage) -> None:
        at = open_tab(stocked(PAGE), "Measures")
        assert len(at.selectbox(key="measure").options) == 11
        assert "record with attention maps" in words(at)

    def test_a_measure_that_a_recording_lacks_is_said_to_be_not_recorded(
        self, stocked: OpenPage, loaded: LoadedModel, few: PromptSet
    ) -> None:
        keep_recording(workspace(), dataclasses.replace(record(loaded, few[:2]), lacks=("update", "sinks")), "older")
        said = words(open_tab(stocked(PAGE), "Measures"))
        assert "Not recorded, as this recording is older than the measure: relative update, sink tokens." in said

    def test_the_span_that_changes_least_is_named(self, stocked: OpenPage, loaded: LoadedModel, few: PromptSet) -> None:
        at = open_tab(stocked(PAGE), "Spans")
        diagonal = np.diagonal(record(loaded, few).span_similarity(), offset=4)
        first = int(diagonal.argmax())
        assert f"layers {first} to {first + 3} change the stream least: cosine {diagonal.max():.4f}" in words(at)
        at.slider(key="span_length").set_value(1)
        assert "Of all runs of 1 layer, layer " in words(ran(at))

    def test_a_prompt_is_shown_down_to_its_tokens_over_the_image(self, rich: OpenPage, few: PromptSet) -> None:
        at = open_tab(rich(PAGE), "Prompts")
        assert few[0].question in words(at)
        assert "Every token's cosine at every layer" in words(at)
        assert "changes the token in row" in words(at)
        at.slider(key="overlay_layer").set_value(3)
        assert "Layer 3 changes the token" in words(ran(at))

    def test_the_token_map_tells_where_the_picture_is_still_read(self, rich: OpenPage) -> None:
        send(rich("pages/4_masks.py"), [3], absent=[14, 15], frozen=[5])
        at = open_tab(rich(PAGE), "Prompts")
        said = words(at).replace("\\", "")
        assert "text reads the picture in layers 0-2, 4-13; its tokens are not updated in layer 5." in said
        charts = [chart(at, place)["layout"] for place in range(len(at.get("plotly_chart")))]
        shapes = {shape["name"] for layout in charts for shape in layout.get("shapes", [])}
        assert shapes == {"absent", "frozen", "dropped"}

    def test_a_prompt_without_maps_says_how_to_get_them(self, stocked: OpenPage) -> None:
        assert "Record with token maps" in words(open_tab(stocked(PAGE), "Prompts"))

    def test_a_recording_whose_prompts_are_gone_still_opens(self, rich: OpenPage) -> None:
        for item in workspace().items("prompts"):
            workspace().delete(item)
        at = open_tab(rich(PAGE), "Prompts")
        assert "is not in the workspace" in words(at)
        assert not at.error

    def test_two_recordings_stand_side_by_side_also_of_models_of_other_depth(
        self, rich: OpenPage, loaded: LoadedModel, few: PromptSet
    ) -> None:
        from vlm_analysis import LoadedModel as Loaded, PruneMask
        from vlm_analysis.edits.apply import apply_edit

        short = Loaded(apply_edit(loaded.model, PruneMask(16, [5, 9])), loaded.processor, "short", "made here")
        keep_recording(workspace(), record(short, few), "fourteen layers")
        at = open_tab(rich(PAGE), "Side by side")
        assert "Layer 0 stands at depth 0" in words(at)
        assert not at.error

    def test_one_recording_has_nothing_beside_it(self, stocked: OpenPage) -> None:
        assert "There is one recording" in words(open_tab(stocked(PAGE), "Side by side"))

    def test_every_table_is_shown(self, stocked: OpenPage) -> None:
        at = open_tab(stocked(PAGE), "Numbers")
        lengths = []
        for name in at.selectbox(key="table_kind").options:
            at.selectbox(key="table_kind").select(name)
            lengths.append(len(ran(at).dataframe[0].value))
        assert lengths == [3 * (5 * 16 + 3), 6, 3 * 17 * 8, 3 * 3]  # three layers of the vision encoder


class TestFiles:
    def test_a_recording_from_elsewhere_is_kept_and_shown(
        self, open_page: OpenPage, loaded: LoadedModel, few: PromptSet, tmp_path: Path
    ) -> None:
        path = save_recording(record(loaded, few[:2], token_maps=True), tmp_path / "server.npz")
        at = open_page(PAGE)
        at.file_uploader[0].upload("server run.npz", path.read_bytes(), "application/octet-stream")
        next(button for button in ran(at).button if button.label == "Keep it in the workspace").click()
        ran(at)
        (item,) = workspace().items("recordings")
        assert item.name == "server run (from a file)"
        assert open_item(item).token_map(1).cosine.shape[0] == 16

    @pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY"])
    def test_a_file_that_is_no_recording_is_one_clear_message(self, open_page: OpenPage, data: bytes) -> None:
        at = open_page(PAGE)
        at.file_uploader[0].upload("odd.npz", data, "application/octet-stream")
        next(button for button in ran(at).button if button.label == "Keep it in the workspace").click()
        assert "is not a whole recording" in ran(at).error[0].value.replace("\\", "")
        assert not workspace().items("recordings")


class TestGoingOn:
    def test_a_cancelled_recording_is_kept_and_taken_up_again(
        self, stocked: OpenPage, packs: PromptSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from vlm_analysis.ui.common.session import choose
        from vlm_analysis.workbench.shelf import keep_prompts

        hold_bundled()
        at = stocked(PAGE)
        item = keep_prompts(workspace(), packs[20:44], "many")
        choose("prompts", item)
        before = len(workspace().items("recordings"))
        ran(at)
        at.session_state["chosen:prompts"] = item.id
        next(button for button in ran(at).button if button.label == "Record").click()
        ran(at)
        job = runner().latest("record")
        assert job is not None

        def cancelled_in_the_middle() -> bool:
            now = runner().get(job.id)
            return now.fraction >= 0.3 and runner().cancel(job.id)

        while not runner().ask(cancelled_in_the_middle):  # asked inside the job's reports: it cannot end meanwhile
            assert runner().get(job.id).active
        at = wait_for(at, "What was recorded so far is kept")
        assert len(workspace().items("recordings")) == before
        again = next(button for button in at.button if button.label == "Go on recording")
        again.click()
        ran(at)
        job = runner().latest("record")
        assert job is not None
        seen: list[float] = []
        while (now := runner().get(job.id)) is not None and now.active:
            seen.append(runner().ask(lambda: runner().get(job.id).fraction))
        assert len(workspace().items("recordings")) == before + 1
        assert min((fraction for fraction in seen if fraction > 0), default=1) > 0.2
        assert not list((workspace().root / "unfinished").iterdir())

    def test_prompts_recorded_before_are_not_run_again(
        self, stocked: OpenPage, few: PromptSet, packs: PromptSet
    ) -> None:
        from vlm_analysis.ui.common.session import bench
        from vlm_analysis.workbench.shelf import keep_prompts

        hold_bundled()
        home = workspace()
        options = {"attention": False, "token_maps": False, "batch_size": 1}
        more = keep_prompts(home, PromptSet([*few, *packs[10:12]]), "two more")
        calls: list[int] = []
        made = bench().record(more, "more", **options, on_progress=lambda done, total, message: calls.append(done))
        assert calls[0] == 6
        assert open_item(made).n_prompts == 8
        assert dataclasses.replace(open_item(made)).keys[:6] == few.row_keys


def test_a_recording_of_0_1_on_marks_of_pictures_is_said_to_be_of_other_questions(
    stocked: OpenPage, few: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = PromptSet([dataclasses.replace(few[0], question="what is <image>?")])
    keep_prompts(workspace(), marked, "marked")
    recording = dataclasses.replace(open_item(workspace().items("recordings")[0]), prompts=marked.fingerprint)
    keep_recording(workspace(), recording, "new")
    assert "took for text" not in words(stocked(PAGE))
    monkeypatch.setattr("vlm_analysis.workbench.shelf.KNOWN", {})
    keep_recording(workspace(), recording, "of 0.1")
    assert "which it took for text" in words(stocked(PAGE))


def test_rows_are_domains_or_tasks(stocked: OpenPage) -> None:
    item = workspace().items("recordings")[0]
    assert not [one for one in stocked(PAGE).get("button_group") if one.key == "similarity_rows"]
    tasks = ("count", "read", "count", "read", "read", "count")
    keep_recording(workspace(), dataclasses.replace(open_item(item), tasks=tasks), "with tasks")
    at = stocked(PAGE)
    at.session_state["similarity_rows"] = "tasks"
    assert "4 tasks, of 1 prompt at least" in words(ran(at))
    at = open_tab(at, "Numbers")
    at.selectbox(key="table_kind").select("Similarity by layer, task and token group")
    assert len(ran(at).dataframe[-1].value) == 4 * 5 * 16


def test_tokens_are_drawn_over_the_picture_that_they_are_of(
    stocked: OpenPage, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide, tall = Image.new("RGB", (128, 64), "red"), Image.new("RGB", (64, 128), "blue")
    prompts = PromptSet([Prompt((wide, tall), "is <image 2> like <image 1>?", id="1")])
    keep_prompts(workspace(), prompts, "two")
    keep_recording(workspace(), record(loaded, prompts, token_maps=True), "two")
    drawn: list[tuple[tuple[int, int], tuple[int, ...]]] = []

    def noted(image: Image.Image, values: np.ndarray) -> go.Figure:
        drawn.append((image.size, values.shape))
        return go.Figure()

    monkeypatch.setattr("vlm_analysis.figures.recorded.image_overlay", noted)
    open_tab(stocked(PAGE), "Prompts")
    assert [size for size, _ in drawn] == [(64, 128), (128, 64)]
    assert all((rows > columns) == (size[1] > size[0]) for size, (rows, columns) in drawn)


class TestTheFirstChart:
    def test_its_title_is_the_finding_of_the_tokens_in_view(self, stocked: OpenPage) -> None:
        recording = open_item(workspace().items("recordings")[0])
        at = stocked(PAGE)
        assert similarity_finding(recording) in words(at).replace("\\", "")
        at.segmented_control(key="similarity_group").set_value("vision")
        assert similarity_finding(recording, "vision") in words(ran(at)).replace("\\", "")

    def test_colours_are_the_fixed_ones_or_fit_this_recording(self, stocked: OpenPage) -> None:
        at = stocked(PAGE)
        assert (heat(at)["zmin"], heat(at)["zmax"]) == (0, 3)
        at.segmented_control(key="similarity_colours").set_value("this recording")
        values = open_item(workspace().items("recordings")[0])
        rows = np.stack([values.layer_similarity(name) for name in values.domain_names])
        assert heat(ran(at))["zmin"] == pytest.approx(-np.log10(1 - rows.min()))
        assert heat(at)["colorbar"]["ticktext"] == [f"{rows.min():.3f}", f"{rows.max():.3f}"]
        assert "compare with no other picture" in words(at)

    def test_a_layers_card_has_its_measures_and_the_prompts_it_changes_most(
        self, rich: OpenPage, few: PromptSet
    ) -> None:
        at = rich(PAGE)
        assert not at.get("dataframe")
        at.selectbox(key="similarity_layer").set_value(7)
        ran(at)
        recording = open_item(workspace().items("recordings")[0])
        groups, measured = (element.value for element in at.dataframe[:2])
        assert groups.loc["vision", "math"] == f"{recording.layer_similarity('math', 'vision')[7]:.4f}"
        assert measured.loc["Relative update", "general"] == f"{recording.layer_values('update', 'general')[7]:.4g}"
        values = recording.prompt_similarity()[:, 7]
        assert f"cosine {values.min():.4f}" in words(at)
        assert few[int(values.argmin())].question in words(at)
        assert few[int(values.argmax())].question in words(at)

    def test_cutting_a_layer_puts_it_into_the_editors_mask_and_one_that_stays_cannot_be_cut(
        self, stocked: OpenPage
    ) -> None:
        at = stocked("app.py")
        at.switch_page(PAGE)
        ran(at)
        at.selectbox(key="similarity_layer").set_value(0)
        assert ran(at).button(key="cut_layer").disabled
        at.selectbox(key="similarity_layer").set_value(7)
        ran(at).button(key="cut_layer").click()
        ran(at)
        assert at.session_state["mask"] == [7]
        assert at.title[0].value == "Masks"


class TestTokenMaps:
    def test_they_are_kept_of_few_prompts_unless_the_user_says_otherwise(
        self, stocked: OpenPage, packs: PromptSet
    ) -> None:
        hold_bundled()
        at = stocked(PAGE)
        assert maps_box(at).value
        assert "Token maps: about" in words(at).replace("\\", "")
        item = keep_prompts(workspace(), packs, "the packs")
        at.session_state["chosen:prompts"] = item.id
        assert not maps_box(ran(at)).value
        assert "Token maps: about" not in words(at)


def maps_box(at: AppTest) -> Any:
    return next(box for box in at.checkbox if box.label == "Token maps")


def heat(at: AppTest) -> Any:
    """Return the cells of the first chart."""
    return chart(at, 0)["data"][0]
