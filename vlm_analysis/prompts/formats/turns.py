"""Conversations: what two sides say in turn, with `<image>` where a picture stands, made into questions with their answers.

A prompt is one question. Of a conversation with several, the first, the last or each is taken; what was said before it is left out, the
pictures shown before it are not. A system text stands in front of the question, as chat templates without a system role have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vlm_analysis.errors import PromptError, short
from vlm_analysis.prompts.cells import Cells, Row, as_list, cell_text, is_blank
from vlm_analysis.prompts.formats.base import Picture, Sample, Source, mapped, no_video, picture_of, pictures_of
from vlm_analysis.prompts.places import MARK, without_leading_marks

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
ROLES = {
    **dict.fromkeys(("user", "human"), USER),
    **dict.fromkeys(("assistant", "gpt", "bot", "model"), ASSISTANT),
    **dict.fromkeys(("system", "developer"), SYSTEM),
}
MARKS_OF_OTHERS = ("<video>", "<audio>", "<bbox>", "<ref-object>")
MOST_TURNS = 1000
KEPT = ("id", "domain", "task", "group")
TEXT_ONLY = "the row has no image: expected one, got text only. Remove the row, or name its image."
TEXT_PARTS = ("text", "input_text", "output_text")
PICTURE_PARTS = ("image", "image_url", "input_image")
PICTURE_KEYS = ("image", "image_url", "url", "path")

Place = str | Picture | int | None
"""What stands at a mark: a picture that the turn brings itself, the number of one of the row's, or the row's next one (None)."""


@dataclass(frozen=True)
class Tags:
    """Under which keys a turn names its side and its text, and by which words it names the sides."""

    role: str = "from"
    content: str = "value"
    roles: Mapping[str, str] = field(default_factory=lambda: ROLES)


FROM_VALUE, ROLE_CONTENT = Tags(), Tags("role", "content")


class Turn(NamedTuple):
    """What one side says: `text` has a mark for each of `places`."""

    role: str
    text: str
    places: tuple[Place, ...] = ()


class Exchange(NamedTuple):
    """A question, its answer ("" without one), and all pictures shown so far."""

    question: str
    answer: str
    pictures: tuple[str | Picture, ...]


def conversations(
    source: Source, column: str, tags: Tags, pictures: Sequence[str] = ("images", "image")
) -> Iterator[Row]:
    """Yield the prompts of a table with a conversation in one column and its pictures in others."""

    def prompts(cells: Cells) -> list[Cells]:
        no_video(cells)
        return asked(
            cells, read_turns(cells.get(column), column, tags), pictures_in(cells, pictures), source.options.turns
        )

    return mapped(source, prompts)


def questions_with_history(source: Source, question: Sequence[str], answer: str) -> Iterator[Row]:
    """Yield the prompts of a table of questions with answers, in which `history` holds the pairs before them.

    Args:
        source: of the table.
        question: the columns whose texts, each on a line of its own, are the question.
        answer: the column of the answer.
    """

    def prompts(cells: Cells) -> list[Cells]:
        no_video(cells)
        texts = [cell_text(cells.get(column), column) for column in question]
        pairs = [
            *_history(cells.get("history")),
            ("\n".join(filter(None, texts)), cell_text(cells.get(answer), answer)),
        ]
        turns = [
            said(role, cell_text(text, "history"))
            for pair in pairs
            for role, text in zip((USER, ASSISTANT), pair, strict=True)
        ]
        return asked(cells, turns, pictures_in(cells), own_question(source))

    return mapped(source, prompts)


def pairs(source: Source, column: str, keys: tuple[str, str]) -> Iterator[Row]:
    """Yield the prompts of a table with a list of objects in one column, each with a question and its answer under `keys`."""

    def prompts(cells: Cells) -> list[Cells]:
        no_video(cells)
        entries = [one if isinstance(one, dict) else {} for one in _bounded(cells.get(column), column)]
        sides = list(zip((USER, ASSISTANT), keys, strict=True))
        turns = [said(role, cell_text(one.get(key), column)) for one in entries for role, key in sides]
        return asked(cells, turns, pictures_in(cells), source.options.turns)

    return mapped(source, prompts)


def own_question(source: Source) -> str:
    """Return which question is a row's own where it has a history: the last, unless each is asked for."""
    return "each" if source.options.turns == "each" else "last"


