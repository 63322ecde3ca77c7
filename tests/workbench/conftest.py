"""What the tests of the workbench share: a job runner, a job that holds it, and an empty workspace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from holding import LIMIT_S, Held

from vlm_analysis.workbench.jobs import JobRunner
from vlm_analysis.workbench.workspace import Workspace


@pytest.fixture
def runner() -> Iterator[JobRunner]:
    runner = JobRunner()
    yield runner
    runner.close()
    assert runner.join(LIMIT_S), "the worker did not end"


@pytest.fixture
def held(runner: JobRunner) -> Iterator[Held]:
    """A running job that everything else has to wait for."""
    held = Held()
    runner.submit("hold", "Holding", held)
    assert held.begun.wait(LIMIT_S)
    yield held
    held.go.set()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home")
