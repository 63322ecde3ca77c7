"""Prompt tables of more kinds: JSON, TSV and Arrow, damaged or far more than they seem, and tars."""

from __future__ import annotations

import functools
import io
import json
import tarfile
from collections.abc import Callable, Iterator

import pyarrow as pa
from pyarrow import ipc

from .cases import Case
from .prompt_files import ROW, _flipped as flipped, _table as table_case, picture


def cases() -> Iterator[Case]:
    """Yield all cases of kinds of tables."""
    yield from _json_files()
    yield from _packed()


def _json_files() -> Iterator[Case]:
    whole = json.dumps([ROW, {**ROW, "id": "two"}]).encode()
    made: dict[str, bytes | Callable[[], bytes]] = {
        "cut": whole[:-20],
        "nothing": b" \n",
        "two lists": b'{"a": [{"b": 1}], "c": [{"d": 1}]}',
        "a deep list": b"[" * 200_000,
        "a deep object": b'{"a":' * 200_000,
        "a deep row": b"[" + b'{"image":' * 200_000,
        "numbers": b"[" + b"1," * 100_000 + b"1]",
        "a long number": b'[{"question": ' + b"1" * 10_000 + b"}]",
        "many lists": lambda: (
            b'{"a": [{"b": 1}]' + b"".join(b', "l%d": [{}]' % number for number in range(50_000)) + b"}"
        ),
        "rows of lists": lambda: b"[" + b"[]," * 200_000 + b"[]]",
        "a row of lists": lambda: b'[{"image": [' + b"[]," * 2_000_000 + b"[]]}]",
        "columns": lambda: json.dumps([{f"c{number}": 1 for number in range(100_000)}]).encode(),
    }
    for name, data in made.items():
        yield table_case(name, "data.json", data, refused=name != "cut")
    for number in range(30):
        yield table_case(f"flipped {number}", "data.json", flipped(whole, number))
        yield table_case(f"flipped {number}", "data.tsv", flipped(b"image\tquestion\na.png\twhich?\n", number))


def _packed() -> Iterator[Case]:
    table = pa.table({"image": [{"bytes": picture(), "path": "a.png"}] * 2, "question": ["?", "?"]})
    for kind, make in (("file", ipc.new_file), ("stream", ipc.new_stream)):
        buffer = io.BytesIO()
        with make(buffer, table.schema) as writer:
            writer.write_table(table)
        for number in range(20):
            yield table_case(f"{kind} flipped {number}", "data.arrow", flipped(buffer.getvalue(), number))
    rows = {"prompts.jsonl": json.dumps(ROW).encode(), "a.png": picture()}
    whole = _tarred(rows)
    for number in range(40):
        yield table_case(f"flipped {number}", "it.tar", flipped(whole, number))
    for name, data in {
        "cut": whole[:700],
        "zeros": bytes(10_240),
        "compressed": _tarred(rows, "w:gz"),
        "a claim of 8 GB": _claims(8 << 30) + whole,
        "a negative size": _claims(-1) + whole,
        "a long name": _claims(1 << 33, tarfile.GNUTYPE_LONGNAME) + whole,
        "a header of 8 GB": _claims(1 << 33, tarfile.XHDTYPE) + whole,
        "holes": _claims(1 << 33, tarfile.GNUTYPE_SPARSE) + whole,
    }.items():
        yield table_case(name, "it.tar", data)
    yield table_case(
        "many files",
        "it.tar",
        functools.partial(_tarred, {f"{number}.txt": b"" for number in range(25_000)}),
        refused=True,
    )


def _tarred(members: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _claims(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo("claim.png")
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)
