"""The preset on the command line: one call of the library, and words where it is asked for wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from rankings import full_recording
from typer.testing import CliRunner, Result

from vlm_analysis import LoadedModel, cli, domain_aware_mask, open_mask, open_recording, save_recording
from vlm_analysis.workbench.workspace import Workspace


def strata(*words: object) -> Result:
    return CliRunner().invoke(cli.strata, [str(word) for word in words])


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return save_recording(full_recording(9), tmp_path / "made.npz")


def test_a_mask_of_the_preset_is_that_of_the_library(made: Path) -> None:
    out = made.parent / "mask.json"
    done = strata("mask", made, "--preset", "domain-aware", "--budget", "0.4", "--target", "general", "--out", out)
    assert done.exit_code == 0, done.stderr
    expected, found = domain_aware_mask(full_recording(9), share=0.4, target="general"), open_mask(out)
    assert (found, found.provenance) == (expected, expected.provenance)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--preset", "paper"), "There is no such preset: expected domain-aware, got 'paper'."),
        (("--ranking", "cka"), "expected domain-aware, got --ranking or --keep-deepstack without one"),
        (("--preset", "domain-aware", "--criterion", "mixed"), "expected no --criterion beside it"),
        (("--preset", "domain-aware", "--ranking", "cka"), "expected prompts of 3 to 64 tasks, got 0"),
        (("--preset", "domain-aware", "--budget", "3"), r"expected a number in [0, 1], got 3.0"),
    ],
)
def test_what_does_not_fit_is_said(made: Path, words: tuple[str, ...], said: str) -> None:
    done = strata("mask", made, *words)
    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.usefixtures("_no_bars")
def test_a_folder_of_pictures_is_recorded_with_the_tasks_of_a_suite(tmp_path: Path, loaded: LoadedModel) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (64, 64), "red").save(pictures / "red.png")
    out = tmp_path / "suite.npz"
    done = strata("record", pictures, "--suite", "general", "--out", out)
    assert done.exit_code == 0, done.stderr
    recording = open_recording(out)
    assert (recording.tasks, set(recording.domains)) == (("describe", "list", "count", "name"), {"general"})
    assert domain_aware_mask(recording, "domain-aware-cka").budget == 3
    assert "probe suite general" in Workspace().items("prompts")[0].name
