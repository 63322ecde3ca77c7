"""The mask editor in a real browser: no click is lost, and mouse, keys, text and touch do the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import arrived, idle, new_window, strip_painted, write_mask
from playwright.sync_api import Locator, Page, expect
from rankings import with_tower

from tools.made import made_recording
from vlm_analysis.model_info import TowerInfo
from vlm_analysis.workbench.shelf import keep_recording
from vlm_analysis.workbench.workspace import Workspace

HOSTILE = "![x](http://host.example/p.png) <b onclick='x'>$x$</b>"
REST_MS = 600  # after which the strip asks Python about the mask, in beside.js
HOLD_QUESTIONS = f"""() => {{
  const real = window.setTimeout;
  window.questions = [];
  window.setTimeout = (act, wait, ...more) => (wait === {REST_MS} ? window.questions.push(act) : real(act, wait, ...more));
}}"""
LEAVE_AND_ASK = """() => {
  const now = performance.now.bind(performance);
  [...document.querySelectorAll("[data-testid=stSidebar] a")].find((link) => link.textContent.endsWith("Evaluate")).click();
  performance.now = () => now() + 60_000; // on a busy machine
  for (const question of [...window.questions]) question();
  performance.now = now;
  return window.questions.length;
}"""
TOWER = TowerInfo(6, protected={0: "first"}, locked={2: "DeepStack"})
DOMAINS = [HOSTILE, *(f"domain {number}" for number in range(1, 12))]


@pytest.fixture(scope="module")
def server_home(server_home: Path) -> Path:
    """A home with one recording of 64 layers and 12 domains, without a model."""
    made = with_tower(made_recording(64, DOMAINS), np.tile([0.5, 0.9, 0.99, 0.8, 0.95, 0.7], (36, 1)), TOWER)
    model = replace(made.model, vision_locked={33: "it passes tokens on through a state"})
    keep_recording(Workspace(server_home / ".strata"), replace(made, model=model), "made")
    return server_home


@pytest.fixture(scope="module")
def shown(lasting_page: Callable[[str], Page]) -> Page:
    return lasting_page("/masks")


@pytest.fixture
def page(shown: Page) -> Page:
    """The Masks page with an empty mask; tests leave no layer locked."""
    strip_painted(shown)
    write_mask(shown, "none")
    arrived(shown)
    return shown


def cell(page: Page, layer: int) -> Locator:
    return page.locator(f".strip .edit [data-layer='{layer}']")


def middle(page: Page, layer: int) -> tuple[float, float]:
    box = cell(page, layer).bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def says(page: Page, dropped: str) -> None:
    """Wait until the strip tells that these layers are dropped, as in "3, 4"."""
    count = len([part for part in dropped.split(", ") if part.isdigit()])
    expect(page.locator(".strip .count")).to_have_text(f"{count} of 64 layers dropped: {dropped}")


def drag_by_finger(page: Page, first: int, last: int) -> None:
    """Move a finger over cells as the browser's own touch input does, a few pixels at a time."""
    (start, y), (end, _) = middle(page, first), middle(page, last)
    cdp = page.context.new_cdp_session(page)

    def touch(kind: str, *places: float) -> None:
        points = [{"x": x, "y": y} for x in places]
        cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", start)
    for part in range(1, 21):
        touch("touchMove", start + (end - start) * part / 20)
    touch("touchEnd")


def numbers(first: int, last: int) -> str:
    return ", ".join(map(str, range(first, last + 1)))


def test_twenty_clicks_a_tenth_of_a_second_apart_all_arrive_and_outlive_a_reload(page: Page) -> None:
    places = [middle(page, layer) for layer in range(3, 23)]
    for place in places:
        page.mouse.click(*place)
        page.wait_for_timeout(100)
    says(page, numbers(3, 22))
    arrived(page)
    says(page, numbers(3, 22))  # no older run of Python has painted over it
    page.reload()
    says(page, numbers(3, 22))


def test_a_drag_and_a_range_are_one_step_each(page: Page) -> None:
    page.mouse.move(*middle(page, 4))
    page.mouse.down()
    page.mouse.move(*middle(page, 23), steps=3)
    says(page, numbers(4, 23))  # painted while the button is down
    page.wait_for_timeout(300)
    taken, number = (int(page.locator(".strip").get_attribute(f"data-{name}") or 0) for name in ("taken", "number"))
    assert taken < number  # and sent when it is up
    page.mouse.up()
    cell(page, 10).click()
    cell(page, 14).click(modifiers=["Shift"])
    says(page, f"{numbers(4, 9)}, {numbers(15, 23)}")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    says(page, numbers(4, 23))
    page.keyboard.press("Control+z")
    says(page, "none")
    page.keyboard.press("Control+Shift+Z")
    says(page, numbers(4, 23))
    arrived(page)
    page.mouse.move(*middle(page, 4))
    page.mouse.down()
    page.mouse.move(*middle(page, 9))
    page.keyboard.press("Escape")
    page.mouse.up()
    says(page, numbers(4, 23))


