"""An Answer as one HTML file: every step with its sentence, nothing from outside, no script of a user's, small, printable, presentable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from compared import made
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from rankings import full_recording

from vlm_analysis import answer_of, headline
from vlm_analysis.errors import ExportError
from vlm_analysis.export.document.document import Cover, Document, document_of, picture_uri
from vlm_analysis.export.document.page import document_html, write_document
from vlm_analysis.export.document.price import ASSUMPTION, Price, priced
from vlm_analysis.figures.drawn import curve_svg, difference_svg, similarity_svg
from vlm_analysis.selection.compared.answer import Answer
from vlm_analysis.selection.compared.comparison import RESPONSES

HOSTILE = "</script><img src=x onerror=alert(1)><a href=http://host.example>"
MOST_BYTES = 1_500_000


def answer(domain: str = "math", question: str = "how many circles are there?") -> Answer:
    """Three budgets of one method on 40 prompts; six responses of the second, with three answers lost."""
    domains = ["general"] * 20 + [domain] * 20
    counts = {1: (20, 20), 2: (20, 17), 3: (10, 2)}
    scores = {
        ("block influence", "first-k", budget): np.concatenate([np.arange(20) >= 20 - count for count in pair]).astype(
            float
        )
        for budget, pair in counts.items()
    }
    said = [(1, str(row), question, "4 red circles", "5 red circles") for row in (20, 21, 22)]
    said += [(1, str(row), question, "a cat", "a cat") for row in (0, 1, 2)]
    comparison = made(scores, domains)
    responses = pd.DataFrame(said, columns=list(RESPONSES))
    return answer_of(replace(comparison, responses=responses, layer_shares=np.full(8, 0.1)), 2)


def document(
    domain: str = "math", question: str = "how many circles are there?", size: tuple[int, int] = (30, 40), **more
) -> Document:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    pictures = {str(row): Image.fromarray(noise) for row in (20, 21, 22, 0, 1, 2)}
    recording = full_recording(n_layers=8, domains=("general", domain))
    return document_of(answer(domain, question), recording, pictures, **more)


PRICE = Price(0.4, 1.2, "EUR")


@pytest.fixture(scope="module")
def page() -> str:
    cover = Cover("Which layers?", "Ada Lovelace", "2026-11-28")
    return document_html(
        document(size=(700, 900), cover=cover, price=PRICE, command="strata report demo --out report.html")
    )


class Tags(HTMLParser):
    """All start tags of a page, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_steps_are_the_mask_the_curve_the_money_the_answers_and_why() -> None:
    told = document(price=PRICE)
    assert told.steps[0].sentence == headline(answer())
    assert [bool(step.picture) for step in told.steps] == [True, True, False, False, True, True]
    assert [len(step.cards) for step in told.steps] == [0, 0, 0, 6, 0, 0]
    assert told.title == "Which layers can toy do without?"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", told.date)


def test_every_picture_says_in_words_what_its_step_says(page: str) -> None:
    pictures = [attributes for tag, attributes in Tags(page).tags if tag == "svg"]
    told = [step.sentence for step in document().steps if step.picture]
    assert [one["aria-label"] for one in pictures] == told
    assert all(one["role"] == "img" for one in pictures)
    assert all(attributes["alt"] for tag, attributes in Tags(page).tags if tag == "img")


