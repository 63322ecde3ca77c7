"""Tables of benchmarks: each cell replaced by what is none, options that are no list, rows without end."""

from __future__ import annotations

import base64
import functools
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from vlm_analysis import open_prompts

from .cases import VALUES, Case

TRIED = ("null", "huge", "object", "nested", "half a character")
NO_LISTS = {
    "a call": "['a', __import__('os').getcwd()]",
    "deep": "[" * 40_000,
    "deep tuples": "(" * 300 + ")" * 300,
    "many": "[" + "'a'," * 12_000 + "]",
    "a power": "[9**9**9]",
    "one of text": "red, blue",
    "200,000 zeros": "[" + "0," * 200_000 + "0]",
}


def cases() -> Iterator[Case]:
    """Yield all cases of benchmarks."""
    from benchmarked import ROWS

    for name, row in ROWS.items():
        for column in row:
            for what in TRIED:
                yield _json(f"{name}: {column} is {what}", [row, row | {column: VALUES[what]}])
        for what, text in NO_LISTS.items():
            column = next((one for one in ("options", "choices", "answers", "answer") if one in row), "")
            if column:
                yield _json(f"{name}: {column} is {what}", [row, row | {column: text}])
    nothing = {f"image_{number}": None for number in range(1, 8)}
    yield _case("50,000 rows without pictures", "it.parquet", lambda: _repeated(ROWS["mmmu"] | nothing), refused=True)


def _json(name: str, rows: list[dict[str, Any]]) -> Case:
    return _case(name, "it.json", lambda: json.dumps(rows, default=_text).encode())


def _text(value: object) -> object:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else repr(value)


def _repeated(row: dict[str, Any]) -> bytes:
    """Return a small file of very many equal rows."""
    columns = {name: pa.array([value]) for name, value in row.items()}
    indices = pa.array([0] * 50_000, pa.int32())
    buffer = io.BytesIO()
    parquet.write_table(
        pa.table({name: one.take(indices) for name, one in columns.items()}), buffer, compression="zstd"
    )
    return buffer.getvalue()


def _case(name: str, file: str, data: Callable[[], bytes], refused: bool = False) -> Case:
    def make(folder: Path) -> None:
        (folder / file).write_bytes(data())

    return Case("benchmark", name, make, functools.partial(_read, file), refused)


def _read(file: str, folder: Path) -> None:
    prompts = open_prompts(folder / file)
    assert prompts.fingerprint
    assert prompts[0].question
    assert all(10 < len(problem.message) < 2000 for problem in prompts.problems)
