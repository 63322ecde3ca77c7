"""What a checkpoint's processor may do, looked at before it is built: its tokenizer is tried, its image sizes are bounded.

A tokenizer is tried in a process of its own, once for each content of its file. That of the bundled model is known.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from vlm_analysis.errors import ModelError
from vlm_analysis.files import file_hash, read_bytes
from vlm_analysis.guard.child import PANIC, BoundError, Bounds, Child, ChildError
from vlm_analysis.models.source import BUNDLED_FOLDER, values_in

BOUNDS = Bounds(seconds=30, memory=3 << 30, answer=1 << 16)
MOST_SETTINGS = 1 << 20  # bytes of a file of settings
SETTINGS = ("preprocessor_config.json", "processor_config.json")
LARGEST = (  # by a pattern for the setting's name; the first match counts
    (re.compile(r"^(height|width|max_height|max_width)$"), 8_192),
    (re.compile(r"pixels|_edge$"), 2**27),  # some processors count pixels in an edge
    (re.compile(r"(^|_)(tiles|crops|patches|slices|frames|splits|views)($|_)"), 65_536),
    (re.compile(r"size|factor|length|dim"), 2**27),
)


def check_processor(where: str, options: dict[str, Any], name: str) -> None:
    """Raise ModelError where the tokenizer of a folder or hub id takes too much or panics, or an image size cannot be true."""
    if options["trust_remote_code"]:
        return  # then its code runs here anyway
    for file_name in SETTINGS:
        if (path := _file(where, file_name, options)) is not None:
            _check_settings(path, name)
    if (path := _file(where, "tokenizer.json", options)) is not None:
        _check_tokenizer(path, name)


def _file(where: str, file_name: str, options: dict[str, Any]) -> Path | None:
    """Return a file of a folder or hub id; None where there is none, or it cannot be had, which loading tells."""
    try:
        path = cached_file(
            where,
            file_name,
            revision=options["revision"],
            local_files_only=options["local_files_only"],
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
    except OSError:
        return None
    return None if path is None else Path(path)


def _check_settings(path: Path, name: str) -> None:
    try:
        settings = json.loads(read_bytes(path, MOST_SETTINGS))
    except (OSError, ValueError, RecursionError):  # loading tells
        return
    for key, value in values_in(settings):
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            continue
        most = next((most for pattern, most in LARGEST if pattern.search(key)), None)
        if most is not None and not value <= most:
            raise ModelError(
                f"{path.name} of {name!r} cannot be true: expected a number up to {most:,} for {key[:60]!r}, got {str(value)[:40]}. "
                "Fix it or download the checkpoint again."
            )


def _check_tokenizer(path: Path, name: str) -> None:
    mark = file_hash(path)
    if mark == _bundled():
        return
    if mark not in _verdicts:
        try:
            _child().ask({"path": str(path)})
            _verdicts[mark] = ""
        except BoundError as error:
            _verdicts[mark] = str(error)
        except ChildError as error:  # others are met again, and told, when it is loaded
            _verdicts[mark] = str(error) if str(error).startswith((PANIC, "ValueError")) else ""
    if _verdicts[mark]:
        raise ModelError(
            f"The tokenizer of {name!r} cannot be used: expected one that takes any text, got one of "
            f"which {_verdicts[mark]}. Use another checkpoint."
        )


_verdicts: dict[str, str] = {}  # by the hash of a tokenizer's file, what is wrong with it


@functools.cache
def _child() -> Child:
    return Child(Path(__file__).with_name("probe.py"), BOUNDS)


@functools.cache
def _bundled() -> str:
    return file_hash(BUNDLED_FOLDER / "tokenizer.json")
