"""Fixtures of the page tests: each starts with empty caches, in a workspace of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[2]


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
        at = AppTest.from_file(str(ROOT / page), default_timeout=30).run()
        assert not at.exception
        return at

    return run
