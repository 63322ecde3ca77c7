"""How a model is asked: its chat template, the token that ends an answer, its special tokens and its context.

A checkpoint says each of these in several files, which may disagree. Here stands which of them is in force, and `disagreements`
says in words where another file says something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from vlm_analysis.guard.child import ChildError
from vlm_analysis.models.templates import default_template, filled
from vlm_analysis.prompts.places import Parts

_QUESTION, _ANSWER = "how many?", "forty-two"
_BEFORE, _AFTER = "before it", "after it"
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "processor_config.json")
_TOKENIZER_FILE = "tokenizer_config.json"
_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")
_NO_LIMIT = 10**9  # tokenizers without a limit name a number of thirty digits


@dataclass(frozen=True)
class Template:
    """A chat template.

    Attributes:
        text: the program; None for the processor's own, which it finds itself.
        file: the file of the checkpoint that holds it.
        takes_parts: whether it takes a message as a list of images and texts. Those of language models take a text; images then stand
            ahead of it as image tokens, and a new line (our choice).
    """

    text: str | None
    file: str
    takes_parts: bool = True


def find_template(processor: Any, folders: Sequence[str] = ()) -> Template | None:
    """Return the chat template of a processor, or else of its tokenizer; None where neither has one.

    Args:
        processor: of the model.
        folders: where it may have come from, the first first, to name the file.
    """
    own, other = default_template(getattr(processor, "chat_template", None)), _tokenizer_template(processor)
    if own is None and other is None:
        return None
    files = [name for folder in folders if folder for name in _TEMPLATE_FILES if (Path(folder) / name).is_file()]
    found = Template(other, _TOKENIZER_FILE) if own is None else Template(None, [*files, "its processor"][0])
    as_text = Template(found.text, found.file, takes_parts=False)
    return as_text if not _shows_question(processor, found) and _shows_question(processor, as_text) else found


def render(processor: Any, template: Template, turns: Sequence[tuple[str, Parts]], *, open_answer: bool) -> str:
    """Return a conversation as the template writes it.

    Args:
        processor: of the model.
        template: see `find_template`.
        turns: role and parts of each turn: its texts, and a number where an image stands.
        open_answer: end where the answer begins.

    Raises:
        ChildError, ValueError: the template fails; it is a program from the checkpoint.
    """
    messages = [{"role": role, "content": _content(processor, template, parts)} for role, parts in turns]
    return filled(processor, messages, template.text, open_answer=open_answer)


def _content(processor: Any, template: Template, parts: Parts) -> list[dict[str, str]] | str:
    if template.takes_parts:
        return [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts]
    return in_one_text(processor, parts, "\n")


def in_one_text(processor: Any, parts: Parts, gap: str = "") -> str:
    """Return parts with the image token where each image stands, and `gap` between images that come first and the text."""
    *first, last = parts
    gap = gap if first and not any(isinstance(part, str) for part in first) else ""
    texts = [part if isinstance(part, str) else image_mark(processor) for part in (*first, gap, last)]
    return "".join(texts)


def image_mark(processor: Any) -> str:
    """Return the token that stands for an image in a text; "" where the processor has none."""
    mark = getattr(processor, "image_token", None)
    return mark if isinstance(mark, str) else ""


def keeps_places(processor: Any, template: Template | None) -> bool:
    """Return whether an image that stands between two texts is written there; else images come first, whatever a question's marks say."""
    if template is None or not template.takes_parts:
        return bool(image_mark(processor))
    try:
        inside, ahead = (
            render(processor, template, [("user", parts)], open_answer=True)
            for parts in ((_BEFORE, 0, _AFTER), (0, _BEFORE, _AFTER))
        )
    except (ChildError, ValueError):
        return True  # a prompt that it cannot write is refused by name
    return _between(inside) != _between(ahead)


def _between(text: str) -> str:
    return text.partition(_BEFORE)[2].rpartition(_AFTER)[0].strip()


def _shows_question(processor: Any, template: Template) -> bool:
    """Return whether a template writes a question as it stands, and not the list that it came in."""
    try:
        text = render(processor, template, [("user", (0, _QUESTION))], open_answer=True)
    except (ChildError, ValueError):  # a template is a program from the checkpoint
        return False
    return _QUESTION in text and "'type'" not in text and '"type"' not in text


def _tokenizer_template(processor: Any) -> str | None:
    return default_template(getattr(getattr(processor, "tokenizer", None), "chat_template", None))


def special_tokens(processor: Any, template: Template | None) -> dict[str, int]:
    """Return the tokens that a question must not hold, each with its number.

    These are all that the tokenizer's settings name, all that its vocabulary marks as special, the image token, and signs of the
    vocabulary's own that the chat template writes. A blank is none of them.
    """
    tokenizer = processor.tokenizer
    program = (
        default_template(getattr(processor, "chat_template", None)) if template else None
    ) or _tokenizer_template(processor)
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    marked = [token.content for token in added if token.special or _is_sign(token.content, program or "")]
    named = dict.fromkeys([*tokenizer.all_special_tokens, *marked, image_mark(processor)])
    return {token: tokenizer.convert_tokens_to_ids(token) for token in named if token.strip()}


