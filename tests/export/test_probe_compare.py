"""Comparing a server's answers with a probe, and asking any server safely: values and a plain HTTP server, without a model."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlm_analysis import probe_server
from vlm_analysis.errors import ExportError
from vlm_analysis.export.probe.compare import Compared, compare_replies, without_opening
from vlm_analysis.export.probe.server import Reply, Server
from vlm_analysis.export.probe.value import FirstToken, Probe, ProbePrompt, open_probe, picture, probe_text

OPENING = "<|im_start|>assistant\n"


def prompt(number: int, answer: str, **otherwise: str) -> ProbePrompt:
    return ProbePrompt(str(number), "how many?", ("a.png",), answer, FirstToken("four", -0.5), otherwise)


PROBE = Probe(
    (
        prompt(1, "four red", deepstack="five red", layers="1 1"),
        prompt(2, "four", deepstack="three", layers="2 2"),
        prompt(3, "four dots", deepstack="four dots", layers="3"),
    ),
    24,
    OPENING,
)
RIGHT = [Reply(one.answer) for one in PROBE.prompts]


def judged(*replies: Reply, probe: Probe = PROBE) -> tuple[str, str, list[Compared]]:
    found = compare_replies(probe, replies)
    return found.verdict, " ".join(found.reasons), list(found.prompts)


class TestComparing:
    def test_the_same_answers_are_equal_whatever_their_blanks_and_unfinished_ends(self) -> None:
        verdict, said, _ = judged(Reply(" four  red\n"), Reply("four\ufffd"), RIGHT[2])
        assert (verdict, said) == ("equal", "3 of 3 answers are equal.")

    @pytest.mark.parametrize(
        ("logprob", "verdict"), [(-0.5, "equal"), (-0.5005, "equal"), (-0.52, "close"), (-1.4, "close")]
    )
    def test_the_same_answers_with_other_log_probabilities_are_close(self, logprob: float, verdict: str) -> None:
        replies = [Reply(one.answer, " four", logprob) for one in PROBE.prompts]
        assert judged(*replies)[0] == verdict

    @pytest.mark.parametrize(("logprob", "verdict"), [(-0.55, "close"), (-0.61, "broken"), (None, "broken")])
    def test_another_answer_is_close_only_where_its_first_token_is_as_probable(
        self, logprob: float | None, verdict: str
    ) -> None:
        token = None if logprob is None else "four"
        assert judged(Reply("four blue", token, logprob), *RIGHT[1:])[0] == verdict

    def test_the_answer_of_a_broken_model_is_broken_whatever_its_log_probability(self) -> None:
        verdict, _, rows = judged(Reply("five red", "four", -0.5), *RIGHT[1:])
        assert (verdict, rows[0].like) == ("broken", ("deepstack",))

    def test_lost_deepstack_features_are_named_and_counted_over_the_prompts_that_tell(self) -> None:
        verdict, said, _ = judged(Reply("five red"), Reply("three"), RIGHT[2])
        assert verdict == "broken"
        assert "2 of the 2 answers that tell it are those of the model when its DeepStack features are lost." in said
        assert "numbered wrongly" not in said

    def test_wrong_layer_numbers_are_named(self) -> None:
        verdict, said, _ = judged(Reply("1 1"), Reply("2 2"), Reply("3"))
        assert verdict == "broken"
        assert "3 of the 3 answers that tell it are those of the model when its layers are numbered wrongly." in said

    def test_other_answers_are_shown_with_what_was_expected(self) -> None:
        verdict, said, _ = judged(RIGHT[0], Reply("seven"), RIGHT[2])
        assert verdict == "broken"
        assert "1 answer differs otherwise, as to prompt '2': expected 'four', got 'seven'." in said
        assert "2 of 3 answers are equal." in said

    def test_one_answer_of_a_broken_model_among_many_names_no_reason(self) -> None:
        many = Probe(tuple(prompt(n, f"a{n}", deepstack=f"b{n}") for n in range(8)), 24)
        replies = [Reply("b0"), *(Reply(f"a{n}") for n in range(1, 8))]
        assert "DeepStack" not in judged(*replies, probe=many)[1]

    @pytest.mark.parametrize(
        ("answer", "left"),
        [
            ("<|im_start|> assistant\nfour", "four"),
            ("<|im_start|>assistant\n four ", "four"),
            ("four", "four"),
            ("<|im_start|> user\nfour", "<|im_start|> user\nfour"),
            ("<|im_start|>assistant", ""),
            ("", ""),
        ],
    )
    def test_an_opening_that_a_server_leaves_in_front_is_taken_away(self, answer: str, left: str) -> None:
        assert without_opening(answer, OPENING) == left
        assert without_opening(answer, "") == answer.strip()

    def test_a_probe_says_how_many_tell_and_what_was_not_tried(self) -> None:
        assert PROBE.words() == (
            "3 prompts; 2 tell whether its DeepStack features are lost; 3 tell whether its layers are numbered wrongly"
        )
        blind = Probe((prompt(1, "four", layers=" four "),), 24, "", {"deepstack": "the model has no such features"})
        assert blind.words() == (
            "1 prompt; the model has no such features, so none is there to tell whether its DeepStack features are lost; "
            "none tells whether its layers are numbered wrongly"
        )


@pytest.fixture
def export(tmp_path: Path) -> Path:
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "probe.json").write_text(probe_text(PROBE), "utf-8")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "probe" / "a.png")
    return tmp_path


class TestTheFile:
    def test_it_opens_as_it_was_and_says_how_many_tell(self, export: Path) -> None:
        assert open_probe(export) == PROBE
        written = json.loads((export / "probe" / "probe.json").read_text("utf-8"))
        assert written["tell"] == {"deepstack": 2, "layers": 3}
        assert written["what"] == PROBE.words()

    def test_a_folder_without_one_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(ExportError, match=r"holds no probe: expected probe/probe.json.*Export the checkpoint"):
            open_probe(tmp_path)

    @pytest.mark.parametrize(
        "change",
        [
            {"asked": []},
            {"asked": None},
            {"max_new_tokens": 10**9},
            {"asked": [{"id": "1"}]},
            {"kind": "mask"},
            {"schema_version": 99},
        ],
    )
    def test_a_damaged_one_is_refused_in_words(self, export: Path, change: dict[str, Any]) -> None:
        path = export / "probe" / "probe.json"
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change), "utf-8")
        with pytest.raises(ExportError, match=r"probe\.json"):
            open_probe(export)

    @pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "probe.json", "none.png"])
    def test_a_picture_is_read_beside_the_probe_only(self, export: Path, name: str) -> None:
        (export / "a.png").write_bytes(b"secret")
        with pytest.raises(ExportError):
            picture(export, name)


Answering = Callable[[str, dict[str, Any]], tuple[int, bytes, dict[str, str]]]


@contextmanager
def serving(answering: Answering) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """A plain HTTP server that answers (path, body) with a status, bytes and headers; yields its address and what it was asked."""
    asked: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({})

        def do_POST(self) -> None:
            self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def answer(self, body: dict[str, Any]) -> None:
            asked.append((self.path, body))
            status, content, headers = answering(self.path, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


def completion(text: str, logprobs: Any = None) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}, "logprobs": logprobs}]}).encode()


def right(answers: Sequence[str] = tuple(one.answer for one in PROBE.prompts)) -> Answering:
    left = list(answers)

    def answering(path: str, body: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        if path.endswith("/models"):
            return 200, json.dumps({"data": [{"id": "it"}]}).encode(), {}
        return 200, completion(left.pop(0)), {}

    return answering


class TestAsking:
    def test_pictures_and_questions_go_as_chat_completions_with_greedy_decoding(self, export: Path) -> None:
        with serving(right()) as (url, asked):
            found = probe_server(f"{url}/v1/", export)
        assert (found.verdict, found.model, found.url) == ("equal", "it", f"{url}/v1")
        assert [path for path, _ in asked] == ["/v1/models", *["/v1/chat/completions"] * 3]
        body = asked[1][1]
        assert (body["model"], body["temperature"], body["max_tokens"], body["logprobs"]) == ("it", 0, 24, True)
        picture_part, text_part = body["messages"][0]["content"]
        assert text_part == {"type": "text", "text": "how many?"}
        assert picture_part["image_url"]["url"].startswith("data:image/png;base64,iVBOR")

    def test_a_server_that_refuses_log_probabilities_is_asked_without(self, export: Path) -> None:
        answering = right()

        def picky(path: str, body: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
            return (400, b'{"error": "logprobs is not supported"}', {}) if "logprobs" in body else answering(path, body)

        with serving(picky) as (url, asked):
            assert probe_server(url, export).verdict == "equal"
        assert ["logprobs" in body for path, body in asked if path.endswith("completions")] == [
            True,
            False,
            False,
            False,
        ]

    def test_log_probabilities_are_read_where_they_are_given(self) -> None:
        given = {"content": [{"token": " four", "logprob": -0.25, "top_logprobs": []}]}
        with serving(lambda path, body: (200, completion("four", given), {})) as (url, _):
            assert Server(url).ask("it", ("how many?",), (), 8) == Reply("four", " four", -0.25)

    def test_marks_put_the_pictures_into_the_text(self) -> None:
        with serving(lambda path, body: (200, completion("x"), {})) as (url, asked):
            Server(url).ask("it", ("is ", 1, " like ", 0, "?"), (b"one", b"two"), 8)
        kinds = [part["type"] for part in asked[0][1]["messages"][0]["content"]]
        assert kinds == ["text", "image_url", "text", "image_url", "text"]

    @pytest.mark.parametrize(
        ("names", "model"),
        [(["it"], "it"), (["/x/other", "/y/mine"], "/y/mine"), ([], ""), (None, "")],
    )
    def test_the_served_name_is_found_in_its_list_or_left_out(self, names: list[str] | None, model: str) -> None:
        content = b"{}" if names is None else json.dumps({"data": [{"id": name} for name in names]}).encode()
        with serving(lambda path, body: (500 if names is None else 200, content, {})) as (url, _):
            assert Server(url).model("/home/mine") == model

    def test_of_several_models_one_has_to_be_named(self, export: Path) -> None:
        content = json.dumps({"data": [{"id": "a"}, {"id": "b"}]}).encode()
        with (
            serving(lambda path, body: (200, content, {})) as (url, _),
            pytest.raises(ExportError, match=r"serves several models.*got a, b\. Name it by --served"),
        ):
            probe_server(url, export)

    def test_a_server_without_a_list_is_asked_without_a_name(self) -> None:
        with serving(lambda path, body: (200, completion("x"), {})) as (url, asked):
            Server(url).ask("", ("how many?",), (), 8)
        assert "model" not in asked[0][1]


class TestWhatServersDo:
    def test_no_server_is_told_with_what_to_do(self, export: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(
            ExportError, match=r"cannot be asked: expected an OpenAI-compatible server.*Start the server"
        ):
            probe_server(url, export)

    @pytest.mark.parametrize(
        "url", ["", "127.0.0.1:8000", "file:///etc/passwd", "ftp://a/b", "http://", "http://[x", "http://a:x"]
    )
    def test_what_is_no_address_is_refused(self, export: Path, url: str) -> None:
        with pytest.raises(ExportError, match="is no address of a server"):
            probe_server(url, export)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"<html>", "expected JSON"),
            (b"[" * 100_000, "expected JSON"),
            (b'{"choices": []}', "expected a chat completion"),
            (b'{"choices": [{"message": {"content": null}}]}', "expected a chat completion"),
            (b"x" * 5_000_000, "more than 4,194,304 bytes"),
        ],
    )
    def test_other_answers_are_told(self, content: bytes, said: str) -> None:
        with (
            serving(lambda path, body: (200, content, {})) as (url, _),
            pytest.raises(ExportError, match=said),
        ):
            Server(url).ask("it", ("how many?",), (), 8)

    def test_a_redirect_is_not_followed(self) -> None:
        with serving(right()) as (other, asked):
            there = {"Location": f"{other}/v1/chat/completions"}
            with (
                serving(lambda path, body: (307, b"", there)) as (url, _),
                pytest.raises(ExportError, match="status 307"),
            ):
                Server(url).ask("it", ("how many?",), (), 8)
            assert asked == []

    def test_a_refusal_shows_the_servers_words(self) -> None:
        with (
            serving(lambda path, body: (404, b'{"detail": "no such model"}', {})) as (url, _),
            pytest.raises(ExportError, match=r"status 404.*no such model.*Look into the server's log"),
        ):
            Server(url).ask("it", ("how many?",), (), 8)

    def test_a_silent_server_ends_after_the_timeout(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(ExportError, match=r"takes too long.*--timeout"):
                Server(url, 0.2).ask("it", ("how many?",), (), 8)

    def test_a_loopback_address_is_never_asked_through_a_proxy(
        self, export: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        monkeypatch.delenv("no_proxy", raising=False)
        with serving(right()) as (url, _):
            assert probe_server(url, export).verdict == "equal"

    def test_a_shared_dashboard_asks_no_server(self, export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STRATA_SHARED", "1")
        with serving(right()) as (url, asked):
            with pytest.raises(ExportError, match="Asking a server is not allowed"):
                probe_server(url, export)
            assert asked == []