def test_keys_move_toggle_extend_and_lock_and_a_locked_layer_says_why(page: Page) -> None:
    cell(page, 5).click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowRight")
    says(page, numbers(5, 7))
    page.keyboard.press("l")
    expect(cell(page, 7)).to_have_accessible_name("layer 7, locked: you keep it")
    says(page, numbers(5, 6))
    page.keyboard.press("Space")
    expect(page.locator(".strip .said")).to_have_text("Layer 7 is locked: you keep it. Press L on it to unlock it.")
    arrived(page)
    page.reload()
    expect(cell(page, 7)).to_have_accessible_name("layer 7, locked: you keep it")
    idle(page)
    cell(page, 7).focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(page.locator(".strip .said")).to_contain_text("Layer 63 is protected: first and last layers stay")
    cell(page, 2).click()
    expect(page.locator(".strip .said")).to_have_text(re.compile("Layer 2 is locked: .* It cannot be dropped."))
    cell(page, 7).click()
    page.keyboard.press("l")
    expect(cell(page, 7)).to_have_accessible_name("layer 7, kept")
    arrived(page)


def sight(page: Page, layer: int) -> Locator:
    return page.locator(f".strip .vision [data-layer='{layer}']")


def skips(page: Page, text: str) -> None:
    """Wait until the strip tells where vision tokens skip layers, as in "absent 0-2; frozen 9"."""
    expect(page.get_by_label("vision:")).to_have_value(text)


def test_vision_tokens_have_a_row_that_cycles_drags_and_is_undone_with_the_other(page: Page) -> None:
    expect(page.locator(".strip .vision")).to_have_count(0)
    page.get_by_role("checkbox", name="vision tokens").check()
    for name in ("frozen: seen, not updated", "absent: hidden from text", "full"):
        sight(page, 5).click()
        expect(sight(page, 5)).to_have_accessible_name(f"layer 5, vision tokens {name}")
    sight(page, 33).click()
    expect(page.locator(".strip .said")).to_have_text(
        "Vision tokens cannot skip layer 33: it passes tokens on through a state."
    )
    sight(page, 6).hover()
    page.mouse.down()
    sight(page, 9).hover()
    page.mouse.up()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    says(page, "6")
    skips(page, "frozen 7-9")
    sight(page, 6).click()
    expect(page.locator(".strip .said")).to_contain_text("Layer 6 is cut: there are no vision tokens in it")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    skips(page, "")
    page.keyboard.press("Control+Shift+Z")
    skips(page, "frozen 6-9")
    arrived(page)
    expect(page).to_have_url(re.compile("frozen=6-9"))
    page.reload()
    skips(page, "frozen 6-9")
    idle(page)
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator(".strip .vision")).to_have_count(0)
    arrived(page)


def test_sliders_and_text_let_vision_tokens_enter_late_and_leave_early(page: Page) -> None:
    write_mask(page, "4; absent 60-63, frozen 10")
    says(page, "4")
    skips(page, "absent 60-63; frozen 10")
    page.get_by_label("leave").press("ArrowLeft")
    page.get_by_label("enter").press("ArrowRight")
    page.get_by_label("enter").press("ArrowRight")
    skips(page, "absent 0, 1, 59-63; frozen 10")
    page.get_by_label("leave").press("End")
    skips(page, "absent 0, 1; frozen 10")
    page.get_by_label("leave").press("Control+z")
    skips(page, "absent 0, 1, 59-63; frozen 10")
    page.get_by_label("vision:").fill("enter 3; leave at 62; frozen 33")
    page.get_by_label("vision:").press("Enter")
    skips(page, "absent 0-2, 62, 63")
    expect(page.locator(".strip .said")).to_contain_text("cannot skip layer 33")
    page.get_by_label("vision:").fill("everywhere")
    page.get_by_label("vision:").press("Enter")
    expect(page.locator(".strip .said")).to_contain_text("as in absent 0-2; frozen 9, got everywhere")
    arrived(page)


