"""Ask an OpenAI-compatible server, by the two calls that all of them have: `/v1/models` and `/v1/chat/completions`.

The address is the one that the user names, and nothing else is opened: redirects are refused, and a loopback address is never asked
through a proxy. What comes back is bounded in size and time.
"""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from vlm_analysis.errors import ExportError, short
from vlm_analysis.guard.shared import refuse_if_shared
from vlm_analysis.prompts.places import Parts

TIMEOUT_S = 120.0
MOST_ANSWER = 4 << 20  # bytes
_CHUNK = 1 << 16
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_TRY = "Start the server and name its address, as in http://127.0.0.1:8000."


@dataclass(frozen=True)
class Reply:
    """What a server answered.

    Attributes:
        token, logprob: its first token and the log-probability of that; None where the server gives none.
    """

    text: str
    token: str | None = None
    logprob: float | None = None


class Server:
    """An OpenAI-compatible server at an address.

    Args:
        url: "http://127.0.0.1:8000", with or without `/v1`.
        timeout_s: seconds that one answer may take.

    Raises:
        ExportError: the address is none, or this is a shared dashboard.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        refuse_if_shared("Asking a server", "Run it on your own machine.", ExportError)
        self.base, host = _base_of(url)
        self._timeout_s = timeout_s
        handlers: list[Any] = [_NoRedirect()]
        if host in _LOOPBACK:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)
        self._gives_logprobs = True

    def model(self, folder: str) -> str:
        """Return the name of the model that is served: the only one in its list, or the one named like `folder`; "" without a list.

        Raises:
            ExportError: it lists several, and none is named like the folder.
        """
        try:
            names = [str(one["id"]) for one in self._call("models")["data"]]
        except (_RefusedError, TypeError, KeyError):
            names = []
        last = Path(folder).absolute().name
        alike = [name for name in names if name.rstrip("/").rpartition("/")[2] == last]
        if len(names) > 1 and not alike:
            raise ExportError(
                f"{self.base} serves several models: expected one named {short(last)!r}, got {short(', '.join(names))}. Name it by "
                "--served."
            )
        return (alike or names or [""])[0]

    def ask(self, model: str, parts: Parts, pictures: Sequence[bytes], max_tokens: int) -> Reply:
        """Return the greedy answer to a question on PNG pictures, which stand where its parts say; without `model` of the only one served.

        Raises:
            ExportError: the server cannot be reached, refuses the question, or answers something else than a completion.
        """
        content = [_part_of(part if isinstance(part, str) else pictures[part]) for part in parts]
        body: dict[str, Any] = {"messages": [{"role": "user", "content": content}]} | (
            {"model": model} if model else {}
        )
        body |= {"temperature": 0, "max_tokens": max_tokens, "stream": False}
        return _reply_of(self._completion(body), self.base)

    def _completion(self, body: dict[str, Any]) -> Any:
        """Return a completion, with log-probabilities unless the server refuses to give them."""
        if self._gives_logprobs:
            try:
                return self._call("chat/completions", {**body, "logprobs": True, "top_logprobs": 1})
            except _RefusedError as refused:
                if "logprob" not in str(refused):
                    raise
                self._gives_logprobs = False
        return self._call("chat/completions", body)

    def _call(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.base}/{path}", data, {"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                content = _read(answer, self._timeout_s)
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode("utf-8", "replace")
            raise _RefusedError(
                f"{self.base}/{path} refuses: expected an answer, got status {error.code}: {short(said) or short(error.reason)}. "
                "Look into the server's log, or name the model by --served."
            ) from error
        except TimeoutError as error:
            raise ExportError(
                f"{self.base} takes too long: expected an answer within {self._timeout_s:g} s, got none. Give it more by --timeout."
            ) from error
        except (urllib.error.URLError, HTTPException, OSError) as error:
            if isinstance(getattr(error, "reason", None), TimeoutError):
                raise ExportError(
                    f"{self.base} takes too long: expected a connection within {self._timeout_s:g} s, got none. {_TRY}"
                ) from error
            reason = short(getattr(error, "reason", None) or error or type(error).__name__)
            raise ExportError(
                f"{self.base} cannot be asked: expected an OpenAI-compatible server, got: {reason}. {_TRY}"
            ) from error
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ExportError(
                f"{self.base} is no such server: expected JSON from /{path}, got {short(repr(content[:100]))}. {_TRY}"
            ) from error


class _RefusedError(ExportError):
    """The server answers with a status that is no success."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: pictures go to the address that the user named only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


def _part_of(part: str | bytes) -> dict[str, Any]:
    """Return a text or a picture as a part of a message."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(part).decode()}"}}


def _base_of(url: str) -> tuple[str, str]:
    """Return the address that ends in /v1, and its host."""
    try:
        parts = urllib.parse.urlsplit(url.strip())
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urllib.parse.urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not host:
        raise ExportError(
            f"{short(repr(url))} is no address of a server: expected http:// or https:// with a host. {_TRY}"
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    path = path if path.endswith("/v1") else f"{path}/v1"
    return f"{parts.scheme}://{parts.netloc}{path}", host


def _read(answer: Any, timeout_s: float) -> bytes:
    """Return the body, in pieces, so that a slow or endless one ends."""
    ends, content = time.monotonic() + timeout_s, b""
    while piece := answer.read1(_CHUNK):
        content += piece
        if len(content) > MOST_ANSWER:
            raise HTTPException(f"an answer of more than {MOST_ANSWER:,} bytes")
        if time.monotonic() > ends:
            raise TimeoutError
    return content


def _reply_of(content: Any, base: str) -> Reply:
    try:
        choice = content["choices"][0]
        message = choice["message"]["content"]
        if not isinstance(message, str):
            raise TypeError
    except (TypeError, KeyError, IndexError) as error:
        raise ExportError(
            f"{base} answers something else: expected a chat completion with a text, got {short(content)}. Is it OpenAI-compatible?"
        ) from error
    try:
        first = choice["logprobs"]["content"][0]
        return Reply(message, str(first["token"]), float(first["logprob"]))
    except (TypeError, KeyError, IndexError, ValueError):
        return Reply(message)
