"""Fill chat templates: programs of a checkpoint, run in a process of their own (`guard.child`). Imports jinja2 only.

Names, filters and extensions are those of transformers' `apply_chat_template`; its sandbox lets a template loop and multiply without
end, so `range` is bounded over the whole template here, and the process is bounded from outside.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import jinja2.utils

MOST_STEPS = 1_000_000  # of all ranges of a template


def answers(question: dict[str, Any]) -> Iterator[str]:
    """Yield the text of a template with its variables."""
    template = _compiled(question["template"])
    template.globals["range"] = _Ranges()
    yield template.render(**question["variables"])


class Generation(jinja2.ext.Extension):
    """The block `generation`, which marks what a model writes; here its content stands as it is."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own form

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    def _content(self, caller: Any) -> str:
        return str(caller())


class _Ranges:
    """A `range` that refuses more steps in all than a template can need."""

    def __init__(self) -> None:
        self._left = MOST_STEPS

    def __call__(self, *bounds: int) -> range:
        steps = jinja2.sandbox.safe_range(*bounds)
        self._left -= len(steps)
        if self._left < 0:
            raise OverflowError(f"expected ranges of {MOST_STEPS:,} steps in all at most, got more")
        return steps


class _Dict:
    """The function `dict` without its attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class _Namespace(jinja2.utils.Namespace):
    """A namespace without attributes that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, args = args[0], args[1:]
        attributes = dict(*args, **kwargs)
        for name in attributes:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a template cannot set {name!r}")


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@functools.lru_cache(maxsize=8)
def _compiled(template: str) -> jinja2.Template:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    functions: dict[str, Any] = {"raise_exception": _raise_exception, "strftime_now": _strftime_now, "dict": _Dict()}
    environment.globals.update(functions, namespace=_Namespace)
    return environment.from_string(template)
