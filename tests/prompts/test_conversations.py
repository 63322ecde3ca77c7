"""Formats of conversations: a question with its answer and its pictures is made of each row; one that is none of it says why."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from formats import asked, errors, read, sample_of

from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.formats import alpaca, cauldron, completion, llava, messages, sharegpt, swift
from vlm_analysis.prompts.formats.base import Format, Picture
from vlm_analysis.prompts.formats.table import recognise

DATA = b"\x89PNG\r\n\x1a\n" + bytes(80)
URI = "data:image/png;base64," + base64.b64encode(DATA).decode()


def human(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]


def said(*contents: Any) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[place % 2], "content": content} for place, content in enumerate(contents)]


BAD_LLAVA: dict[str, tuple[Any, str]] = {
    "text only": ({"conversations": human("why?", "so")}, "has no image: expected one, got text only"),
    "null picture": ({"image": None, "conversations": human("<image>\nwhy?", "so")}, "has no image"),
    "two marks": (
        {"image": "a.png", "conversations": human("<image><image>?", "so")},
        "as many marks <image> as images (1), or none, got 2",
    ),
    "video": ({"video": "a.mp4", "conversations": human("<video>\nwhy?", "so")}, "got a cell 'video'"),
    "video mark": ({"image": "a.png", "conversations": human("<video>\nwhy?", "so")}, "got '<video>'"),
    "web": ({"image": "https://x.org/a.png", "conversations": human("?", "so")}, "loads nothing from the web"),
    "text": ({"image": "a.png", "conversations": "human: why?"}, "expected a list, got 'human: why?'"),
    "number": ({"image": "a.png", "conversations": 7}, "expected a list, got a int"),
    "nested": ({"image": "a.png", "conversations": [[[]]]}, "expected turns with 'from' and 'value', got [[]]"),
    "no value": ({"image": "a.png", "conversations": [{"from": "human", "value": {"a": 1}}]}, "got 'nothing'"),
    "deep": ({"image": "a.png", "conversations": "[" * 50_000}, "expected a list"),
    "role": ({"image": "a.png", "conversations": [{"from": "tool", "value": "x"}]}, "got 'tool'"),
    "role is a list": ({"image": "a.png", "conversations": [{"from": ["x"], "value": "x"}]}, "got ['x']"),
    "many turns": (
        {"image": "a.png", "conversations": human(*["x"] * 1001)},
        "expected at most 1,000 turns, got 1,001",
    ),
    "only answers": ({"image": "a.png", "conversations": human("?", "so")[1:]}, "no question"),
    "picture in the answer": ({"image": "a.png", "conversations": human("?", "<image>")}, "in questions only"),
    "image a number": ({"image": 7, "conversations": human("?", "so")}, "got a int"),
}


class TestLlava:
    ROWS = (
        {"id": "000111", "image": "pics/pump.jpg", "conversations": human("<image>\nWhich part?", "a pump")},
        {"id": "000112", "image": "pics/valve.jpg", "conversations": human("How many bolts?\n<image>", "4")},
    )

    def test_a_question_is_plain_where_its_mark_leads_and_keeps_a_mark_inside(self) -> None:
        rows = read(llava, *self.ROWS)
        assert asked(rows) == [
            (["pics/pump.jpg"], "Which part?", "a pump"),
            (["pics/valve.jpg"], "How many bolts?\n<image>", "4"),
        ]
        assert [row.cells["id"] for row in rows] == ["000111", "000112"]

    @pytest.mark.parametrize(
        ("turns", "wanted"),
        [("first", [("one?", "1")]), ("last", [("two?", "2")]), ("each", [("one?", "1"), ("two?", "2")])],
    )
    def test_of_several_turns_the_first_the_last_or_each_is_asked_with_the_pictures_shown_so_far(
        self, turns: Any, wanted: Any
    ) -> None:
        rows = read(llava, {"image": "a.png", "conversations": human("<image>\none?", "1", "two?", "2")}, turns=turns)
        assert asked(rows) == [(["a.png"], *one) for one in wanted]

    def test_a_picture_of_an_earlier_turn_stands_in_front_of_a_later_one(self) -> None:
        row = {"image": ["a.png", "b.png"], "conversations": human("<image>\none?", "1", "and <image> now?", "2")}
        assert asked(read(llava, row, turns="last")) == [(["a.png", "b.png"], "<image>and <image> now?", "2")]
        assert asked(read(llava, row)) == [(["a.png"], "one?", "1")]

    def test_a_conversation_as_text_and_a_domain_beside_it_are_read(self) -> None:
        (row,) = read(
            llava, {**self.ROWS[0], "conversations": json.dumps(self.ROWS[0]["conversations"]), "domain": "parts"}
        )
        assert (row.cells["question"], row.cells["domain"]) == ("Which part?", "parts")

    @pytest.mark.parametrize("case", BAD_LLAVA)
    def test_a_bad_row_says_why_and_the_rest_go_on(self, case: str) -> None:
        bad, message = BAD_LLAVA[case]
        rows = read(llava, self.ROWS[0], bad, self.ROWS[1])
        assert len(asked([rows[0], rows[2]])) == 2
        assert list(errors(rows)) == [2]
        assert message in errors(rows)[2]
        assert len(errors(rows)[2]) < 600


class TestShareGPT:
    def test_images_and_system_text_lie_beside_the_turns(self) -> None:
        row = {
            "conversations": human("<image><image>which?", "both"),
            "images": ["a.png", "b.png"],
            "system": "Be brief.",
        }
        assert asked(read(sharegpt, row)) == [(["a.png", "b.png"], "Be brief.\n\nwhich?", "both")]

    def test_a_dataset_info_names_columns_keys_and_roles(self) -> None:
        entry = {
            "file_name": "data.json",
            "formatting": "sharegpt",
            "columns": {"messages": "Talk", "images": "pictures", "system": "rules"},
            "tags": {"role_tag": "who", "content_tag": "what", "user_tag": "Q", "assistant_tag": "A"},
        }
        row = {
            "talk": [{"who": "Q", "what": "<image>why?"}, {"who": "A", "what": "so"}],
            "pictures": ["a.png"],
            "rules": "Be brief.",
        }
        assert asked(read(sharegpt, row, described=entry)) == [(["a.png"], "Be brief.\n\nwhy?", "so")]
        assert "as dataset_info.json says" in recognise(sample_of([row], described=entry))[1]

    def test_a_table_described_as_openai_messages_is_read_by_its_description(self) -> None:
        tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
        entry = {
            "file_name": "data.json",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": tags,
        }
        row = {"messages": said("Who are they?", "Kane and Gretzka"), "images": ["mllm_demo_data/1.jpg"]}
        assert asked(read(sharegpt, row, described=entry)) == [
            (["mllm_demo_data/1.jpg"], "Who are they?", "Kane and Gretzka")
        ]

    def test_the_chosen_text_of_a_preference_is_the_answer(self) -> None:
        row = {
            "conversations": human("<image>why?"),
            "chosen": human("", "so")[1],
            "rejected": human("", "no")[1],
            "images": ["a.png"],
        }
        assert asked(read(sharegpt, row)) == [(["a.png"], "why?", "so")]

    @pytest.mark.parametrize("tag", ["function_call", "observation"])
    def test_a_conversation_with_tools_is_left_out(self, tag: str) -> None:
        good = {"conversations": human("why?", "so"), "images": ["a.png"]}
        bad = {"conversations": [*human("why?"), {"from": tag, "value": "{}"}], "images": ["a.png"]}
        assert "with tools are left out" in errors(read(sharegpt, good, bad))[2]


BAD_MESSAGES: dict[str, tuple[Any, str]] = {
    "audio part": (said([{"type": "input_audio", "input_audio": {}}]), "got 'input_audio'"),
    "video part": (said([{"type": "video", "video": "a.mp4"}]), "got 'video'"),
    "a part of no kind": (said([{}]), "got 'nothing'"),
    "a part of lists": (said([[["x"]]]), "got a list"),
    "text is an object": (said([{"type": "text", "text": {"text": {}}}]), "got a dict"),
    "type is a list": (said([{"type": ["text"], "text": "x"}]), "got ['text']"),
    "web": (
        said([{"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}]),
        "loads nothing from the web",
    ),
    "no base64": (
        said([{"type": "image_url", "image_url": {"url": "data:image/png,xx"}}]),
        "expected data:image/…;base64",
    ),
    "a null picture": (said([{"type": "image_url", "image_url": {"url": None}}, "x"]), "has no image"),
    "tools": ([*said("x"), {"role": "assistant", "content": None, "tool_calls": [{}]}], "got 'tool_calls'"),
    "no role": ([{"content": "x"}], "expected turns with 'role' and 'content'"),
    "more parts than images": (
        said([{"type": "image"}, {"type": "image"}]),
        "as many marks <image> as images (1), or none, got 2",
    ),
}


class TestMessages:
    def test_texts_with_marks_and_images_beside(self) -> None:
        row = {"messages": said("<image>What is it?", "a cat"), "images": ["a.png"]}
        assert asked(read(messages, row)) == [(["a.png"], "What is it?", "a cat")]

    def test_parts_keep_their_order_and_bring_their_pictures(self) -> None:
        parts = [
            {"type": "text", "text": "Is "},
            {"type": "image_url", "image_url": {"url": URI, "detail": "low"}},
            {"type": "text", "text": " like "},
            {"type": "image_url", "image_url": {"url": "b.png"}},
            {"type": "text", "text": "?"},
        ]
        assert asked(read(messages, {"messages": said(parts, "yes")})) == [
            ([Picture(DATA), "b.png"], "Is <image> like <image>?", "yes")
        ]

    def test_parts_without_a_picture_take_those_of_the_row_in_turn_or_by_their_number(self) -> None:
        def row(*indices: int | None) -> dict[str, Any]:
            parts = [{"type": "image", "text": None, "index": index} for index in indices]
            text = {"type": "text", "text": "which?", "index": None}
            return {
                "messages": said([*parts, text], [{"type": "text", "text": "x", "index": None}]),
                "images": [{"bytes": DATA, "path": None}, {"bytes": None, "path": "b.png"}],
            }

        pictures = [Picture(DATA), "b.png"]
        rows = read(messages, row(None, None), row(1, 0), row(1))
        assert asked(rows) == [
            (pictures, "which?", "x"),
            (pictures[::-1], "which?", "x"),
            (pictures[1:], "which?", "x"),
        ]

    def test_pictures_named_twice_are_those_of_the_parts(self) -> None:
        row = {
            "messages": said([{"type": "image", "image": "a.png"}, {"type": "text", "text": "which?"}], "x"),
            "images": ["a.png"],
        }
        assert asked(read(messages, row)) == [(["a.png"], "which?", "x")]

    def test_a_system_message_stands_in_front_of_the_question(self) -> None:
        turns = [{"role": "system", "content": "Be brief."}, *said("<image>\nwhat?", "a cat")]
        assert asked(read(messages, {"messages": turns, "images": ["a.png"]})) == [
            (["a.png"], "Be brief.\n\nwhat?", "a cat")
        ]

    def test_a_question_without_an_answer_has_none(self) -> None:
        assert asked(read(messages, {"messages": said("what?"), "images": ["a.png"]})) == [(["a.png"], "what?", "")]

    def test_turns_of_one_side_in_a_row_are_one(self) -> None:
        turns = [*said("look", "yes")[:1], *said("what?", "a cat")]
        assert asked(read(messages, {"messages": turns, "image": "a.png"})) == [(["a.png"], "look\nwhat?", "a cat")]

    @pytest.mark.parametrize("case", BAD_MESSAGES)
    def test_a_bad_row_says_why_and_the_rest_go_on(self, case: str) -> None:
        turns, message = BAD_MESSAGES[case]
        good = {"messages": said("x", "y"), "image": "a.png"}
        beside = {} if case == "a null picture" else {"image": "a.png"}
        rows = read(messages, good, {"messages": turns, **beside}, good)
        assert list(errors(rows)) == [2]
        assert message in errors(rows)[2]

    def test_a_data_uri_of_50_mb_is_refused_in_a_line(self) -> None:
        turns = said([{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 50_000_000}}])
        message = errors(read(messages, {"messages": turns}))[1]
        assert "expected at most 20 MB, got 38 MB" in message
        assert len(message) < 200


BAD_SWIFT: dict[str, tuple[Any, str]] = {
    "answer is a list": (
        {"response": ["a", "b"]},
        "the cell 'response' could not be read: expected text or a number, got a list",
    ),
    "question is an object": ({"query": {}}, "the cell 'query'"),
    "history is flat": ({"history": ["x", "y"]}, "expected pairs of question and answer, got ['x', 'y']"),
    "history of lists": ({"history": [["x", ["y"]]]}, "got a list"),
    "null pictures": ({"images": [None]}, "has no image"),
    "no pictures": ({"images": []}, "has no image"),
    "boxes": ({"query": "Find the <ref-object>"}, "got '<ref-object>'"),
    "sound": ({"audios": ["a.wav"]}, "got a cell 'audios'"),
}


class TestPairs:
    def test_prompt_and_completion_are_texts_or_messages(self) -> None:
        texts = {"prompt": "<image>What is it?", "completion": " a cat", "images": ["a.png"]}
        assert asked(read(completion, texts)) == [(["a.png"], "What is it?", " a cat")]
        turns = {
            "prompt": said([{"type": "image"}, {"type": "text", "text": "What?"}]),
            "completion": said("", "a cat")[1:],
            "image": "a.png",
        }
        assert asked(read(completion, turns)) == [(["a.png"], "What?", "a cat")]

    def test_a_completion_answers_the_last_question_and_the_chosen_one_is_the_answer(self) -> None:
        row = {
            "prompt": said("one?", "1", "two?"),
            "chosen": said("", "2")[1:],
            "rejected": said("", "3")[1:],
            "image": "a.png",
        }
        assert asked(read(completion, row)) == [(["a.png"], "two?", "2")]
        assert asked(read(completion, row, turns="each")) == [(["a.png"], "one?", "1"), (["a.png"], "two?", "2")]

    def test_an_alpaca_question_is_the_instruction_and_the_input(self) -> None:
        row = {
            "instruction": "<image>Count.",
            "input": "Only red ones.",
            "output": "3",
            "images": ["a.png"],
            "system": "",
            "history": [["x?", "y"]],
        }
        assert asked(read(alpaca, row)) == [(["a.png"], "Count.\nOnly red ones.", "3")]
        plain = {**row, "instruction": "Count.", "input": ""}
        assert [question for _, question, _ in asked(read(alpaca, plain, turns="each"))] == ["x?", "Count."]

    def test_a_dataset_info_names_the_columns_of_an_alpaca_table(self) -> None:
        entry = {"file_name": "data.json", "columns": {"prompt": "Ask", "response": "Say", "images": "pic"}}
        assert asked(read(alpaca, {"ask": "why?", "say": "so", "pic": "a.png"}, described=entry)) == [
            (["a.png"], "why?", "so")
        ]

    def test_a_query_and_a_response_of_ms_swift(self) -> None:
        row = {
            "query": "<image>two?",
            "response": "2",
            "history": "[['one?', '1']]",
            "images": [{"path": "a.png", "bytes": None}],
        }
        assert asked(read(swift, row)) == [(["a.png"], "two?", "2")]
        talk = {
            "system": "Be brief.",
            "conversation": [{"human": "one?", "assistant": "1"}, {"human": "two?", "assistant": "2"}],
            "images": "a.png",
        }
        assert asked(read(swift, talk, turns="last")) == [(["a.png"], "Be brief.\n\ntwo?", "2")]

    @pytest.mark.parametrize("case", BAD_SWIFT)
    def test_a_bad_row_says_why_and_the_rest_go_on(self, case: str) -> None:
        good = {"query": "why?", "response": "so", "images": ["a.png"]}
        cells, message = BAD_SWIFT[case]
        rows = read(swift, good, {**good, **cells}, good)
        assert list(errors(rows)) == [2]
        assert message in errors(rows)[2]


def test_texts_of_the_cauldron_are_questions_with_answers_on_the_same_pictures() -> None:
    texts = [{"user": "one?", "assistant": "1", "source": "x"}, {"user": "two?", "assistant": "2", "source": "x"}]
    row = {"images": [{"bytes": DATA, "path": None}], "texts": texts, "relevance_min": 3}
    rows = read(cauldron, row, turns="each")
    assert asked(rows) == [([Picture(DATA)], "one?", "1"), ([Picture(DATA)], "two?", "2")]
    assert [one.cells["id"] for one in rows] == ["1-1", "1-2"]
    assert "got a list" in errors(read(cauldron, row, {**row, "texts": [{"user": ["x"], "assistant": "y"}]}))[2]


@pytest.mark.parametrize("format_", [llava, sharegpt, messages, completion, alpaca, swift, cauldron])
def test_no_format_takes_a_table_of_others(format_: Format) -> None:
    own = {"image": "a.png", "question": "why?", "prompt": "x", "completion": "y", "messages": said("x", "y")}
    assert recognise(sample_of([own]))[0].NAME == "own"
    with pytest.raises(PromptError, match="expected the columns"):
        recognise(sample_of([{"picture": "a.png", "messages": "hello", "conversations": 7, "conversation": [1]}]))
    assert format_.matches(sample_of([{"a": 1}])) is None


def test_a_table_of_prompts_stays_one_whatever_else_lies_beside_its_question() -> None:
    own = {"images": ["a.png"], "question": "why?", "instruction": "x", "output": "y", "conversations": human("x", "y")}
    assert recognise(sample_of([own]))[0].NAME == "own"


def test_a_table_that_two_formats_read_is_the_users_to_choose() -> None:
    both = sample_of([{"image": "a.png", "conversations": human("x", "y"), "messages": said("x", "y")}])
    with pytest.raises(PromptError, match=r'LLaVA conversations .* or messages .*format="llava" or format="messages"'):
        recognise(both)
    assert recognise(both, "messages")[0] is messages
