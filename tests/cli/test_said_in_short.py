"""Words of results: short names of edits in tables, which picture was asked about, and which way of recovery says what."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from tables import BLUE, RED

from vlm_analysis import Cost, Prompt, PromptSet, PruneMask, early_exit, freeze
from vlm_analysis.cli.base import LOUD, progress
from vlm_analysis.cli.costed import of_costs
from vlm_analysis.cli.judging import pictures_of
from vlm_analysis.cli.measuring import tell_unanswered
from vlm_analysis.edits.skipping import in_short
from vlm_analysis.model_info import ModelInfo

MODEL = ModelInfo("toy", "f" * 64, 16)


def test_an_edit_has_a_short_name_in_a_table() -> None:
    skipping = early_exit(16, 13, form="sliced") + freeze(16, [9], form="sliced")
    assert in_short(PruneMask(16, [4, 7]) + skipping) == "4, 7; absent 13-15; frozen 9"
    assert in_short(early_exit(16, 15, deepstack=False)) == "absent 15 (masked), no DeepStack"
    assert (in_short(PruneMask(16, [3])), in_short(PruneMask(16))) == ("3", "dense")
    shares, rounds = np.full((2, 16), 0.05), np.array([[10.0], [8.0]])
    cost = Cost(skipping, MODEL, "cpu", 2, 3, 9, 8, (4, 4), (4, 4), rounds, 1 / rounds, shares)
    assert "absent 13-15; frozen 9" in of_costs([cost], [None]).text


def test_the_picture_that_was_asked_about_is_named(folder: Path) -> None:
    assert pictures_of(Prompt((folder / "a.png",), "why?", id="one"), None) == "a.png of the prompt 'one'"
    assert pictures_of(Prompt((folder / "a.png",), "why?", id="one"), folder / "a.png") == "a.png"
    assert pictures_of(Prompt((RED, BLUE), "why?", id="two"), None) == "2 pictures of the prompt 'two'"


def test_prompts_without_any_answer_are_remarked_on_and_others_not(capsys: pytest.CaptureFixture[str]) -> None:
    silent = PromptSet([Prompt((RED,), "why?", id="one"), Prompt((BLUE,), "how?", id="two")])
    tell_unanswered(silent)
    assert "None of 2 prompts has an answer: the dense model's responses are the reference" in capsys.readouterr().err
    tell_unanswered(PromptSet([*silent, Prompt((RED,), "who?", id="three", answer="me")]))
    assert not capsys.readouterr().err


def test_torchao_says_nothing_in_the_command_line(caplog: pytest.LogCaptureFixture) -> None:
    loggers = {name: logging.getLogger(name) for name in LOUD}
    levels = {name: logger.level for name, logger in loggers.items()}
    try:
        for logger in loggers.values():
            logger.setLevel(logging.NOTSET)
        logging.getLogger("torchao.kernels").warning("heard")
        with progress(True):
            logging.getLogger("torchao.kernels").warning("no such kernel")
        assert [record.message for record in caplog.records] == ["heard"]
    finally:
        for name, level in levels.items():
            loggers[name].setLevel(level)