def test_a_document_with_six_large_pictures_is_small_and_loads_nothing(page: str) -> None:
    assert len(page.encode()) < MOST_BYTES
    tags = Tags(page).tags
    assert sum(tag == "img" for tag, _ in tags) == 6
    sources = [
        value or "" for _, attributes in tags for name, value in attributes.items() if name in ("src", "href", "srcset")
    ]
    assert all(source.startswith(("data:image/webp;base64,", "#")) for source in sources)
    assert not re.search(r"@import|url\(", page)
    policy = next(one["content"] or "" for tag, one in tags if one.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_hostile_text_becomes_no_tag() -> None:
    cover = Cover(HOSTILE, HOSTILE, HOSTILE)
    page = document_html(document(HOSTILE, HOSTILE, cover=cover, price=Price(1, 1, "<b>"), command=HOSTILE))
    plain = document_html(document("math", "plain", cover=Cover("a", "a", "a"), price=Price(1, 1, "b"), command="a"))
    assert [tag for tag, _ in Tags(page).tags] == [tag for tag, _ in Tags(plain).tags]
    assert not any(name.startswith("on") for _, attributes in Tags(page).tags for name in attributes)


def test_a_document_says_who_wrote_it_where_it_comes_from_and_how_to_make_it_again(page: str) -> None:
    for words in (
        "Which layers?",
        "Ada Lovelace · 2026-11-28",
        "strata report demo --out report.html",
        "fingerprint ffff",
    ):
        assert words in page


def test_money_is_told_at_the_users_price_only_and_scales_with_time() -> None:
    assert "EUR" not in document_html(document())
    told = priced(answer(), Price(0.4, 1.2, "EUR"))
    assert told is not None
    sentence, basis, table = told
    assert (
        sentence
        == "At your price, a million tokens in and a million out would cost 1.28\u00a0EUR instead of 1.60\u00a0EUR"
    )
    assert basis.startswith(ASSUMPTION)
    assert "expected: 1.25 × as fast" in basis
    assert table["edited"].tolist() == [
        "0.32\u00a0EUR",
        "0.96\u00a0EUR",
    ]  # two of eight layers, a tenth of the time each
    assert priced(replace(answer(), speed=None), PRICE) is None


@pytest.mark.parametrize(("prompt", "response"), [(0, 0), (-1, 1), (float("nan"), 1), (1, float("inf")), (1, 2e6)])
def test_a_price_that_is_none_is_refused(prompt: float, response: float) -> None:
    with pytest.raises(ExportError, match="price of a million tokens"):
        Price(prompt, response)


def test_a_title_that_is_too_long_is_refused() -> None:
    with pytest.raises(ExportError, match="title is too long: expected 200"):
        Cover("t" * 201)


def test_pictures_are_made_small_enough() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    assert len(picture_uri(Image.fromarray(noise))) < 170_000


def test_missing_numbers_are_gaps_and_no_numbers() -> None:
    values = np.array([[0.5, np.nan, 0.99]])
    assert "nan" not in similarity_svg(values, ["a"], "alt") + difference_svg(values[0], ("a", "b"), "alt")
    curve = answer().curve.assign(value=np.nan, low=np.nan, high=np.nan)
    assert "nan" not in curve_svg(curve, answer().others, 2, "alt")


def test_a_document_replaces_a_file_whole_and_names_a_place_that_it_cannot_write(tmp_path: Path) -> None:
    path = write_document(document(), tmp_path / "new" / "report.html")
    assert path.read_text("utf-8").startswith("<!DOCTYPE html>")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ExportError, match="document was not written"):
        write_document(document(), tmp_path / "folder")


@pytest.fixture
def tab(chromium: Browser, page: str, tmp_path: Path) -> Iterator[Page]:
    """The document in a browser without a network, as it lies on a disk; it must ask for nothing and say no error."""
    path = tmp_path / "report.html"
    path.write_text(page, "utf-8")
    context = chromium.new_context(offline=True, viewport={"width": 1280, "height": 720})
    tab = context.new_page()
    said: list[str] = []
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("console", lambda line: said.append(line.text))
    tab.on("request", lambda request: said.append(request.url) if request.url.startswith(("http", "ws")) else None)
    tab.goto(path.as_uri())
    yield tab
    context.close()
    assert not said


@pytest.mark.browser
def test_arrow_keys_step_through_the_document_one_sentence_at_a_time(tab: Page) -> None:
    tab.get_by_role("button", name="Present").click()
    where = tab.locator("nav output")
    seen = []
    for _ in range(11):
        seen.append(where.inner_text())
        shown = [one for one in tab.locator(".slide").all() if one.is_visible()]
        assert len(shown) == 1
        tab.keyboard.press("ArrowRight")
    assert seen == [*(f"{place} of 11" for place in range(1, 12))][: len(seen)]
    assert where.inner_text() == "11 of 11"
    for key, place in (("ArrowLeft", 10), ("Home", 1), (" ", 2), ("PageDown", 3), ("Shift+ ", 2), ("End", 11)):
        tab.keyboard.press(key)
        assert where.inner_text() == f"{place} of 11"
    size = tab.evaluate("parseFloat(getComputedStyle(document.querySelector('.now h2')).fontSize)")
    assert size >= 40
    tab.get_by_role("button", name="Close").click()
    assert tab.get_by_role("heading", name="Where it comes from").is_visible()


@pytest.mark.browser
def test_the_document_prints_on_pages_that_cut_no_picture(tab: Page) -> None:
    printed = tab.pdf(prefer_css_page_size=True)
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 7
    tab.emulate_media(media="print", color_scheme="dark")
    assert not tab.get_by_role("button", name="Present").is_visible()
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 39)"
    kept = "[...document.querySelectorAll('.slide, .card, tr')].every(one => getComputedStyle(one).breakInside === 'avoid')"
    assert tab.evaluate(kept)


@pytest.mark.browser
def test_the_document_fits_a_phone(tab: Page) -> None:
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.slow
@pytest.mark.browser
def test_a_finger_swipes_through_the_slides_and_never_out_of_the_page(tab: Page) -> None:
    tab.get_by_role("button", name="Present").click()
    where = tab.locator("nav output")
    for start, end, place in ((900, 300, 2), (900, 300, 3), (300, 900, 2), (300, 900, 1), (300, 900, 1)):
        swipe(tab, start, end)
        tab.wait_for_timeout(300)  # the browser would go back after the finger has left
        expect(where).to_have_text(f"{place} of 11", timeout=10_000)


def swipe(tab: Page, start: int, end: int) -> None:
    """Move a finger to the side as the browser's own touch input does."""
    cdp = tab.context.new_cdp_session(tab)
    for kind, x in [
        ("touchStart", start),
        *(("touchMove", start + (end - start) * part / 10) for part in range(1, 11)),
    ]:
        cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": 360}]})
    cdp.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
