"""The Export page's benchmark: saved prompts become a task, with the commands and the line that does the same."""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml
from acting import OpenPage, ran, wait_for, words

from vlm_analysis import PruneMask
from vlm_analysis.ui.common.session import workspace
from vlm_analysis.workbench.shelf import keep_mask

PAGE = "pages/7_export.py"


def test_prompts_become_a_task_with_its_commands(stocked: OpenPage, tmp_path: Path) -> None:
    at = stocked(PAGE)
    next(one for one in at.text_input if one.label == "Folder of the task").set_value(str(tmp_path / "a task"))
    next(one for one in at.text_input if one.label == "Name of the task").set_value("mine")
    ran(at)
    shown = next(code.value for code in at.code if code.value.startswith("strata export-task"))
    assert shlex.split(shown)[3:] == [str(tmp_path / "a task"), "--name", "mine"]
    next(button for button in at.button if button.label == "Write the task").click()
    wait_for(ran(at), "prompts written to")
    (commands,) = [code.value for code in at.code if "lm_eval --model hf-multimodal" in code.value]
    assert len(commands.splitlines()) == 4
    assert yaml.safe_load((tmp_path / "a task" / "lm-evaluation-harness" / "mine.yaml").read_text())["task"] == "mine"


def test_a_name_that_is_none_is_refused_in_words(stocked: OpenPage, tmp_path: Path) -> None:
    at = stocked(PAGE)
    next(one for one in at.text_input if one.label == "Name of the task").set_value("not a name")
    ran(at)
    next(button for button in at.button if button.label == "Write the task").click()
    wait_for(ran(at), "expected letters, digits and underscores")


def test_without_prompts_the_next_step_is_named(open_page: OpenPage) -> None:
    keep_mask(workspace(), PruneMask(16, (3,)))
    assert "A task is made of prompts, and there are none yet." in words(open_page(PAGE))
