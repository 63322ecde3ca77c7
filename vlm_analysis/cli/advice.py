"""Messages of the library in the words of the command line: `columns={"image": "file"}` is `--columns image=file` there."""

from __future__ import annotations

import re
import shlex

_CALL = re.compile(r'open_prompts\((?:\.\.\., (?P<said>[^()]*)|"(?P<source>[^"]*)")\)')
_COLUMNS = re.compile(r"columns=\{([^{}]*)\}")
_PAIR = re.compile(r'"([^"]*)": (?:"([^"]*)"|…)')
_ARGUMENT = re.compile(r"(?<![\w-])(format|columns|images|domain|turns)=(?:\"([^\"]*)\"|(?='))")
_ALONE = re.compile(r"(?<![\w-])(format|columns|images|domain|turns)=(?=\s)")


def in_options(message: str) -> str:
    """Return a message in which arguments of `open_prompts` are options.

    >>> in_options('name yours: open_prompts(..., columns={"image": …, "question": "the query"}).')
    "name yours: --columns image=… --columns 'question=the query'."
    >>> in_options('images="…", or format= and turns=\\'all\\'')
    "--images …, or --format and --turns 'all'"
    """
    message = _CALL.sub(lambda call: call["said"] or call["source"], message)
    message = _COLUMNS.sub(lambda columns: " ".join(map(_pair, _PAIR.findall(columns[1]))), message)
    message = _ARGUMENT.sub(lambda said: f"--{said[1]} {_quoted(said[2] or '')}", message)
    return _ALONE.sub(r"--\1", message)


def _pair(pair: tuple[str, str]) -> str:
    return "--columns " + _quoted(f"{pair[0]}={pair[1] or '…'}")


def _quoted(text: str) -> str:
    """Return a text as a shell takes it; what stands for one, and none, stay."""
    return text if not text or text.endswith("…") else shlex.quote(text)
