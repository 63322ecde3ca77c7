"""The Result of a subcommand, and its output: text, one JSON document, and files by their ending."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_analysis.errors import ExportError, StrataError
from vlm_analysis.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

    from vlm_analysis.export.report import Section

TABLES = (".csv", ".parquet", ".html")
Write = Callable[[Path], object]


@dataclass(frozen=True)
class Result:
    """The result of a subcommand.

    Attributes:
        title: a few words; the heading of an HTML file.
        text: the output in a terminal.
        data: the JSON document; numpy numbers are allowed, and NaN for unknown values.
        table: the rows of a CSV, Parquet or HTML file.
        sections: the parts of an HTML file; the text and the table by default.
        forms: by ending, functions that write a file of it; they take precedence over the table's.
        beside: writes what belongs beside a file of a name and ending, before the file is there.
    """

    title: str
    text: str
    data: dict[str, Any]
    table: pd.DataFrame
    sections: Callable[[], list[Section]] | None = None
    forms: Mapping[str, Write] = field(default_factory=dict)
    beside: Write = lambda path: None


def ending_of(path: Path, known: Collection[str]) -> str:
    """Return the longest of the known endings that a file's name has, or else its suffix, in lower case.

    >>> ending_of(Path("Mask.optipfair.JSON"), (".json", ".optipfair.json"))
    '.optipfair.json'
    """
    name = path.name.lower()
    return max((one for one in known if name.endswith(one)), key=len, default=path.suffix.lower())


def check_out(path: Path, endings: tuple[str, ...], tables: tuple[str, ...] = TABLES) -> None:
    """Check that a file can be written, before anything runs.

    Raises:
        ExportError: the ending is unknown, the path is a folder, or it cannot be written.
    """
    known = tuple(dict.fromkeys((*tables, *endings)))
    shown = str(path) if len(str(path)) <= 200 else f"{str(path)[:200]}…"
    try:
        if path.is_dir():
            raise ExportError(f"'{shown}' cannot be written: expected a file name, got the folder. Name a file in it.")
        if ending_of(path, known) not in known:
            raise ExportError(
                f"'{shown}' cannot be written: expected a name ending in {', '.join(known)}, got "
                f"'{path.suffix[:20]}'. Choose one of these endings."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        probe.touch(exist_ok=False)
        probe.unlink()
    except ExportError:
        raise
    except (OSError, ValueError) as error:
        raise _unwritable(shown, error) from error


def print_result(result: Result, say: Callable[[str], None], *, out: Path | None, as_json: bool) -> None:
    """Write the file if `out` is set, then print the JSON document or the text.

    Raises:
        ExportError: the file cannot be written.
    """
    if out is not None:
        try:
            result.beside(out)
            write_atomically(out, _writer(result, ending_of(out, result.forms)))
        except StrataError:  # the result has no such form, for a reason of its own
            raise
        except (OSError, ValueError) as error:
            raise _unwritable(str(out), error) from error
    if as_json:
        say(json.dumps(plain(result.data), ensure_ascii=True, allow_nan=False))
    else:
        say(result.text if out is None else f"{result.text}\n\nWritten to {out}.")


def _unwritable(shown: str, error: Exception) -> ExportError:
    reason = getattr(error, "strerror", None) or error
    return ExportError(
        f"'{shown}' cannot be written: expected a path that can be written, got: {reason}. Choose another folder or free some space."
    )


def _writer(result: Result, suffix: str) -> Write:
    """Return the function that writes a file of an ending that `check_out` accepts."""
    if suffix in result.forms:
        return result.forms[suffix]
    if suffix == ".csv":
        from vlm_analysis.export.tables import table_csv

        return lambda part: part.write_text(table_csv(result.table), "utf-8", "replace")
    if suffix == ".parquet":
        return lambda part: result.table.to_parquet(part, index=False)
    if suffix == ".html":
        return lambda part: part.write_bytes(_page(result).encode("utf-8", errors="replace"))
    text = json.dumps(plain(result.data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return lambda part: part.write_text(text, "utf-8", "replace")


def _page(result: Result) -> str:
    from vlm_analysis import __version__
    from vlm_analysis.export.report import Section, report_html

    parts = (
        [Section("Numbers", result.text, table=result.table)]
        if result.sections is None
        else [*result.sections(), Section("Numbers", "", table=result.table)]
    )
    return report_html(result.title, parts, footer=f"Made by Strata {__version__}.")


def plain(value: Any) -> Any:
    """Return a value of JSON types: tuples become lists, numpy numbers Python's, NaN and infinities None."""
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
    """Return the rows of a table as JSON types, with full precision."""
    return [plain(row) for row in table.to_dict(orient="records")]
