"""What every format builds on: the values it is recognised by and reads from, and what several of them do to a cell.

A format is a module (`Format`). It turns the raw rows of a source into rows with Strata's own columns: image or images (names of files, or
`Picture`s), question, answer, answers (all that are accepted), choices, domain, task, id, group. What makes prompts of them, finds the
pictures and counts what was left out is not here (`opening`).
"""

from __future__ import annotations

import base64
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from vlm_analysis.errors import PromptError, short
from vlm_analysis.prompts.archives import Files
from vlm_analysis.prompts.cells import MAX_NAME_SHOWN, MAX_SHOWN, Cells, Row, as_list, is_blank, type_of
from vlm_analysis.prompts.images import MAX_FILE_BYTES
from vlm_analysis.words import counted, some_of

ADD_ROWS = "Add a row for each picture among them."
DESCRIBE = "Describe the image in one sentence."  # asked where the data have captions and no question
NAME_IT = "What is shown in the image?"  # asked where the data have classes and no question
MOST_ENCODED = MAX_FILE_BYTES * 4 // 3 + 1000  # characters of a picture in base64
LONGEST_PATH = 64  # characters up to which base64 is not looked for
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP", b"\xffO\xffQ")
_MOVING = ("video", "videos", "audio", "audios")

Turns = Literal["first", "last", "each"]


@dataclass(frozen=True)
class Picture:
    """A picture that lies in a cell: its bytes as they stand there, neither decoded nor checked yet, and a name for messages."""

    data: bytes = field(repr=False)
    name: str = ""


@dataclass(frozen=True)
class Sample:
    """What a format is recognised by.

    Attributes:
        name: the table's file name without its folder; "" where the source has no table.
        columns: names of the columns, stripped and casefolded. Of a JSON file, those of the first rows.
        rows: the first rows that could be read, 20 at most.
        files: names of the files in the table's folder; without a table, of all files.
        labels: names of classes by column, where the table's schema has them; the cells hold the names already.
        parts: columns of each list, where the table is a JSON object; of one with several lists, `columns` and `rows` are empty.
        described: what a file in the same folder says of the table: its entry in LLaMA-Factory's `dataset_info.json`, a task of lmms-eval.
        written: names of columns as the file writes them, for messages; those of JSON are not kept.
    """

    name: str
    columns: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    files: tuple[str, ...] = ()
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    described: Mapping[str, Any] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)

    def cells(self, column: str) -> list[Any]:
        """Return what the rows hold in a column; cells that are blank are left out."""
        return [value for row in self.rows if not is_blank(value := row.cells.get(column))]

    def has(self, *columns: str) -> bool:
        """Return whether all of these are among the columns."""
        return set(columns) <= set(self.columns)


@dataclass(frozen=True)
class Options:
    """What a reader may choose: which turns of a conversation are asked, and whether a benchmark's own suffix follows the question."""

    turns: Turns = "first"
    suffix: bool = False


@dataclass(frozen=True)
class Source:
    """What a format reads: its sample, the raw rows, which can be iterated once, and the files beside the table.

    `folder` is the table's folder among `files`; names in rows are relative to it. `part` returns the rows of a list of the table, or of
    another table by its name from that folder (`part("annotations")`, `part("", "captions.json")`), and raises PromptError where there is
    none.
    """

    sample: Sample
    rows: Iterable[Row]
    files: Files
    folder: str = "."
    options: Options = Options()
    part: Callable[..., Iterable[Row]] = lambda part, table="": ()


class Format(Protocol):
    """A module of this folder, or a value such as `Benchmark`: a key, a name for people, and two functions."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a constant of the module
        """Its key, such as "llava"."""

    @property
    def TITLE(self) -> str:  # noqa: N802
        """Its name on screen, such as "LLaVA conversations"."""

    def matches(self, sample: Sample) -> str | None:
        """Return by what the source was recognised, as the end of "read as LLaVA conversations: …"; None where it is another format."""

    def rows(self, source: Source) -> Iterator[Row]:
        """Yield rows with Strata's own columns; a row of number 0 with an error is about the whole source."""


def mapped(source: Source, function: Callable[[Cells], Cells | list[Cells]]) -> Iterator[Row]:
    """Yield what a function makes of each row's cells: one row or several; its PromptError becomes the row's error.

    Of several rows, each has its place in its id: "7-1", "7-2".
    """
    for row in source.rows:
        if row.error:
            yield row
            continue
        try:
            made = function(row.cells)
        except PromptError as error:
            yield Row(row.number, {"id": row.cells.get("id")}, str(error))
            continue
        several = made if isinstance(made, list) else [made]
        for place, cells in enumerate(several, 1):
            name = cells.get("id")
            part = {"id": f"{row.number if is_blank(name) else name}-{place}"} if len(several) > 1 else {}
            yield Row(row.number, cells | part)


