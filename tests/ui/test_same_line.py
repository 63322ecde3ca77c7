"""The line a page shows does what its button does: run in a copy of the workspace, it gives the page's numbers."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from acting import OpenPage, folder_input, hold, hold_bundled, load_bundled, ran
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from vlm_analysis import LoadedModel, PruneMask, cli, mask_table
from vlm_analysis.cli.base import MODEL_OPTIONS
from vlm_analysis.cli.output import plain
from vlm_analysis.ui.common.editor import CANDIDATES
from vlm_analysis.ui.common.sameline import line_of
from vlm_analysis.ui.common.session import choose, model_slot, runner, workspace
from vlm_analysis.workbench.shelf import keep_prompts, open_item
from vlm_analysis.workbench.slot import ModelSlot

RunLine = Callable[[str], dict[str, Any]]


pytestmark = pytest.mark.usefixtures("_no_bars", "_short_timings", "_loaded_already")


@pytest.fixture
def _loaded_already(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that names no other model has that of the pages at once; two tests of this file load the bundled one anew."""

    def load(slot: ModelSlot, source: str, options: dict[str, Any], _: object) -> None:
        assert source == "pocket-vl"
        assert all(MODEL_OPTIONS[name][1] == value for name, value in options.items())
        vars(slot).update(vars(ModelSlot.holding(model_slot().loaded)))

    if "load_bundled" not in request.function.__code__.co_names:
        monkeypatch.setattr(ModelSlot, "load", load)


