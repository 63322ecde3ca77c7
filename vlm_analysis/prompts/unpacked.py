"""Parquet tables, unpacked in a process of its own (`parquet`): no number in such a file can be believed beforehand."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from vlm_analysis.errors import PromptError, short
from vlm_analysis.guard.child import BoundError, Bounds, Child, ChildError
from vlm_analysis.guard.memory import SHARE, free_memory

BOUNDS = Bounds(seconds=120, memory=2 << 30, answer=1 << 30)


@dataclass(frozen=True)
class Other:
    """A cell that is neither text, a number nor a list, by the name of its type."""

    type_name: str

    def __repr__(self) -> str:
        return self.type_name


def unpacked(name: str, data: bytes, columns: Collection[str], most_rows: int) -> Iterator[dict[str, Any]]:
    """Yield `columns` and `rows` (their number) of a Parquet table, then the cells of each row in the columns that are used.

    With more than `most_rows`, no row is read. Names of used columns are in lower case, without surrounding blanks.

    Raises:
        PromptError: the table is damaged, or takes more time or memory than there is for it.
    """
    bounds = replace(BOUNDS, memory=min(BOUNDS.memory, free_memory() // SHARE))
    child = Child(Path(__file__).with_name("parquet.py"), bounds)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "table.parquet"
            path.write_bytes(data)
            lines = child.answers({"path": str(path), "columns": list(columns), "most_rows": most_rows})
            yield next(lines)
            for cells in lines:
                yield {column: _cell(value) for column, value in cells.items()}
    except BoundError as error:
        raise PromptError(
            f"'{short(name)}' was refused: expected a table that unpacks in {bounds.seconds:.0f} s and {bounds.memory >> 20} MiB, "
            f"got one of which {error}. Split it, or save it as CSV."
        ) from error
    except ChildError as error:
        raise PromptError(
            f"'{short(name)}' could not be read: expected a Parquet table, got damaged or cut-short data ({short(error)}). Save it again."
        ) from error
    finally:
        child.close()


def _cell(value: Any) -> Any:
    if isinstance(value, dict):
        return Decimal(value["decimal"]) if "decimal" in value else Other(value["type"])
    return [_cell(one) for one in value] if isinstance(value, list) else value
