"""Real processes: each kind of exit once, and a stopped one that goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from vlm_analysis import PromptSet
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


def test_ctrl_c_is_130_and_the_same_command_goes_on(packs: PromptSet, tmp_path: Path) -> None:
    table = write_prompts(packs[:8], tmp_path / "prompts")
    words, scores = ("sweep", str(table), "--leave-one-out", "--json", "--quiet"), Workspace().root / "scores"
    process = started(*words)
    end = time.monotonic() + WAIT_S
    while not list(scores.rglob("*.*")) and time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    code, said, errors = ended(process)
    assert (code, said) == (130, "")
    assert errors.rstrip().endswith("run the same command again to continue.")
    assert "Traceback" not in errors
    code, said, _ = ended(started(*words))
    assert code == 0
    assert len(json.loads(said)["rows"]) > 10
