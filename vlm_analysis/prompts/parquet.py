"""Read Parquet tables of unknown origin, in a process of its own (`guard.child`). Imports pyarrow only.

A table of some kilobytes can stand for gigabytes: a dictionary repeats one long text, a page unpacks to any size, and the sizes that
the file names are only claims. So nothing is judged beforehand, and the process is bounded from outside.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # others reserve more than they use

import pyarrow as pa
from pyarrow import parquet

BATCH = 16
MOST_TEXT = 1_000_000  # characters of a cell; what prompts may hold is far less
MOST_LIST = 10_000


def answers(question: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the names of all columns with the number of rows, then the cells of each row in the columns asked for."""
    pa.set_cpu_count(1)
    with parquet.ParquetFile(question["path"]) as file:
        names = file.schema_arrow.names
        yield {"columns": names, "rows": file.metadata.num_rows}
        if file.metadata.num_rows > question["most_rows"]:
            return
        used = [name for name in names if _plain(name) in question["columns"]]
        for batch in file.iter_batches(batch_size=BATCH, columns=used, use_threads=False):
            for cells in batch.to_pylist():
                yield {_plain(name): _cell(value) for name, value in cells.items()}


def _plain(name: str) -> str:
    return str(name).strip().casefold()


def _cell(value: Any) -> Any:
    """Return a cell as JSON: text, a number or a list; what is none of these by its type, and long text by its length."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return value if len(value) <= MOST_TEXT else {"type": f"text of {len(value):,} characters"}
    if isinstance(value, list):
        return [_cell(one) for one in value] if len(value) <= MOST_LIST else {"type": f"list of {len(value):,}"}
    return {"decimal": str(value)} if isinstance(value, Decimal) else {"type": type(value).__name__}
