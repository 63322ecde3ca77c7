"""What tests of the workspace save: a file and a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

ID = "20250101-120000-0123abcd"


def text(content: str = "{}") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(content)

    return write


def folder(path: Path) -> None:
    path.mkdir()
    (path / "prompts.jsonl").write_text("{}")
