"""Fixtures of every test: the bundled model once a session, a few prompts of both domains, and a home of each test's own."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from tables import BLUE, RED

from vlm_analysis import PromptSet, open_prompts

if TYPE_CHECKING:
    from vlm_analysis import LoadedModel

# The same examples on every run, so that a red run is the change's doing; `make slow` takes more of them (profile "many"), and
# `pytest --hypothesis-profile explore` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("many", derandomize=True, deadline=None, max_examples=200)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("repeatable")

# Started in the background of a shell, a process ignores Ctrl-C, and so do those that it starts; here it is what tests are about.
signal.signal(signal.SIGINT, signal.default_int_handler)


# What makes a test file need more than values: torch, a model, a fresh process, a page.
_NEEDS_MODEL = re.compile(
    r"^\s*(?:import|from) (?:torch|transformers|accelerate)\b|\b(?:loaded|load_model|AppTest|open_page|executable|runpy|exec)\b"
    r"|workbench\.(?:stories|pipeline|bench|slot)\b|evaluation\.run|recording\.(?:record|streams|similarity|attention)\b|vlm_analysis\.(?:models|pocket)\b"
    r"|from (?:oracles|families|outside|saved|conformance|\.corpus)\b",
    re.MULTILINE,
)


@cache
def kind_of(path: Path) -> str:
    """Return the marker of a test file: "browser" beside a real server, "model" where it needs a model or a process, else "values"."""
    if path.parent.name == "e2e":
        return "browser"
    return "model" if _NEEDS_MODEL.search(path.read_text("utf-8")) else "values"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m values` files of other kinds are not even imported: torch alone takes seconds."""
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return (
        True if is_test and config.getoption("markexpr") == "values" and kind_of(collection_path) != "values" else None
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("browser") is None:
            item.add_marker(kind_of(item.path))


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's workspace."""
    monkeypatch.setenv("STRATA_HOME", str(tmp_path / "strata-home"))


@pytest.fixture(scope="session")
def loaded() -> LoadedModel:
    """The bundled model; tests that change weights take a deep copy."""
    from vlm_analysis import load_model

    return load_model()


@pytest.fixture(autouse=True, scope="session")
def _processors_are_tried_in_one_process() -> Iterator[None]:
    """Started anew after a minute without work, the process that tries image processors would import torch many times."""
    trial = sys.modules.get("vlm_analysis.models.trial")  # imported with the test files that load models, or not at all
    with pytest.MonkeyPatch.context() as patch:
        if trial is not None:
            patch.setattr(trial, "IDLE_S", 3600)
        yield


@pytest.fixture
def _no_bars(loaded: LoadedModel) -> Iterator[None]:
    """As in a process that began with the command: transformers draws no bars, and torch and it have said what they say when imported."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


@pytest.fixture
def _short_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs are measured on four written tokens where 32 are asked for by default; their numbers are of this model all the same."""
    from vlm_analysis.evaluation.run.timing import measure_costs

    monkeypatch.setitem(measure_costs.__kwdefaults__, "new_tokens", 4)


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
