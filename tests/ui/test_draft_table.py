"""The table of own images on the Prompts page: texts for many rows at once, and domains from names of files and folders."""

from __future__ import annotations

import pytest
from acting import OpenPage, words
from drafting import drafts, edit, go, png, press, ran, upload
from streamlit.testing.v1 import AppTest


@pytest.fixture
def at(open_page: OpenPage) -> AppTest:
    return open_page("pages/2_prompts.py")


def test_a_question_and_a_domain_are_set_for_the_ticked_rows_only(at: AppTest) -> None:
    upload(at, ("a.png", png()), ("b.png", png()), ("c.png", png()))
    edit(at, {1: {"ticked": False, "question": "Mine"}})
    write(at, "question", "All?", "set-ticked")
    write(at, "domain", "charts", "set-ticked")
    write(at, "answer", "yes", "set-all")
    write(at, "answer", "  ", "set-all")
    assert [(d.question, d.domain, d.answer) for d in drafts(at)] == [
        ("All?", "charts", "yes"),
        ("Mine", "", "yes"),
        ("All?", "charts", "yes"),
    ]


def write(at: AppTest, field: str, text: str, key: str) -> None:
    """Write a text into one column of many rows."""
    at.selectbox(key="set-field").set_value(field)
    at.text_input(key="set-text").set_value(text)
    press(at, key)


def test_domains_come_from_the_folder_or_the_file_name_and_are_shown_before(at: AppTest) -> None:
    go(at, "Your images")
    at.segmented_control(key="drafts-way").set_value("folder")
    ran(at)
    names = ("mine/charts/bar 1.png", "mine/photos/IMG_2.png", "mine/photos/dog-3.png")
    at.file_uploader[0].set_value([(name, png(), "image/png") for name in names])
    ran(at)
    assert [d.name for d in drafts(at)] == list(names)
    at.segmented_control(key="domain-from").set_value("folder")
    assert "It would be: photos \\(2\\), charts \\(1\\)" in words(ran(at))
    assert [d.domain for d in drafts(at)] == [""] * 3
    press(at, "set-domains")
    assert [d.domain for d in drafts(at)] == ["charts", "photos", "photos"]
    at.segmented_control(key="domain-from").set_value("file")
    edit(at, {0: {"ticked": False}})
    press(at, "set-domains")
    assert [d.domain for d in drafts(at)] == ["charts", "IMG", "dog"]


def test_files_without_a_folder_give_no_domain(at: AppTest) -> None:
    upload(at, ("a.png", png()), ("7.png", png()))
    at.segmented_control(key="domain-from").set_value("folder")
    assert ran(at).button(key="set-domains").disabled
    at.segmented_control(key="domain-from").set_value("file")
    assert "1 ticked row would keep what it has" in words(ran(at))


def test_twenty_rows_are_in_view(at: AppTest) -> None:
    upload(at, *((f"{n}.png", png()) for n in range(25)))
    table = next(frame for frame in at.dataframe if "thumbnail" in frame.value)
    assert len(table.value) == 25
    assert "Cells can be pasted" in words(at)


def test_rows_without_a_question_are_ticked_alone(at: AppTest) -> None:
    upload(at, ("a.png", png()), ("b.png", png()))
    edit(at, {0: {"question": "What?"}})
    press(at, "tick-open")
    assert [d.ticked for d in drafts(at)] == [False, True]


def test_ticked_rows_are_removed_and_the_others_keep_what_was_typed(at: AppTest) -> None:
    upload(at, ("a.png", png()), ("b.png", png()))
    edit(at, {1: {"ticked": False, "question": "Why?"}})
    press(at, "remove-ticked")
    assert [(d.name, d.question) for d in drafts(at)] == [("b.png", "Why?")]


def test_two_uploads_of_one_name_are_told_apart(at: AppTest) -> None:
    upload(upload(at, ("a.png", png())), ("a.png", png("blue")))
    assert [(d.name, d.ticked) for d in drafts(at)] == [("a.png", False), ("a.png (2)", True)]


def test_more_than_200_rows_are_refused_by_name(at: AppTest) -> None:
    upload(at, *((f"{n}.png", png()) for n in range(203)))
    assert len(drafts(at)) == 200
    assert "Left out: 3" in at.warning[0].value