def holds_turns(sample: Sample, column: str, tags: Tags) -> bool:
    """Return whether a row of the sample has turns with the keys of `tags` in a column."""
    for value in sample.cells(column):
        try:
            turns = as_list(value, column)
        except PromptError:
            continue
        if turns and isinstance(turns[0], dict) and {tags.role, tags.content} <= set(turns[0]):
            return True
    return False


def read_turns(value: object, column: str, tags: Tags) -> list[Turn]:
    """Return the turns of a conversation, from a list or its JSON text; those that one side says in a row are one.

    Raises:
        PromptError: the cell is no such list, or a turn has another role, a video or something else that cannot be shown.
    """
    found: list[Turn] = []
    for entry in _bounded(value, column):
        if not isinstance(entry, dict) or tags.role not in entry:
            raise PromptError(
                f"the cell '{column}' could not be read: expected turns with '{tags.role}' and '{tags.content}', got "
                f"{short(repr(entry), 60)}. Write each turn as an object."
            )
        turn = said(_role(entry, column, tags), entry.get(tags.content))
        if found and found[-1].role == turn.role:
            last = found.pop()
            turn = Turn(turn.role, f"{last.text}\n{turn.text}", last.places + turn.places)
        found.append(turn)
    return found


def exchanges(turns: Sequence[Turn], given: Sequence[str | Picture]) -> list[Exchange]:
    """Return the questions of a conversation with their answers.

    Args:
        turns: the conversation, without system texts.
        given: the pictures that the row names beside it, in the order of the marks; without any mark they stand in front.

    Raises:
        PromptError: there is no picture, no question, or another number of marks than of pictures.
    """
    if not given and not any(isinstance(place, (str, Picture)) for turn in turns for place in turn.places):
        raise PromptError(TEXT_ONLY)
    shown = _resolved([turn.places for turn in turns], given)
    seen: list[str | Picture] = [] if any(shown) else list(given)
    found: list[Exchange] = []
    for turn, pictures in zip(turns, shown, strict=True):
        if turn.role == ASSISTANT:
            if found:
                found[-1] = found[-1]._replace(answer=turn.text)
            continue
        question = MARK * len(seen) + turn.text if pictures else turn.text
        seen += pictures
        found.append(Exchange(without_leading_marks(question, len(seen)), "", tuple(seen)))
    if not found:
        raise PromptError("the conversation has no question: expected a turn of the user, got none. Add one.")
    return found


def asked(cells: Cells, turns: Sequence[Turn], given: Sequence[str | Picture], which: str) -> list[Cells]:
    """Return the cells of the prompts that a conversation makes.

    Args:
        cells: of the row; its `system`, `id`, `domain`, `task` and `group` are used.
        turns: the conversation; of system texts, those in it come before the row's.
        given: see `exchanges`.
        which: "first", "last" or "each".

    Raises:
        PromptError: see `exchanges`; or a picture stands in another text than a question.
    """
    system = [turn for turn in turns if turn.role == SYSTEM] or [said(SYSTEM, cells.get("system"))]
    if any(turn.places for turn in (*turns, *system) if turn.role != USER):
        raise PromptError(
            "an image stands in the wrong place: expected images in questions only, got one in another text. Move its mark."
        )
    found = exchanges([turn for turn in turns if turn.role != SYSTEM], given)
    chosen = {"first": found[:1], "last": found[-1:]}.get(which, found)
    kept = {column: cells[column] for column in KEPT if column in cells}
    above = "".join(f"{text}\n\n" for turn in system if (text := turn.text.strip()))
    return [
        kept | {"images": list(one.pictures), "question": above + one.question, "answer": one.answer} for one in chosen
    ]


