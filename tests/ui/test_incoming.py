"""Data that someone brings: looked at before it is taken, read another way where it must be, problems told by their reason."""

from __future__ import annotations

import base64
import io
import json

import pytest
from acting import OpenPage, ran, words
from PIL import Image
from streamlit.testing.v1 import AppTest

from vlm_analysis import PromptSet
from vlm_analysis.ui.common import incoming
from vlm_analysis.ui.common.session import opened, workspace

PAGES = ("app.py", "pages/2_prompts.py")


def picture(color: str = "red") -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def llava(n: int, **odd: object) -> bytes:
    turns = [{"from": "human", "value": "<image>\nwhat is it?"}, {"from": "gpt", "value": "red"}]
    rows = [{"id": f"r{i}", "image": picture(), "conversations": turns} for i in range(n)]
    return json.dumps([*rows, odd] if odd else rows).encode()


def strange(n: int) -> bytes:
    return json.dumps([{"foto": picture(), "frage": f"what is {i}?", "sorte": f"s{i % 2}"} for i in range(n)]).encode()


def bring(at: AppTest, name: str, data: bytes) -> AppTest:
    at.file_uploader[0].set_value((name, data, "application/octet-stream"))
    return ran(at)


def press(at: AppTest, key: str) -> AppTest:
    at.button(key=key).click()
    return ran(at)


@pytest.fixture
def at(open_page: OpenPage) -> AppTest:
    at = open_page("pages/2_prompts.py")
    at.session_state["way-in"] = "Open a file or folder"
    return ran(at)


def only_saved() -> PromptSet:
    (item,) = workspace().items("prompts")
    return opened(item)


def said(at: AppTest) -> str:
    return words(at).replace("\\", "")


def test_a_look_says_the_format_and_shows_three_prompts_before_anything_is_kept(at: AppTest) -> None:
    bring(at, "mine.json", llava(5))
    assert "mine.json: read as LLaVA conversations: " in said(at).replace("**", "")
    assert [text.value for text in at.text].count("what is it?") == 3
    assert not workspace().items("prompts")
    press(at, "take-button")
    assert len(only_saved()) == 5
    assert "Saved 5 prompts in 1 domain as 'mine.json'." in said(at)


def test_what_is_put_away_is_gone_and_another_file_takes_its_place(at: AppTest) -> None:
    bring(at, "mine.json", llava(1))
    press(at, "put-away-button")
    assert "read as" not in said(at)
    bring(at, "mine.json", llava(1))
    bring(at, "other.json", llava(2))
    assert "other.json" in said(at)
    assert "mine.json" not in said(at)


def test_a_table_that_is_not_recognised_is_read_by_naming_its_columns(at: AppTest) -> None:
    bring(at, "mine.json", strange(4))
    assert len(at.error) == 1
    assert "foto" in at.error[0].value
    for ours, theirs in (("image", "foto"), ("question", "frage")):
        box = next(box for box in at.selectbox if box.label == ours.capitalize())
        box.set_value(theirs)
        ran(at)
    assert not at.error
    assert "what is 2?" in [text.value for text in at.text]
    next(box for box in at.selectbox if box.label == "Domain").set_value("sorte")
    press(ran(at), "take-button")
    assert only_saved().domains == ("s0", "s1")


def test_each_way_of_reading_is_looked_at_once(at: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, object]] = []
    really = incoming.preview_prompts
    monkeypatch.setattr(incoming, "preview_prompts", lambda source, **how: (seen.append(how), really(source, **how))[1])
    bring(at, "mine.json", llava(2))
    ran(at)
    next(box for box in at.selectbox if box.label == "Of a conversation, ask").set_value("last")
    ran(at)
    assert seen == [{}, {"turns": "last"}]


def test_problems_of_one_reason_are_one_line_with_their_number(at: AppTest) -> None:
    rows = [{"image": f"{i}.png", "question": "what?"} for i in range(30)] + [{"image": picture(), "question": "what?"}]
    bring(at, "mine.jsonl", "\n".join(map(json.dumps, rows)).encode())
    (problems,) = (frame.value for frame in at.dataframe)
    assert problems["number"].tolist() == [30]
    assert problems["row"].tolist() == ["1, 2, 3, 4, 5, 6 and 24 more"]
    assert "30 rows left out so far" in said(at)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe"])
def test_what_cannot_be_read_is_one_error_and_can_be_put_away(at: AppTest, data: bytes) -> None:
    bring(at, "mine.json", data)
    assert len(at.error) == 1
    press(at, "put-away")
    assert not at.error


def test_rows_that_are_none_are_told_and_nothing_is_saved(at: AppTest) -> None:
    bring(at, "mine.json", b"[1, 2]")
    assert [warning.value for warning in at.warning] == ["No prompt could be made of its first rows."]
    press(at, "take-button")
    assert len(at.error) == 1
    assert not workspace().items("prompts")


def test_the_overview_takes_them_and_asks_to_record(open_page: OpenPage) -> None:
    at = open_page("app.py")
    bring(at, "mine.json", llava(2))
    press(at, "take-button")
    assert len(only_saved()) == 2
    assert at.button(key="own-record").label == r"Record with pocket\-vl"
    assert "No model is loaded, so the bundled one is" in said(at)