def test_layers_of_the_vision_encoder_are_proposed_dropped_and_undone_with_the_others(page: Page) -> None:
    encoder = page.get_by_role("group", name="Layers of the vision encoder")
    count = encoder.locator(".of-count")
    layer = {number: encoder.locator(f"button[data-layer='{number}']") for number in range(6)}
    cell(page, 5).click()
    encoder.get_by_label("of highest similarity").fill("2")
    encoder.get_by_role("button", name="Propose").click()
    expect(count).to_have_text("2 of 6 layers of the vision encoder dropped: 1, 4")  # 2 is locked
    layer[2].click()
    expect(encoder.get_by_role("status")).to_have_text(
        "Layer 2 of the vision encoder is locked: DeepStack. It cannot be dropped."
    )
    layer[4].click()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    expect(count).to_have_text("2 of 6 layers of the vision encoder dropped: 1, 3")
    expect(layer[3]).to_have_accessible_name("layer 3 of the vision encoder, cut")
    for key, lefts in (("Control+z", ("1", "1, 4", "none")), ("Control+Shift+Z", ("1, 4", "1", "1, 3"))):
        for left in lefts:
            page.keyboard.press(key)
            expect(count).to_have_text(re.compile(f"dropped: {left}$"))
            says(page, "5")
    arrived(page)
    expect(page).to_have_url(re.compile(r"cut=5.*tower=1\+3"))
    page.reload()
    says(page, "5")
    expect(count).to_have_text("2 of 6 layers of the vision encoder dropped: 1, 3")
    idle(page)
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(count).to_have_text("0 of 6 layers of the vision encoder dropped: none")
    arrived(page)


def test_layers_are_typed_as_numbers_and_ranges(page: Page) -> None:
    write_mask(page, "drop: 4, 7, 12-14, 0")
    says(page, "4, 7, 12, 13, 14")
    expect(page.get_by_label("drop:")).to_have_value("4, 7, 12-14")
    expect(page.locator(".strip .said")).to_contain_text("Layer 0 is protected")
    write_mask(page, "4, seven")
    expect(page.locator(".strip .said")).to_contain_text(
        "expected numbers and ranges in 0..63, as in 4, 7, 12-14, got seven"
    )
    says(page, "4, 7, 12, 13, 14")
    arrived(page)
    page.get_by_role("button", name="Clear", exact=True).click()
    says(page, "none")


def test_a_screen_reader_finds_a_grid_and_one_row_of_toggle_buttons(page: Page) -> None:
    write_mask(page, "4")
    arrived(page)
    edit = page.get_by_role("row", name="edit")
    tree = edit.aria_snapshot()
    assert 'button "layer 4, cut" [pressed]' in tree
    assert 'button "layer 3, kept":' in tree
    assert 'button "layer 2, locked: the cache counts its tokens here"' in tree
    assert 'button "layer 0, kept, protected: first and last layers stay unless you let them go"' in tree
    assert len(re.findall(r"button \"layer \d+,", tree)) == 64
    assert page.locator(".strip .edit [tabindex='0']").count() == 1
    above = page.locator(".strip .rows [role=row]").first
    assert (above.get_by_role("gridcell").count(), above.get_by_role("button").count()) == (64, 1)
    assert page.get_by_role("rowheader", name=HOSTILE, exact=True).count() == 1
    assert page.locator(".strip b").count() == 0
    above.get_by_role("gridcell").nth(9).click()
    says(page, "4, 9")


def test_three_rows_stay_in_view_and_colours_fit_the_recording(page: Page) -> None:
    for number in range(1, 4):
        page.get_by_role("button", name=f"Keep domain {number} in view", exact=True).click()
    page.get_by_role("button", name="Keep domain 4 in view", exact=True).click()
    expect(page.locator(".strip .said")).to_contain_text("Three rows are kept in view already")
    expect(page.locator(".strip .stuck [role=row]")).to_have_count(4)
    page.get_by_label("colours").select_option("fitted")
    expect(page.locator(".strip .legend")).to_contain_text(re.compile(r"similarity 0\.\d+"))
    arrived(page)
    page.evaluate(HOLD_QUESTIONS)
    write_mask(page, "5")
    arrived(page)
    assert page.evaluate(LEAVE_AND_ASK) > 0  # a question that comes after the click would leave the new page empty
    page.get_by_role("heading", name="Evaluate", exact=True).first.wait_for()
    idle(page)
    page.get_by_test_id("stSidebar").get_by_role("link", name="Masks", exact=True).click()
    expect(page.locator(".strip .stuck [role=row]")).to_have_count(4)
    expect(page.get_by_label("colours")).to_have_value("fitted")


@pytest.mark.slow
def test_a_finger_toggles_and_a_narrow_screen_scrolls(page: Page, chromium, server: str) -> None:
    context = new_window(
        chromium, base_url=server, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    phone = context.new_page()
    phone.goto("/masks")
    strip_painted(phone)
    idle(phone)
    cell(phone, 40).tap()
    cell(phone, 41).tap()
    says(phone, "40, 41")
    arrived(phone)
    drag_by_finger(phone, 39, 37)
    says(phone, "37, 38, 39, 40, 41")
    phone.get_by_role("button", name="Undo", exact=True).click()
    says(phone, "40, 41")
    arrived(phone)
    box = cell(phone, 40).bounding_box()
    assert box is not None
    assert box["width"] >= 28
    assert box["height"] >= 28
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()