def left_out(names: list[str], expected: str, advice: str = "Save pictures among them as PNG.") -> Iterator[Row]:
    """Yield a row about the whole source that counts and names files that are not read; none where all are."""
    if not names:
        return
    shown = some_of((short(repr(name), MAX_NAME_SHOWN) for name in names[:MAX_SHOWN]), MAX_SHOWN, len(names))
    files = f"{counted(len(names), 'file')} {'was' if len(names) == 1 else 'were'}"
    yield Row(0, error=f"{files} left out: expected {expected}, got {shown}. {advice}")


def places(source: Source) -> dict[str, str]:
    """Return where the files of a source lie, relative to the table's folder, by their names without folders; the first of one name.

    A folder of more files than are listed has none; then names stand for themselves.
    """
    found: dict[str, str] = {}
    try:
        names = source.files.names()
    except PromptError:
        return found
    for name in names:
        found.setdefault(posixpath.basename(name), posixpath.relpath(name, source.folder))
    return found


def picture_of(value: object) -> str | Picture:
    """Return what a cell holds as a picture: the name of a file, or the picture itself.

    A cell is a name, bytes, a struct of bytes and path (bytes count first), a `data:` URI, or base64 text.

    Raises:
        PromptError: there is none, it is larger than 20 MB, is an address on the web, or something else.
    """
    if isinstance(value, Picture):
        return value
    if isinstance(value, bytes):
        return _bounded(value, "")
    if isinstance(value, Mapping) and not is_blank(value.get("bytes")):
        return _of_struct(value)
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("path", "url", "file_name") if not is_blank(value.get(key))), None)
    if is_blank(value):
        raise PromptError("the row has no image: expected a picture or its path, got none. Add it, or remove the row.")
    if not isinstance(value, str):
        raise PromptError(
            f"an image could not be read: expected a path, bytes or a struct of both, got a {type_of(value)}. Write its path."
        )
    text = value.strip()
    if re.match("https?://", text, re.IGNORECASE):
        raise PromptError(
            f"an image was refused: expected a file, got the address {short(repr(text), 80)}, and Strata loads nothing from the web. "
            "Download it, and name the file."
        )
    if text[:5].lower() == "data:":
        return _of_uri(text)
    encoded = text.removeprefix("file://")
    return (_of_base64(encoded) if len(text) > LONGEST_PATH else None) or encoded


def pictures_of(value: object) -> list[str | Picture]:
    """Return the pictures of a cell that holds one, or a list of them (raises as `picture_of`)."""
    is_list = isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))
    return [picture_of(one) for one in (as_list(value, "images") if is_list else [value])]


def no_video(cells: Cells) -> None:
    """Check that a row has neither video nor sound.

    Raises:
        PromptError: it has; the message names the cell.
    """
    for column in _MOVING:
        if not is_blank(cells.get(column)):
            raise PromptError(
                f"the row cannot be shown: expected images, got a cell '{column}'. Strata reads no video and no sound; take frames as "
                "images."
            )


def _of_struct(value: Mapping[str, Any]) -> Picture:
    data, name = value["bytes"], value.get("path")
    shown = name if isinstance(name, str) else ""
    if isinstance(data, str):
        decoded = _of_base64(data)
        if decoded is None:
            raise PromptError(
                f"an image could not be read: expected bytes, got the text {short(repr(data), 60)}. Write its path."
            )
        return Picture(decoded.data, shown)
    if not isinstance(data, bytes):
        raise PromptError(f"an image could not be read: expected bytes, got a {type_of(data)}. Write its path.")
    return _bounded(data, shown)


def _of_uri(text: str) -> Picture:
    head, _, _body = text[:200].partition(",")
    if not re.fullmatch(r"data:image/[\w.+-]+(;[\w=.+-]+)*;base64", head, re.IGNORECASE):
        raise PromptError(
            f"an image could not be read: expected data:image/…;base64, got {short(repr(text[:60]))}. Write it in base64, or its path."
        )
    return _decoded(text[len(head) + 1 :])


def _of_base64(text: str) -> Picture | None:
    """Return the picture that a text is in base64; None where it is another text, such as a path."""
    if not _BASE64.fullmatch(text[:200].rstrip("=")) or (len(text) <= 200 and not _BASE64.fullmatch(text)):
        return None
    try:
        head = base64.b64decode("".join(text[:80].split())[:40])
    except ValueError:
        return None
    return _decoded(text) if head.startswith(_BEGINNINGS) or head[4:8] == b"ftyp" else None


def _decoded(text: str) -> Picture:
    if len(text) > MOST_ENCODED:
        raise _too_large(len(text) * 3 // 4)
    try:
        data = base64.b64decode(text, validate=not any(character.isspace() for character in text[:1000]))
    except ValueError as error:
        raise PromptError(
            f"an image could not be read: expected base64, got other characters ({short(error)}). Write it again, or its path."
        ) from error
    return _bounded(data, "")


def _bounded(data: bytes, name: str) -> Picture:
    if len(data) > MAX_FILE_BYTES:
        raise _too_large(len(data))
    return Picture(data, name)


def _too_large(n_bytes: int) -> PromptError:
    return PromptError(
        f"an image was refused: expected at most {MAX_FILE_BYTES // 10**6} MB, got {n_bytes / 10**6:,.0f} MB. Save a smaller version."
    )
