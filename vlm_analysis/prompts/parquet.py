"""Read Parquet and Arrow tables of unknown origin, in a process of its own (`guard.child`). Imports pyarrow only.

A table of some kilobytes can stand for gigabytes: a dictionary repeats one long text, a page unpacks to any size, and the sizes that
the file names are only claims. So nothing is judged beforehand, and the process is bounded from outside. It writes rows as they are asked
for: whoever reads them may stop early.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # others reserve more than they use

import pyarrow as pa
from pyarrow import ipc, parquet

BATCH = 16
MOST_TEXT = 1_000_000  # characters of a cell; what prompts may hold is far less
MOST_BYTES = 20_000_001  # of a picture; one byte more than allowed, so that the reader refuses it in its own words
MOST_ENCODED = MOST_BYTES * 4 // 3 + 1000  # characters of a picture in base64
MOST_ROW = 64_000_000  # bytes of all pictures of a row
MOST_LIST = 10_000
MOST_METADATA = 20_000_000
MOST_CLASSES = 10_000


def answers(question: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the names of the columns, the number of rows (None where it is not written) and the names of classes, then each row."""
    pa.set_cpu_count(1)
    with open(question["path"], "rb") as beginning:
        magic = beginning.read(6)
    if magic[:4] == b"PAR1":
        with parquet.ParquetFile(question["path"]) as file:
            yield _about(file.schema_arrow, file.metadata.num_rows)
            for batch in file.iter_batches(batch_size=BATCH, use_threads=False):
                yield from _rows(batch)
        return
    with pa.OSFile(question["path"], "rb") as source:
        if magic == b"ARROW1":
            reader = ipc.open_file(source)
            batches = (reader.get_batch(place) for place in range(reader.num_record_batches))
        else:
            reader = batches = ipc.open_stream(source)
        yield _about(reader.schema, None)
        for batch in batches:
            for start in range(0, batch.num_rows, BATCH):
                yield from _rows(batch.slice(start, BATCH))


def _about(schema: Any, n_rows: int | None) -> dict[str, Any]:
    return {"columns": schema.names, "rows": n_rows, "labels": _labels(schema)}


def _labels(schema: Any) -> dict[str, list[str]]:
    """Return the names of classes by column, as datasets writes them into the schema."""
    text = (schema.metadata or {}).get(b"huggingface", b"")
    try:
        features = json.loads(text[:MOST_METADATA])["info"]["features"]
        return {
            name: [str(one)[:200] for one in feature["names"][:MOST_CLASSES]]
            for name, feature in features.items()
            if isinstance(feature, dict)
            and feature.get("_type") == "ClassLabel"
            and isinstance(feature.get("names"), list)
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _rows(batch: Any) -> Iterator[dict[str, Any]]:
    for cells in batch.to_pylist():
        room = [MOST_ROW]
        yield {name: _cell(value, room) for name, value in cells.items()}


def _cell(value: Any, room: list[int]) -> Any:
    """Return a cell as JSON; what JSON lacks as an object with its kind, and what is too long or of another kind by its type."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return (
            value
            if len(value) <= MOST_TEXT or _is_picture(value, room)
            else {"type": f"text of {len(value):,} characters"}
        )
    if isinstance(value, bytes):
        room[0] -= len(value)
        fits = room[0] >= 0 and len(value) <= MOST_BYTES
        return {"bytes": base64.b64encode(value).decode()} if fits else {"type": f"picture of {len(value):,} bytes"}
    if isinstance(value, (list, tuple)):
        return [_cell(one, room) for one in value] if len(value) <= MOST_LIST else {"type": f"list of {len(value):,}"}
    if isinstance(value, dict):
        return {"struct": {str(name): _cell(one, room) for name, one in value.items()}}
    return {"decimal": str(value)} if isinstance(value, Decimal) else {"type": type(value).__name__}


def _is_picture(text: str, room: list[int]) -> bool:
    """Return whether a long text looks like a picture in base64, of which there is room for one more."""
    room[0] -= len(text)
    return room[0] >= 0 and len(text) <= MOST_ENCODED and not any(character.isspace() for character in text[:60])