def pictures_in(cells: Cells, columns: Sequence[str] = ("images", "image")) -> list[str | Picture]:
    """Return the pictures of the first of the columns that has some (raises as `picture_of`)."""
    return next((pictures_of(cells[column]) for column in columns if not is_blank(cells.get(column))), [])


def _bounded(value: object, column: str) -> list[Any]:
    entries = as_list(value, column)
    if len(entries) > MOST_TURNS:
        raise PromptError(
            f"the cell '{column}' was refused: expected at most {MOST_TURNS:,} turns, got {len(entries):,}. Split the conversation."
        )
    return entries


def said(role: str, content: object) -> Turn:
    """Return a turn of a text, or of a list of parts, which follow each other as in a chat template.

    Raises:
        PromptError: a part is neither text nor a picture.
    """
    pieces = [_part(part) for part in (content if isinstance(content, list) else [content])]
    text = "".join(piece for piece, _ in pieces)
    for mark in MARKS_OF_OTHERS:
        if mark in text:
            raise _not_shown(mark)
    return Turn(role, text, tuple(place for _, places in pieces for place in places))


def _history(value: object) -> list[list[Any]]:
    pairs = _bounded(value, "history")
    if any(not isinstance(pair, list) or len(pair) != 2 for pair in pairs):
        raise PromptError(
            f"the cell 'history' could not be read: expected pairs of question and answer, got {short(repr(pairs), 60)}. Write [[…, …], …]."
        )
    return pairs


def _role(entry: Mapping[str, Any], column: str, tags: Tags) -> str:
    value = "tool_calls" if entry.get("tool_calls") else entry[tags.role]
    role = tags.roles.get(str(value).strip().casefold())
    if role is None:
        raise PromptError(
            f"the cell '{column}' could not be used: expected turns of {', '.join(map(repr, tags.roles))}, got "
            f"{short(repr(value), 60)}. Conversations with tools are left out."
        )
    return role


def _part(part: object) -> tuple[str, tuple[Place, ...]]:
    kind: object = "text"
    if isinstance(part, dict):
        keys = ("text", *PICTURE_KEYS)
        kind = part.get("type") or next((key for key in keys if part.get(key) is not None), "nothing")
        if kind in PICTURE_PARTS:
            return MARK, (_place(part),)
        part = part.get("text")
    if kind not in TEXT_PARTS:
        raise _not_shown(kind)
    text = part if isinstance(part, str) else cell_text(part, "content")
    return text, (None,) * text.count(MARK)


def _place(part: Mapping[str, Any]) -> Place:
    if isinstance(part.get("base64"), str):
        return picture_of(f"data:image/any;base64,{part['base64']}")
    for key in PICTURE_KEYS:
        value = part.get(key)
        if not is_blank(value):
            return picture_of(value)
    index = part.get("index")
    return index if isinstance(index, int) and not isinstance(index, bool) else None


def _not_shown(kind: object) -> PromptError:
    return PromptError(
        f"the row cannot be shown: expected images and text, got {short(repr(kind), 40)}. Take frames of a video as images."
    )


def _resolved(places: Sequence[Sequence[Place]], given: Sequence[str | Picture]) -> list[list[str | Picture]]:
    """Return the pictures of each turn: its own ones, and of the row's those that its marks number, or the next ones."""
    wanted = [place for one in places for place in one if place is None or isinstance(place, int)]
    n_own = sum(map(len, places)) - len(wanted)
    numbers = [place for place in wanted if place is not None and 0 <= place < len(given)]
    numbered = bool(wanted) and len(numbers) == len(wanted)
    again = n_own == len(given) and not wanted  # the row names its turns' pictures once more
    if (wanted or n_own) and not (numbered or again or len(wanted) == len(given)):
        raise PromptError(
            f"the images could not be placed: expected as many marks {MARK} as images ({len(given)}), or none, got {len(wanted)}. "
            "Change their number."
        )
    following = iter(numbers if numbered else range(len(given)))

    def picture(place: Place) -> str | Picture:
        return place if isinstance(place, (str, Picture)) else given[next(following)]

    return [[picture(place) for place in one] for one in places]
