"""Fixtures of every test: the bundled model once a session, a few prompts of both domains, and a home of each test's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from tables import BLUE, RED

from vlm_analysis import PromptSet, open_prompts

if TYPE_CHECKING:
    from vlm_analysis import LoadedModel

# The same examples on every run, so that a red run is the change's doing; `pytest --hypothesis-profile explore` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's workspace."""
    monkeypatch.setenv("STRATA_HOME", str(tmp_path / "strata-home"))


@pytest.fixture(scope="session")
def loaded() -> LoadedModel:
    """The bundled model; tests that change weights take a deep copy."""
    from vlm_analysis import load_model

    return load_model()


@pytest.fixture(scope="session")
def packs() -> PromptSet:
    """All 90 bundled prompts."""
    return open_prompts("math") + open_prompts("general")


@pytest.fixture(scope="session")
def few(packs: PromptSet) -> PromptSet:
    """Three prompts of each domain, of different lengths."""
    return packs[:3] + packs[45:48]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two images, a.png (red) and b.png (blue)."""
    RED.save(tmp_path / "a.png")
    BLUE.save(tmp_path / "b.png")
    return tmp_path