def _is_sign(token: str, program: str) -> bool:
    return token in program and bool(token.strip()) and not token.strip()[0].isalnum()


def found_special(processor: Any, special: dict[str, int], text: str) -> str | None:
    """Return the first special token that a text holds as it stands, or once the tokenizer has read it; None where it holds none."""
    as_written = next((token for token in special if token in text), None)
    if as_written is not None:
        return as_written
    unknown = getattr(processor.tokenizer, "unk_token_id", None)
    ids = set(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
    return next((token for token, number in special.items() if number in ids and number != unknown), None)


def named_ends(model: Any, processor: Any) -> tuple[int, ...]:
    """Return the end tokens that the generation configuration names, or else the tokenizer."""
    named = model.generation_config.eos_token_id
    named = processor.tokenizer.eos_token_id if named is None else named
    return tuple(dict.fromkeys(map(int, _listed(named)))) if named is not None else ()


def all_ends(model: Any, processor: Any, template: Template | None) -> tuple[int, ...]:
    """Return the tokens that end an answer: first the one that the chat template writes after it, then those that are named."""
    named = named_ends(model, processor)
    first = _written_end(processor, template, named)
    return tuple(dict.fromkeys([*([] if first is None else [first]), *named]))


def _written_end(processor: Any, template: Template | None, named: Sequence[int]) -> int | None:
    """Return the special token that the template writes right after an answer, or else the first named one after it."""
    if template is None:
        return None
    try:
        text = render(processor, template, [("user", (_QUESTION,)), ("assistant", (_ANSWER,))], open_answer=False)
    except (ChildError, ValueError):  # a template may expect other messages
        return None
    after = text.rpartition(_ANSWER)[2]
    special = special_tokens(processor, template)
    right_after = [token for token in special if after.lstrip().startswith(token)]
    if right_after:
        return int(special[max(right_after, key=len)])
    ids = processor.tokenizer(after, add_special_tokens=False)["input_ids"]
    return next((int(token) for token in ids if token in named), None)


def asked_otherwise(model: Any, processor: Any, template: Template) -> dict[str, Any]:
    """Return what makes a model with this template be asked otherwise than in version 0.1; empty for most."""
    named, ends = named_ends(model, processor), all_ends(model, processor, template)
    by_template = (
        {} if template.text is None and template.takes_parts else {"asked by": [template.text, template.takes_parts]}
    )
    return by_template | ({} if not named or ends[0] in named else {"ends with": ends[0]})


def context_length(config: Any) -> int | None:
    """Return the most tokens that a model takes, by its configuration: the number of its positions, or what they are stretched to.

    None where the configuration names none, and for encoder-decoders, whose two parts differ.
    """
    if getattr(config, "is_encoder_decoder", False):
        return None
    text = config.get_text_config(decoder=True)
    numbers = [value for name in _CONTEXT if _is_count(value := getattr(text, name, None))][:1]
    rope = getattr(text, "rope_parameters", None) or {}
    factor, original = rope.get("factor"), rope.get("original_max_position_embeddings")
    if _is_count(original) and isinstance(factor, (int, float)):
        numbers.append(int(original * factor))
    return max(numbers) if numbers else None


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def disagreements(model: Any, processor: Any, template: Template | None, context: int | None) -> list[str]:
    """Return a sentence for each point in which the files of a checkpoint disagree, with what is in force."""
    found = []
    tokenizer, other = processor.tokenizer, _tokenizer_template(processor)
    if template is not None and not template.takes_parts:
        found.append(
            f"The chat template of {template.file} takes texts only, as those of language models do. Images stand ahead of the "
            f"question as {image_mark(processor)!r}. If the model was trained with another template, its answers will be poor."
        )
    if (
        template is not None
        and template.text is None
        and other not in (None, default_template(processor.chat_template))
    ):
        found.append(f"Two chat templates differ: that of {template.file} is in force, that of the tokenizer is not.")
    if not keeps_places(processor, template):
        who = (
            f"The chat template of {template.file} writes images first"
            if template is not None and template.takes_parts
            else "The processor has no token for an image"
        )
        found.append(f"{who}: where a question's marks put them elsewhere, they are asked first all the same.")
    named, ends = named_ends(model, processor), all_ends(model, processor, template)
    if named and ends[0] not in named:
        names = " and ".join(repr(name) for name in tokens_of(processor, named))
        found.append(
            f"The chat template ends an answer with {tokens_of(processor, ends)[0]!r}, the generation configuration names {names}. "
            "Answers are scored with the template's, and a response ends at any of them."
        )
    most = getattr(tokenizer, "model_max_length", None)
    if context is not None and most is not None and most < min(context, _NO_LIMIT):
        found.append(
            f"The tokenizer names {most:,} tokens at most, the configuration {context:,} positions. Prompts up to {context:,} "
            "tokens are asked."
        )
    return found


def tokens_of(processor: Any, ids: Iterable[int]) -> list[str]:
    """Return the texts of tokens."""
    return [str(token) for token in processor.tokenizer.convert_ids_to_tokens(list(ids))]


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]
