"""The address bar of a real browser: opened elsewhere it shows the same, back and forward work, and two browsers follow each other."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import choose, go, idle, press
from playwright.sync_api import Page, expect

from tools.made import made_recording
from vlm_analysis.workbench.shelf import keep_recording
from vlm_analysis.workbench.workspace import Workspace


@pytest.fixture(scope="module")
def server_home(server_home: Path) -> Path:
    """A home with two recordings of 16 layers, without a model."""
    for name in ("older", "newer"):
        keep_recording(Workspace(server_home / ".strata"), made_recording(16, ["general", "math"]), name)
    return server_home


def address(page: Page) -> dict[str, str]:
    """Return what the address says, by name."""
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def shows(page: Page, box: str, words: str) -> None:
    """Wait until a box shows what begins with these words."""
    expect(page.get_by_role("combobox", name=box).first).to_have_value(re.compile(f"^{words}"))
    idle(page)


def test_back_and_forward_go_through_what_was_shown_and_another_browser_shows_it(
    new_page: Callable[[str], Page],
) -> None:
    page = new_page("/similarity")
    idle(page)
    newer = address(page)["recording"]
    choose(page, "Recording", "older")
    older = address(page)["recording"]
    assert older != newer
    go(page, "Masks")
    assert address(page)["recording"] == older
    page.go_back()
    page.get_by_role("heading", name="Similarity", exact=True).first.wait_for()
    shows(page, "Recording", "older")
    page.go_back()
    shows(page, "Recording", "newer")
    assert address(page)["recording"] == newer
    page.go_forward()
    shows(page, "Recording", "older")
    assert address(page)["recording"] == older
    press(page, "Prompts", "tab", exact=True)
    choose(page, "Domain", "math")
    other = new_page(page.url)
    idle(other)
    expect(other.get_by_role("tab", name="Prompts", exact=True)).to_have_attribute("aria-selected", "true")
    shows(other, "Recording", "older")
    shows(other, "Domain", "math")
    assert address(other) == address(page)


@pytest.mark.slow
def test_a_project_begun_in_the_sidebar_is_in_the_address_and_back_leaves_it(new_page: Callable[[str], Page]) -> None:
    page = new_page("/similarity")
    shows(page, "Recording", "newer")
    page.get_by_role("combobox", name="Project").fill("my study")
    page.keyboard.press("Enter")
    page.get_by_text("Nothing recorded yet").wait_for()
    expect(page).to_have_url(re.compile("project=my[+]study"))
    choose(page, "Project", "default")
    expect(page).to_have_url(re.compile("project=default"))
    shows(page, "Recording", "newer")
    page.go_back()
    page.get_by_text("Nothing recorded yet").wait_for()
    shows(page, "Project", "my study")
    go(page, "Glossary")
    other = new_page(page.url)
    shows(other, "Project", "my study")
    assert address(other)["project"] == "my study"


def drops(page: Page, layers: str) -> None:
    expect(page.locator(".strip .count")).to_contain_text(f"layers dropped: {layers}")


@pytest.mark.slow
def test_two_browsers_follow_each_others_clicks_and_the_address_does_too(new_page: Callable[[str], Page]) -> None:
    one = new_page("/masks?cut=4,7,9-11")
    drops(one, "4, 7, 9, 10, 11")
    other = new_page("/masks")
    drops(other, "4, 7, 9, 10, 11")
    for layer in (5, 4):
        other.locator(f".strip .edit [data-layer='{layer}']").click()
    drops(one, "5, 7, 9, 10, 11")
    steps = other.evaluate("history.length")
    other.locator(".strip .edit [data-layer='6']").click()
    drops(one, "5, 6, 7, 9, 10, 11")
    assert other.evaluate("history.length") == steps  # a click is a step of undo, not of back
    one.locator(".strip .edit [data-layer='6']").click()
    one.locator(".strip .edit [data-layer='12']").click()
    drops(other, "5, 7, 9, 10, 11, 12")
    for page in (one, other):
        expect(page).to_have_url(re.compile(r"cut=5\+7\+9-12"))
