"""A real Chromium, one per test process; a real Streamlit server with a home of its own for each file, a new session of it per page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import pytest
from browser import idle, new_window
from dashboards import Dashboards
from playwright.sync_api import Browser, BrowserContext, Page


@pytest.fixture(scope="session")
def dashboards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboards]:
    forked = Dashboards(tmp_path_factory.mktemp("imported"))
    yield forked
    forked.close()


@pytest.fixture(scope="module")
def server_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of this file's dashboard, empty; a file that needs something in it fills it in a fixture of this name."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(dashboards: Dashboards, server_home: Path) -> Iterator[str]:
    """This file's dashboard: what other files saved, loaded or left in the editor is not in it."""
    with dashboards.running(server_home) as url:
        yield url


@pytest.fixture(scope="session")
def tabs(chromium: Browser) -> Iterator[BrowserContext]:
    """Where pages are opened: a window of its own for each would fetch and compile the dashboard's scripts again, for seconds."""
    context = new_window(chromium)
    yield context
    context.close()


@pytest.fixture
def new_page(tabs: BrowserContext, server: str) -> Iterator[Callable[[str], Page]]:
    """Open a path in a tab, which is a session of its own to the dashboard; no page may raise an error or call another host."""
    with watched(tabs, server) as open_page:
        yield open_page


@pytest.fixture(scope="module")
def lasting_page(tabs: BrowserContext, server: str) -> Iterator[Callable[[str], Page]]:
    """As `new_page`, for a page that the tests of a file share: to open one takes two seconds."""
    with watched(tabs, server) as open_page:
        yield open_page


@contextmanager
def watched(tabs: BrowserContext, server: str) -> Iterator[Callable[[str], Page]]:
    pages: list[Page] = []
    errors: list[str] = []
    strangers: list[str] = []

    def open_page(path: str = "/") -> Page:
        page = tabs.new_page()
        pages.append(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: strangers.append(request.url) if is_stranger(request.url, server) else None)
        page.goto(urljoin(server, path))
        idle(page)
        return page

    yield open_page
    forget(tabs, pages)
    assert not errors
    assert not strangers


def forget(tabs: BrowserContext, pages: list[Page]) -> None:
    """Close tabs, and with them what the browser has kept of the dashboard."""
    if pages:
        pages[-1].evaluate("localStorage.clear()")
    for page in pages:
        page.close()
    tabs.clear_cookies()


def is_stranger(url: str, server: str) -> bool:
    return url.startswith(("http:", "https:", "ws:", "wss:")) and server.removeprefix("http") not in url
