"""A server on this machine that speaks what huggingface_hub asks of the Hub for datasets, and keeps what it was asked."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "c" * 40


@dataclass
class Kept:
    """A dataset as the server has it: the bytes of its files, the metadata of its card, and an error code in place of an answer."""

    files: dict[str, bytes] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    refused: tuple[int, str] | None = None
    sha: str = COMMIT


@dataclass
class Hub:
    """The server: its address, its datasets by "owner/name" or "owner/name@revision", and the requests that came."""

    address: str = ""
    datasets: dict[str, Kept] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def fetched(self) -> list[str]:
        """Return the names of the files that were asked for whole."""
        return [line.rpartition(f"/resolve/{COMMIT}/")[2] for line in self.asked if line.startswith("GET /datasets/")]


def point_to(address: str, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Do what HF_ENDPOINT does in a new process."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "cache"))


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve while the context lasts, on a free port of this machine."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            if path.startswith("/api/datasets/"):
                self._tell(*path.removeprefix("/api/datasets/").partition("/revision/")[::2])
            else:
                name, _, rest = path.removeprefix("/datasets/").partition("/resolve/")
                self._send_file(name, rest.partition("/")[2], with_body)

        def _tell(self, name: str, revision: str) -> None:
            kept = hub.datasets.get(f"{name}@{revision}") or (None if revision else hub.datasets.get(name))
            if kept is None:
                code = "RevisionNotFound" if revision and name in hub.datasets else "RepoNotFound"
                self._send(404, b"", {"X-Error-Code": code})
            elif kept.refused:
                self._send(kept.refused[0], b"", {"X-Error-Code": kept.refused[1]})
            else:
                siblings = [{"rfilename": one, "size": len(data)} for one, data in kept.files.items()]
                answer = {"id": name, "sha": kept.sha, "siblings": siblings, "cardData": kept.card}
                self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

        def _send_file(self, name: str, file: str, with_body: bool) -> None:
            data = next((kept.files[file] for kept in hub.datasets.values() if file in kept.files), None)
            if data is None:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            else:
                headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
                self._send(200, data, headers, with_body)

        def _send(self, status: int, data: bytes, headers: dict[str, str], with_body: bool = True) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(data))}).items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
