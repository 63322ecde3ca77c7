"""Real processes: each kind of exit once, and a stopped one that goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import Say, forked
from typer.testing import CliRunner

from vlm_analysis import PromptSet, cli
from vlm_analysis.prompts.writing import write_prompts
from vlm_analysis.workbench.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 120


def started(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vlm_analysis", *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    said, errors = process.communicate(timeout=WAIT_S)
    return process.returncode, said, errors


def test_success_is_0_with_one_document_and_a_mistake_2_with_one_message() -> None:
    code, said, errors = ended(started("show", "--json"))
    assert (code, errors) == (0, "")
    assert json.loads(said)["items"] == []
    code, said, errors = ended(started("rank", "[red]nobody"))
    assert (code, said) == (2, "")
    assert errors.startswith("'[red]nobody' names no saved recordings: expected")
    assert "Traceback" not in errors


@pytest.mark.usefixtures("_no_bars")
def test_ctrl_c_is_130_and_the_same_command_goes_on(
    packs: PromptSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write_prompts(packs[:3], tmp_path / "prompts")
    words, scores = ("sweep", str(table), "--leave-one-out", "--json", "--quiet"), Workspace().root / "scores"
    monkeypatch.setattr(sys, "argv", ["strata", *words])

    def command(say: Say) -> None:
        for stream, name in ((1, "said"), (2, "errors")):
            os.dup2(os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT), stream)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w") for stream in (1, 2))
        cli.main()

    with forked(command) as process:
        end = time.monotonic() + WAIT_S
        while not list(scores.rglob("*.*")) and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        assert (process.said.read(), process.ended()) == ("", 130)
    said, errors = ((tmp_path / name).read_text() for name in ("said", "errors"))
    assert said == ""
    assert errors.rstrip().endswith("run the same command again to continue.")
    assert "Traceback" not in errors
    done = CliRunner().invoke(cli.strata, words)
    assert done.exit_code == 0
    assert len(json.loads(done.stdout)["rows"]) > 10
