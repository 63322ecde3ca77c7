"""What a subcommand found, and the forms in which it is told: words, one JSON document, and files by their ending."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_analysis.errors import ExportError
from vlm_analysis.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

    from vlm_analysis.export.report import Section

TABLES = (".csv", ".parquet", ".html")
Write = Callable[[Path], object]


@dataclass(frozen=True)
class Found:
    """What a subcommand found.

    Attributes:
        title: what it is, in a few words; the heading of an HTML file.
        text: for people at a terminal.
        data: for machines; plain JSON but for numpy numbers, and NaN for what is not known.
        table: the rows of a CSV, Parquet or HTML file.
        sections: the parts of an HTML file; the text and the table by default.
        forms: by ending, how it writes itself in a form of its own, which goes before a table's.
    """

    title: str
    text: str
    data: dict[str, Any]
    table: pd.DataFrame
    sections: Callable[[], list[Section]] | None = None
    forms: Mapping[str, Write] = field(default_factory=dict)


def check_out(path: Path, endings: tuple[str, ...], tables: tuple[str, ...] = TABLES) -> None:
    """Refuse a file that could not be written, before anything runs.

    Raises:
        ExportError: an ending that is not known here, a folder in its place, or a place that cannot be written.
    """
    known = tuple(dict.fromkeys((*tables, *endings)))
    shown = str(path) if len(str(path)) <= 200 else f"{str(path)[:200]}…"
    try:
        if path.is_dir():
            raise ExportError(f"'{shown}' cannot be written: expected a file name, got the folder. Name a file in it.")
        if path.suffix.lower() not in known:
            raise ExportError(
                f"'{shown}' cannot be written: expected a name ending in {', '.join(known)}, got "
                f"'{path.suffix[:20]}'. Choose one of these endings."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        probe.touch(exist_ok=False)
        probe.unlink()
    except (OSError, ValueError) as error:
        raise _unwritable(shown, error) from error


def tell(found: Found, say: Callable[[str], None], *, out: Path | None, as_json: bool) -> None:
    """Write the file where one is asked for, then print the JSON document or the words.

    Raises:
        ExportError: the file cannot be written.
    """
    if out is not None:
        try:
            write_atomically(out, _writer(found, out.suffix.lower()))
        except (OSError, ValueError) as error:
            raise _unwritable(str(out), error) from error
    if as_json:
        say(json.dumps(plain(found.data), ensure_ascii=True, allow_nan=False))
    else:
        say(found.text if out is None else f"{found.text}\n\nWritten to {out}.")


def _unwritable(shown: str, error: Exception) -> ExportError:
    reason = getattr(error, "strerror", None) or error
    return ExportError(
        f"'{shown}' cannot be written: expected a place for a new file, got: {reason}. Choose another folder or free some space."
    )


def _writer(found: Found, suffix: str) -> Write:
    """Return what writes the file of an ending that `check_out` let pass."""
    if suffix in found.forms:
        return found.forms[suffix]
    if suffix == ".csv":
        return lambda part: found.table.to_csv(part, index=False)
    if suffix == ".parquet":
        return lambda part: found.table.to_parquet(part, index=False)
    if suffix == ".html":
        return lambda part: part.write_bytes(_page(found).encode("utf-8", errors="replace"))
    text = json.dumps(plain(found.data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return lambda part: part.write_text(text, "utf-8", "replace")


def _page(found: Found) -> str:
    from vlm_analysis import __version__
    from vlm_analysis.export.report import Section, report_html

    parts = (
        [Section("Numbers", found.text, table=found.table)]
        if found.sections is None
        else [*found.sections(), Section("Numbers", "", table=found.table)]
    )
    return report_html(found.title, parts, footer=f"Made by Strata {__version__}.")


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: tuples as lists, numpy numbers as Python's, NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, str | bool | int) or value is None:
        return value
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    return str(value)


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table, numbers to the last bit."""
    return [plain(row) for row in table.to_dict(orient="records")]
