"""Fixtures of every test: the bundled model once a session, a few prompts of both domains, and a home of each test's own."""

from __future__ import annotations

import copy
import gc
import itertools
import re
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from tables import BLUE, RED

from vlm_analysis import PromptSet, open_prompts

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from vlm_analysis import LoadedModel

# The same examples on every run, so that a red run is the change's doing; `make slow` takes more of them (profile "many"), and
# `pytest --hypothesis-profile explore` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=10)
settings.register_profile("many", derandomize=True, deadline=None, max_examples=200)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("repeatable")

# Started in the background of a shell, a process ignores Ctrl-C, and so do those that it starts; here it is what tests are about.
signal.signal(signal.SIGINT, signal.default_int_handler)


_HOMES = itertools.count()
BROWSER = "tests/e2e/"

# What makes a test file need more than values: torch, a model, a fresh process, a page.
_NEEDS_MODEL = re.compile(
    r"^\s*(?:import|from) (?:torch|transformers|accelerate)\b"
    r"|\b(?:loaded|LoadedModel|load_model|hold_\w+|AppTest|open_page|executable|runpy|exec)\b"
    r"|workbench\.(?:stories|pipeline|bench|slot)\b|evaluation\.run|recording\.(?:record|probing|passes|streams|similarity|attention)\b|vlm_analysis\.(?:models|pocket)\b"
    r"|from (?:oracles|families|forked|outside|saved|conformance|\.corpus)\b",
    re.MULTILINE,
)


@cache
def kind_of(path: Path) -> str:
    """Return the marker of a test file: "browser" beside a real server, "model" where it needs a model or a process, else "values"."""
    if path.parent.name in ("e2e", "conformance"):
        return "browser" if path.parent.name == "e2e" else "model"
    return "model" if _NEEDS_MODEL.search(path.read_text("utf-8")) else "values"


def pytest_configure() -> None:
    gc.disable()  # what is imported and collected lives to the end, and looking through it again and again takes a tenth of the time


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests go to one worker, and those of all files with a dashboard: to import what it imports takes seconds."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return BROWSER if nodeid.startswith(BROWSER) else super()._split_scope(nodeid)

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m "values and …"` files of other kinds are not even imported: torch alone takes seconds."""
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if is_test and takes_values_only(config) and kind_of(collection_path) != "values" else None


def takes_values_only(config: pytest.Config) -> bool:
    """Return whether only files of the kind "values" are asked for."""
    return str(config.getoption("markexpr")).split(" and ")[0] == "values"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("browser") is None:
            item.add_marker(kind_of(item.path))


@pytest.fixture(autouse=True, scope="session")
def _values_need_no_torch(pytestconfig: pytest.Config) -> Iterator[None]:
    """`make quick` takes a minute because torch is imported by none of its tests."""
    yield
    if takes_values_only(pytestconfig):
        assert "torch" not in sys.modules, "a file of the kind `values` imports torch: see kind_of"


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's workspace; a home is made when something is saved in it."""
    monkeypatch.setenv("STRATA_HOME", str(tmp_path_factory.getbasetemp() / "homes" / str(next(_HOMES))))


@pytest.fixture(scope="session")
def loaded() -> LoadedModel:
    """The bundled model; tests that change weights take a deep copy."""
    from vlm_analysis import load_model

    return load_model()


@pytest.fixture(scope="session")
def small(loaded: LoadedModel) -> LoadedModel:
    """The bundled model with eight of its layers, for what takes a pass for each of them; 2 to 6 may go."""
    from vlm_analysis import LoadedModel, PruneMask, apply_edit

    view = apply_edit(loaded.model, PruneMask(loaded.n_layers, range(4, 12)))
    return LoadedModel(view, loaded.processor, "small", loaded.source, loaded.max_vision_tokens)


@pytest.fixture(autouse=True, scope="session")
def _processors_are_tried_here() -> Iterator[None]:
    """A process of its own would import torch; tests/models/test_trial.py has it."""
    trial = sys.modules.get("vlm_analysis.models.trial")  # imported with the test files that load models, or not at all
    with pytest.MonkeyPatch.context() as patch:
        if trial is not None:
            patch.setattr(trial._processor_child(), "ask", _tried_here)
        yield


def _tried_here(question: Any) -> Any:
    from vlm_analysis.models.probe_processor import answers

    return next(answers(question))


@pytest.fixture
def _loaded_once(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands take the bundled model of the session, where each process of the shell loads one."""
    from vlm_analysis.models import load

    monkeypatch.setattr(load, "load_model", lambda source, **_: {"pocket-vl": copy.copy(loaded)}[source])


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


@pytest.fixture
def _proved_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports are compared with what this process loads of them; tests/export/test_proof.py has the fresh one, which takes seconds."""
    from vlm_analysis.export import proof, reload

    monkeypatch.setattr(proof, "_run", lambda folder, task, answer, progress: reload.run(folder, task, answer))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests that need one."""
    from tools import serving

    with serving.chromium() as browser:
        yield browser


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
