"""Fixtures of the page tests: each starts with empty caches, in a workspace of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import streamlit as st
from acting import PATIENCE_S
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest, local_script_runner
from streamlit.testing.v1.local_script_runner import LocalScriptRunner

from vlm_analysis import Evaluation, PromptSet, PruneMask, Recording
from vlm_analysis.workbench.damages import LEAVE_ONE_OUT
from vlm_analysis.workbench.shelf import keep_evaluation, keep_mask, keep_prompts, keep_recording, keep_sweep
from vlm_analysis.workbench.workspace import Workspace

if TYPE_CHECKING:
    from vlm_analysis import LoadedModel

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True, scope="session")
def _packages_scanned_once() -> Iterator[None]:
    """Streamlit reads the metadata of every installed package anew for each AppTest, half a second; here once a session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", cache(manifest_scanner.scan_component_manifests))
        yield


@pytest.fixture(autouse=True, scope="session")
def _scripts_are_joined() -> Iterator[None]:
    """AppTest looks a thousand times a second, through all events, whether a script has ended; here its thread is joined."""
    look = local_script_runner.require_widgets_deltas

    def join(runner: LocalScriptRunner, timeout: float = PATIENCE_S) -> None:
        assert runner._script_thread is not None
        runner._script_thread.join(timeout)
        look(runner, 0 if runner._script_thread.is_alive() else timeout)  # ends one that takes too long, and says so

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_script_runner, "require_widgets_deltas", join)
        yield


@pytest.fixture(autouse=True)
def _clean_caches() -> Iterator[None]:
    """What Streamlit caches is shared by all pages of the process: the workspace, the job runner, opened items."""
    st.cache_resource.clear()
    st.cache_data.clear()
    yield
    st.cache_resource.clear()
    st.cache_data.clear()


@pytest.fixture
def open_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], AppTest]:
    """Run a page ("pages/2_prompts.py") as a new session would see it."""
    monkeypatch.setenv("STRATA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(ROOT)

    def run(page: str) -> AppTest:
        at = AppTest.from_file(str(ROOT / page), default_timeout=PATIENCE_S).run()
        assert not at.exception
        return at

    return run


@pytest.fixture(scope="session")
def stock(loaded: LoadedModel, few: PromptSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with prompts, a recording, a mask and its evaluation, made once a session; tests work on copies."""
    from vlm_analysis import evaluate, record

    home = Workspace(tmp_path_factory.mktemp("stock"))
    mask = PruneMask(16, [5, 9], name="five and nine", model=loaded.info)
    dense = evaluate(loaded, few)
    keep_prompts(home, few, "a few")
    keep_recording(home, record(loaded, few), "a recording")
    keep_mask(home, mask)
    keep_evaluation(home, dense, "dense")
    keep_evaluation(home, evaluate(loaded, few, mask, reference=dense), "five and nine on a few")
    return home.root


@pytest.fixture
def stocked(open_page: Callable[[str], AppTest], stock: Path, tmp_path: Path) -> Callable[[str], AppTest]:
    """Open pages in a workspace that holds prompts, a recording, a mask and its evaluation."""
    shutil.copytree(stock, tmp_path / "home")
    return open_page


@pytest.fixture(scope="session")
def measured(loaded: LoadedModel, few: PromptSet) -> tuple[Recording, list[Evaluation]]:
    """A recording with attention maps, and the damage of each layer."""
    from vlm_analysis import evaluate, record, sweep

    dense = evaluate(loaded, few)
    alone = sweep(loaded, few, [PruneMask(16, (layer,)) for layer in range(16)], reference=dense)
    return record(loaded, few, attention=True), [dense, *alone]


@pytest.fixture(scope="session")
def rich_stock(
    stock: Path, measured: tuple[Recording, list[Evaluation]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    home = Workspace(shutil.copytree(stock, tmp_path_factory.mktemp("rich") / "home"))
    keep_recording(home, measured[0], "with maps")
    keep_sweep(home, measured[1], "each", sweep=LEAVE_ONE_OUT)
    return home.root


@pytest.fixture
def rich(open_page: Callable[[str], AppTest], rich_stock: Path, tmp_path: Path) -> Callable[[str], AppTest]:
    """Open pages in a workspace whose newest recording has attention maps, and whose layers' damage is measured."""
    shutil.copytree(rich_stock, tmp_path / "home")
    return open_page
