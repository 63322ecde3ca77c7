"""What a checkpoint's processor may do, looked at before it is built: its numbers are bounded, its tokenizer and image processor tried.

They are tried in processes of their own, once for each content of their files (`verdicts`). Those of the bundled model are known.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.utils import cached_file

from vlm_analysis.errors import ModelError
from vlm_analysis.files import file_hash, read_bytes
from vlm_analysis.guard.child import PANIC, BoundError, Bounds, Child, ChildError
from vlm_analysis.models.source import BUNDLED_FOLDER, Source, values_in
from vlm_analysis.models.verdicts import is_harmless, mark_of, note_harmless
from vlm_analysis.words import joined

BOUNDS = Bounds(seconds=30, memory=3 << 30, answer=1 << 16)
PROCESSOR_BOUNDS = Bounds(seconds=120, memory=3 << 30, answer=1 << 16)
IDLE_S = 60.0  # after which the process with torch ends: its memory is worth more than its start
MOST_SETTINGS = 1 << 20  # bytes of a file of settings
SETTINGS = ("preprocessor_config.json", "processor_config.json")
VOCABULARY = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
)
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


def try_processor(source: Source, say: Callable[[str], object]) -> None:
    """Raise ModelError where the processor of a checkpoint takes too much for a picture, or can prepare none.

    What it was built of is tried once; `say` is called before that, as it takes some seconds.
    """
    where, options = source.where, source.options
    if options["trust_remote_code"]:
        return  # then its code runs here anyway
    files = {name: path for name in (*SETTINGS, *VOCABULARY) if (path := _file(where, name, options)) is not None}
    named = [name for name in SETTINGS if name in files]
    if not named:
        return  # loading tells
    mark = _processor_mark(files, source.config)
    if mark == _bundled_processor() or is_harmless(mark):
        return
    if mark not in _refused:
        say("trying its image processor, once")
        try:
            answer = _processor_child().ask({"where": where, "options": {**options, "local_files_only": True}})
        except BoundError as error:
            _refused[mark] = str(error)
        except ChildError:  # met again, and told, when it is loaded
            return
        else:
            if not answer["is_built"]:
                return
            if answer["wrong"]:
                _refused[mark] = f"it says {answer['wrong']!r} of any"
    if mark in _refused:
        raise ModelError(
            f"{joined(named)} of {source.name!r} cannot be used: expected an image processor that prepares a picture, got one of which "
            f"{_refused[mark]}. Fix its numbers or download the checkpoint again."
        )
    note_harmless(mark)


def _processor_mark(files: dict[str, Path], config: Any) -> str:
    """Return the mark of all that decides what a processor does: its files, and what `load_processor` takes of the configuration."""
    vision = getattr(config, "vision_config", None)
    taken = [getattr(vision, name, None) for name in ("model_type", "patch_size", "image_size")]
    taken += [config.model_type, getattr(config, "vision_feature_select_strategy", None)]
    return mark_of("processor", [{name: file_hash(path) for name, path in files.items()}, list(map(str, taken))])


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
    content = file_hash(path)
    mark = mark_of("tokenizer", content)
    if content == _bundled() or is_harmless(mark):
        return
    if mark not in _refused:
        try:
            _child().ask({"path": str(path)})
        except BoundError as error:
            _refused[mark] = str(error)
        except ChildError as error:
            if not str(error).startswith((PANIC, "ValueError")):
                return  # met again, and told, when it is loaded
            _refused[mark] = str(error)
    if mark in _refused:
        raise ModelError(
            f"The tokenizer of {name!r} cannot be used: expected one that takes any text, got one of "
            f"which {_refused[mark]}. Use another checkpoint."
        )
    note_harmless(mark)


_refused: dict[str, str] = {}  # by the mark of a tokenizer or processor, what is wrong with it


@functools.cache
def _child() -> Child:
    return Child(Path(__file__).with_name("probe.py"), BOUNDS)


@functools.cache
def _processor_child() -> Child:
    return Child(Path(__file__).with_name("probe_processor.py"), PROCESSOR_BOUNDS, idle_s=IDLE_S)


@functools.cache
def _bundled() -> str:
    return file_hash(BUNDLED_FOLDER / "tokenizer.json")


@functools.cache
def _bundled_processor() -> str:
    files = {name: path for name in (*SETTINGS, *VOCABULARY) if (path := BUNDLED_FOLDER / name).exists()}
    return _processor_mark(files, AutoConfig.from_pretrained(BUNDLED_FOLDER))
