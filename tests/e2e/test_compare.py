"""Many masks in the browser: numbers while it runs, a kill in the middle, the next start that finishes it, a mask into the editor."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import PATIENCE_MS, go, idle, new_window, press
from playwright.sync_api import Browser, Page, expect
from scored import n_scores

from tools import serving
from vlm_analysis import PromptSet
from vlm_analysis.workbench.shelf import keep_prompts
from vlm_analysis.workbench.workspace import Workspace


@pytest.fixture
def home(tmp_path: Path, few: PromptSet) -> Path:
    keep_prompts(Workspace(tmp_path / ".strata"), few, "a few")
    return tmp_path


@pytest.fixture
def servers(home: Path) -> Iterator[list[subprocess.Popen]]:
    begun: list[subprocess.Popen] = []
    yield begun
    for process in begun:
        process.kill()
        process.wait()


def opened(chromium: Browser, url: str, *, load: bool = True) -> Page:
    page = new_window(chromium, base_url=url).new_page()
    page.goto("/model")
    idle(page)
    if load:
        press(page, "Load", exact=True)
    page.get_by_text("Decoder layers that should stay").first.wait_for()
    go(page, "Evaluate")
    press(page, "Many masks", "tab")
    idle(page)
    return page


@pytest.mark.slow
def test_a_server_killed_in_the_middle_is_followed_by_one_that_finishes(
    chromium: Browser, home: Path, servers: list[subprocess.Popen]
) -> None:
    process, url = serving.started_server(home)
    servers.append(process)
    page = opened(chromium, url)
    press(page, "Compare masks")
    end = time.monotonic() + PATIENCE_MS / 1000
    while (
        n_scores(home / ".strata") < 150 * 6 and time.monotonic() < end
    ):  # past each layer's damage, into the comparison
        page.wait_for_timeout(20)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = n_scores(home / ".strata")
    assert kept >= 150 * 6
    page.context.close()

    process, url = serving.started_server(home)
    servers.append(process)
    page = opened(chromium, url)
    page.get_by_text("Unfinished: masks on a few").first.wait_for()
    press(page, "Go on", exact=True)
    page.get_by_text("Where the ranking matters").first.wait_for()
    idle(page)
    expect(page.get_by_text("Unfinished: masks on")).to_have_count(0)
    assert kept < n_scores(home / ".strata") < kept + 100 * 6  # no more than was missing
    assert not list((home / ".strata" / "unfinished").glob("*"))

    other = opened(chromium, url, load=False)  # a second browser sees what the first made
    other.get_by_text("Where the ranking matters").first.wait_for()
    other.context.close()
    into_the_editor(page)


def into_the_editor(page: Page) -> None:
    """Choose the first row of the table and find its layers on the Masks page."""
    idle(page)
    table = page.locator(".st-key-compare-table").get_by_test_id("stDataFrame").first
    table.click(position={"x": 16, "y": 52})  # the tick of the first row, below the headings
    page.get_by_text("Chosen:").first.wait_for()
    said = page.get_by_text("Chosen:").inner_text()
    layers = said.split("drops ")[1].rstrip(".")
    press(page, "Load into the editor")
    idle(page)
    go(page, "Masks")
    page.get_by_text(f"of 16 layers dropped: {layers}").first.wait_for()
