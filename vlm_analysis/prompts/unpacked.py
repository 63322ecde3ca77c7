"""Parquet and Arrow tables, unpacked in a process of its own (`parquet`): no number in such a file can be believed beforehand."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from vlm_analysis.errors import PromptError, short
from vlm_analysis.guard.child import BoundError, Bounds, Child, ChildError
from vlm_analysis.guard.memory import SHARE, free_memory
from vlm_analysis.prompts.cells import Other

# The answer holds the pictures of 10,000 rows: it is read row by row, and a row is bounded by the process that writes it.
BOUNDS = Bounds(seconds=120, memory=2 << 30, answer=8 << 30)


def unpacked(name: str, source: bytes | Path) -> Iterator[dict[str, Any]]:
    """Yield `columns`, `rows` (their number, or None) and `labels` (names of classes by column) of a table, then the cells of each row.

    Rows come as they are asked for: whoever closes the iterator early ends the process.

    Raises:
        PromptError: the table is damaged, or takes more time or memory than there is for it.
    """
    bounds = replace(BOUNDS, memory=min(BOUNDS.memory, free_memory() // SHARE))
    child = Child(Path(__file__).with_name("parquet.py"), bounds)
    try:
        with _on_disk(source) as path:
            lines = child.answers({"path": str(path)})
            yield next(lines)
            for cells in lines:
                yield {column: _cell(value) for column, value in cells.items()}
    except BoundError as error:
        raise PromptError(
            f"'{short(name)}' was refused: expected a table that unpacks in {bounds.seconds:.0f} s and {bounds.memory >> 20} MiB, "
            f"got one of which {error}. Split it, or save it as CSV."
        ) from error
    except ChildError as error:
        kind = "an Arrow" if name.lower().endswith(".arrow") else "a Parquet"
        raise PromptError(
            f"'{short(name)}' could not be read: expected {kind} table, got damaged or cut-short data ({short(error)}). Save it again."
        ) from error
    finally:
        child.close()


@contextmanager
def _on_disk(source: bytes | Path) -> Iterator[Path]:
    if isinstance(source, Path):
        yield source.absolute()
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table"
        path.write_bytes(source)
        yield path


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return [_cell(one) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "struct":
        return {name: _cell(one) for name, one in content.items()}
    if kind == "bytes":
        return base64.b64decode(content)
    return Decimal(content) if kind == "decimal" else Other(content)
