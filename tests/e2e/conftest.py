"""A real Streamlit server and a real Chromium: one of each per test process, a new browser session per test."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import PATIENCE_MS
from playwright.sync_api import Browser, BrowserContext, Page

from tools import serving


@pytest.fixture(scope="session")
def server_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="session")
def server(server_home: Path) -> Iterator[str]:
    """The dashboard with a home of its own; its log must hold no traceback at the end."""
    with serving.running_server(server_home) as url:
        yield url
    text = (server_home / "server.log").read_text()
    assert not re.search(r"Traceback|Uncaught app execution", text), text[-4000:]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with serving.chromium() as browser:
        yield browser


@pytest.fixture
def new_page(chromium: Browser, server: str) -> Iterator[Callable[[str], Page]]:
    """Open a path in a browser session of its own; no page may raise an error or call another host."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []
    strangers: list[str] = []

    def open_page(path: str = "/") -> Page:
        context = chromium.new_context(
            viewport={"width": 1440, "height": 1000}, reduced_motion="reduce", base_url=server, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: strangers.append(request.url) if is_stranger(request.url, server) else None)
        page.goto(path)
        serving.idle(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors
    assert not strangers


def is_stranger(url: str, server: str) -> bool:
    return url.startswith(("http:", "https:", "ws:", "wss:")) and server.removeprefix("http") not in url