@pytest.fixture
def elsewhere(stocked: OpenPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunLine:
    """Run a line in a copy of the workspace that holds prompts, recordings and masks, but nothing of what was measured."""

    def run(line: str) -> dict[str, Any]:
        home, copy = workspace().root, tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        for kind in ("prompts", "recordings", "masks"):
            shutil.copytree(home / kind, copy / kind)
        with monkeypatch.context() as patch:
            patch.setenv("STRATA_HOME", str(copy))
            done = CliRunner().invoke(cli.strata, [*shlex.split(line)[1:], "--json"])
        assert done.exit_code == 0, (line, done.stderr, done.exception)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


def lines(at: AppTest) -> list[str]:
    return [line for code in at.code for line in code.value.splitlines() if line.startswith("strata ")]


def pressed(at: AppTest, label: str, kind: str) -> Any:
    """Press a button and return what its job made."""
    next(button for button in at.button if button.label == label).click()
    ran(at)
    job = runner().latest(kind)
    assert job is not None
    done = runner().wait(job.id, 120)
    assert done is not None
    assert done.status == "done", done.error
    return done.result


def on_tab(at: AppTest, name: str) -> AppTest:
    at.session_state["evaluate_tab"] = name
    return ran(at)


def test_the_demos_line_is_drawn_once_it_is_unfolded(open_page: OpenPage) -> None:
    at = open_page("app.py")
    assert not at.code
    at.session_state["demo_line"] = True
    assert lines(ran(at)) == ["strata demo"]


def test_the_model_and_the_prompts_in_use(stocked: OpenPage, elsewhere: RunLine) -> None:
    load_bundled(stocked)
    (line,) = lines(stocked("pages/1_model.py"))
    assert line.startswith("strata record ")
    (line,) = lines(ran(stocked("pages/2_prompts.py")))
    assert elsewhere(line)


def test_recording(stocked: OpenPage, elsewhere: RunLine) -> None:
    hold_bundled()
    at = stocked("pages/3_similarity.py")
    (line,) = lines(at)
    made = open_item(pressed(at, "Record", "record"))
    found = elsewhere(line)
    assert found["similarity"] == plain({name: made.layer_similarity(name, "all") for name in made.domain_names})
    assert found["name"] == "pocket-vl on a few"


def test_candidates_and_the_edited_mask(stocked: OpenPage, elsewhere: RunLine) -> None:
    at = stocked("pages/4_masks.py")
    at.session_state["mask"] = (5, 9)
    by_hand, *others = lines(ran(at))
    candidates = list(at.session_state[CANDIDATES].values())
    assert len(others) == len(candidates) > 3
    for line, mask in list(zip(others, candidates, strict=True))[:3]:
        assert elsewhere(line)["key"] == mask.key
    assert elsewhere(by_hand)["key"] == PruneMask(16, (5, 9)).key


def test_evaluating(stocked: OpenPage, elsewhere: RunLine) -> None:
    load_bundled(stocked)
    at = stocked("pages/5_evaluate.py")
    (line,) = lines(at)
    made = open_item(pressed(at, "Prune and evaluate", "evaluate"))
    rows = plain(made.by_prompt.to_dict(orient="records"))
    found = elsewhere(line)["by_prompt"]
    assert [{name: row[name] for name in rows[0]} for row in found] == rows


def test_comparing(stocked: OpenPage, elsewhere: RunLine, small: LoadedModel) -> None:
    hold(small)
    at = stocked("pages/5_evaluate.py")
    at.session_state["compare_criteria:False"] = ["block-influence", "target-aware"]
    at.session_state["compare_most:8"] = 2
    (line,) = lines(on_tab(at, "Many masks"))
    made = open_item(pressed(at, "Compare masks", "compare"))
    found = elsewhere(line)["masks"]
    assert found == plain(mask_table(made).to_dict(orient="records"))


@pytest.mark.slow  # tests/ui/test_cost_tab.py measures on the page, tests/test_docs.py by a line
def test_timing(stocked: OpenPage, elsewhere: RunLine) -> None:
    hold_bundled()
    one = keep_prompts(workspace(), open_item(workspace().items("prompts")[0])[:1], "one")
    choose("prompts", one)
    at = stocked("pages/5_evaluate.py")
    at.session_state["cost_rounds"] = 1
    (line,) = lines(on_tab(at, "Cost"))
    made = open_item(pressed(at, "Measure cost", "cost"))
    (found,) = elsewhere(line)["costs"]
    assert (found["parameters_dense"], found["parameters"]) == made.n_parameters
    assert (found["bytes_dense"], found["bytes"]) == made.n_bytes
    assert made.rounds == 1
    assert found["prefill"] > 0


@pytest.mark.slow  # two exports; tests/test_docs.py makes one by a line, tests/ui/test_mask_files.py one on the page
def test_exporting(stocked: OpenPage, elsewhere: RunLine, tmp_path: Path) -> None:
    hold_bundled()
    at = stocked("pages/7_export.py")
    folder_input(at).set_value(str(tmp_path / "of the page; 'quoted'"))
    line = next(one for one in lines(ran(at)) if one.startswith("strata export "))
    pressed(at, "Export and verify", "export")
    (tmp_path / "of the page; 'quoted'").rename(tmp_path / "page")
    assert elsewhere(line)["verified"] is True
    written = tmp_path / "of the page; 'quoted'" / "model.safetensors"
    assert written.read_bytes() == (tmp_path / "page" / "model.safetensors").read_bytes()


def test_a_line_is_quoted_and_leaves_out_what_is_not_asked(open_page: OpenPage) -> None:
    open_page("app.py")
    told = {"name": "-x; rm 'y'", "target": None, "worst": False, "unprotect": True, "start": ["1,2", "3"]}
    words = shlex.split(line_of("search", "a b", **told))
    assert words == ["strata", "search", "a b", "--name=-x; rm 'y'", "--unprotect", "--start", "1,2", "--start", "3"]


def test_the_model_of_the_model_page_is_named(stocked: OpenPage) -> None:
    hold_bundled()
    model_slot().arguments = (
        "./my model",
        {"device": "cpu", "dtype": "auto", "revision": "main", "max_vision_tokens": 64},
    )
    words = shlex.split(line_of("record", "x"))
    assert words[3:] == ["--model", "./my model", "--device", "cpu", "--max-vision-tokens", "64"]
