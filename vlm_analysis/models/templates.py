"""Chat templates: the text of a conversation as a checkpoint's own template writes it.

A template is a program. That of the bundled model runs here; any other runs in one process of its own, kept warm, which is killed when
it takes too long, too much memory, or writes too much.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

from vlm_analysis.assets import asset
from vlm_analysis.guard.child import BoundError, Bounds, Child, ChildError

BOUNDS = Bounds(seconds=10, memory=256 << 20, answer=16 << 20)
MOST_TEMPLATE = 1 << 20  # characters; the longest we know has 20,000


def default_template(template: Any) -> str | None:
    """Return the template of a processor or tokenizer, of several the default one; None where there is none."""
    if isinstance(template, dict):
        template = template.get("default") or next(iter(template.values()), None)
    return template if isinstance(template, str) and template else None


def filled(processor: Any, messages: list[dict[str, Any]], template: str | None = None, *, open_answer: bool) -> str:
    """Return the messages as a template writes them, as the processor's `apply_chat_template` would.

    Args:
        processor: of the checkpoint.
        messages: as for `apply_chat_template`.
        template: the program; None for the processor's own.
        open_answer: end where the answer begins.

    Raises:
        ChildError: the template fails, or goes beyond what it may take.
        ValueError: there is none.
    """
    template = template or default_template(getattr(processor, "chat_template", None))
    if template is None:
        raise ValueError("expected a chat template, got none")
    if template == _bundled():
        return str(
            processor.apply_chat_template(
                messages, chat_template=template, add_generation_prompt=open_answer, tokenize=False
            )
        )
    variables = {
        "messages": messages,
        "tools": None,
        "documents": None,
        "add_generation_prompt": open_answer,
        **processor.tokenizer.special_tokens_map,
    }
    return _filled(template, variables)


def _filled(template: str, variables: dict[str, Any]) -> str:
    """Return a template with its variables, filled elsewhere; one that went beyond the bounds is not tried again."""
    mark = hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()
    if len(template) > MOST_TEMPLATE:
        raise ChildError(f"it has {len(template):,} characters, more than {MOST_TEMPLATE:,}")
    if mark in _beyond:
        raise ChildError(_beyond[mark])
    try:
        return str(_child().ask({"template": template, "variables": variables}))
    except BoundError as error:
        _beyond[mark] = str(error)
        raise


_beyond: dict[str, str] = {}  # by the hash of a template, the bound that it went beyond


@functools.cache
def _child() -> Child:
    return Child(Path(__file__).with_name("render.py"), BOUNDS)


@functools.cache
def _bundled() -> str:
    """Return the only template that is known to be harmless."""
    return (asset("pocket-vl") / "chat_template.jinja").read_text("utf-8")
