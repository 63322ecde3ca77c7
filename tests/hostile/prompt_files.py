"""Prompt tables, zips and pictures: damaged, made up, leading outside, or standing for far more than they are."""

from __future__ import annotations

import functools
import io
import json
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from vlm_analysis import Prompt, open_prompts

from .cases import Case

ROW: dict[str, Any] = {"image": "a.png", "question": "which colour?", "domain": "d", "id": "one", "answer": "red"}


def picture(side: int = 4, form: str = "PNG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, form)
    return buffer.getvalue()


def read_table(name: str, folder: Path) -> None:
    prompts = open_prompts(folder / name)
    assert prompts.fingerprint
    assert all(len(problem.message) < 2000 for problem in prompts.problems)


def cases() -> Iterator[Case]:
    """Yield all cases of prompts."""
    yield from _tables()
    yield from _parquets()
    yield from _zips()
    yield from _pictures()
    yield from _places()


def _tables() -> Iterator[Case]:
    values: list[Any] = [
        None,
        "",
        " ",
        0,
        -1.5,
        10**30,
        True,
        [],
        {},
        ["a.png"],
        "x" * 300_000,
        "\0",
        "\ud800",
        [[[]]],
        {"a": [1]},
    ]
    for column in ("image", "images", "question", "domain", "id", "answer", "choices"):
        for number, value in enumerate(values):
            rows = [{**ROW, column: value}, {**ROW, "id": "two"}]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            yield _table(f"{column} {number}", "prompts.jsonl", text.encode())
    paths = [
        "../a.png",
        "/etc/passwd",
        "C:\\a.png",
        "a.png\0",
        "~/a.png",
        "./../../a.png",
        "a" * 5000,
        "\\\\host\\a.png",
        "file:///a.png",
    ]
    for number, path in enumerate(
        [*paths, "http://127.0.0.1/a.png", "data:image/png;base64,AAAA", "COM1", "a.png/b.png", "."]
    ):
        rows = [{**ROW, "image": path}, {**ROW, "id": "two"}]
        yield _table(f"path {number}", "prompts.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    whole = b"image,question,answer\na.png,which?,red\n"
    for name, data in {
        "empty": b"",
        "only a header": b"image,question\n",
        "no header": b"\n\n\n",
        "other columns": b"a,b\n1,2\n",
        "columns twice": b"image,image,question\na.png,a.png,?\n",
        "an open quote": b'image,question\na.png,"which?\n',
        "zeros": whole.replace(b"which", b"\0\0\0"),
        "UTF-16": whole.decode().encode("utf-16"),
        "latin-1": whole.replace(b"which", b"f\xfcr"),
        "many columns": b",".join(b"c%d" % n for n in range(50_000)) + b"\n",
        "many cells": whole + b"," * 100_000 + b"\n",
        "a long cell": whole + b"a.png," + b"x" * 3_000_000 + b",red\n",
        "many rows": b"image,question\n" + b"a.png,?\n" * 10_002,
        "carriage returns": whole.replace(b"\n", b"\r"),
    }.items():
        yield _table(
            name,
            "prompts.csv",
            data,
            refused=name not in ("zeros", "many cells", "a long cell", "many rows", "carriage returns"),
        )
    for name, data in {
        "a deep line": b"[" * 100_000,
        "a long number": b'{"image": "a.png", "question": ' + b"1" * 6000 + b"}",
        "lists": b"[1]\n" * 100,
        "no JSON": b"image,question\n",
        "a name twice": b'{"image": "a.png", "image": "b.png", "question": "?"}',
        "not finite": b'{"image": "a.png", "question": NaN}',
        "infinite": b'{"image": "a.png", "question": 1e999}',
        "columns by blanks": b'{" image": "a.png", "IMAGE ": "b.png", "question": "?"}',
    }.items():
        yield _table(name, "prompts.jsonl", data)
    for number in range(40):
        yield _table(f"flipped {number}", "prompts.csv", _flipped(whole, number))


def _parquets() -> Iterator[Case]:
    whole = _parquet(pa.table({"image": ["a.png"], "question": ["?"]}))
    for name, data in {
        "cut": whole[: len(whole) // 2],
        "no end": whole[:-8],
        "only marks": b"PAR1PAR1",
        "a footer of 4 GB": b"PAR1" + b"\xff\xff\xff\xff" + b"PAR1",
        "zeros": b"PAR1" + bytes(300) + b"PAR1",
    }.items():
        yield _table(name, "prompts.parquet", data, refused=True)
    for number in range(40):
        yield _table(f"flipped {number}", "prompts.parquet", _flipped(whole, number))
    long_text = pa.array(["x" * 40_000_000])
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), long_text)
    tables = {
        "a dictionary for gigabytes": pa.table({"image": ["a.png"] * 64, "question": repeated}),
        "a long list": pa.table({"images": [["a.png"] * 2_000_000], "question": ["?"]}),
        "structs": pa.table({"image": [{"bytes": b"x" * 1000, "path": "a.png"}] * 20, "question": ["?"] * 20}),
        "bytes": pa.table({"image": [b"\xff\xfe"], "question": ["?"]}),
        "times": pa.table({"image": pa.array([0], pa.timestamp("ns")), "question": ["?"]}),
        "decimals": pa.table({"image": ["a.png"], "question": pa.array([1], pa.decimal128(38, 10))}),
        "a column twice": pa.Table.from_arrays(
            [pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], ["image", "IMAGE", "question"]
        ),
        "no rows": pa.table({"image": pa.array([], pa.string()), "question": pa.array([], pa.string())}),
        "too many rows": pa.table({"image": ["a.png"] * 10_001, "question": ["?"] * 10_001}),
        "no columns": pa.table({}),
    }
    for name, table in tables.items():
        yield _table(
            name, "prompts.parquet", _parquet(table), refused=name not in ("decimals", "bytes", "too many rows")
        )


def _zips() -> Iterator[Case]:
    table = json.dumps(ROW).encode()
    whole = _zipped({"prompts.jsonl": table, "a.png": picture()})
    for name, data in {
        "empty": b"",
        "cut": whole[:-30],
        "no zip": b"PK" * 100,
        "a zip in front of nothing": whole[:40],
        "names that lead outside": _zipped({"prompts.jsonl": table, "../a.png": picture(), "/b.png": picture()}),
        "no table": _zipped({"readme.md": b"x"}),
        "two tables": _zipped({"prompts.jsonl": table, "b/prompts.csv": b"image,question\n"}),
        "many files": lambda: _zipped({f"{number}.png": b"" for number in range(2500)}),
        "many hidden files": lambda: _zipped({f".{number}": b"" for number in range(21_000)}),
        "a file of 100 MB": lambda: _zipped({"prompts.jsonl": table, "a.png": bytes(100_000_000)}),
        "files of 600 MB": lambda: _zipped(
            {"prompts.jsonl": table, **{f"{number}.bin": bytes(19_000_000) for number in range(32)}}
        ),
        "bzip2": _zipped({"prompts.jsonl": table, "a.png": picture()}, zipfile.ZIP_BZIP2),
        "a directory without end": b"PK\x05\x06" + bytes(4) + b"\xff\xff\xff\xff" + b"\xfe\xff\xff\xff" + bytes(6),
        "a link": _linked(),
    }.items():
        yield _table(name, "it.zip", data, refused=True)
    for number in range(60):
        yield _table(f"flipped {number}", "it.zip", _flipped(whole, number))
    yield _table("twelve pictures of 36 megapixels", "it.zip", _large_pictures)


def _large_pictures() -> bytes:
    large = _bits(6000)
    pictures = {f"{number}.png": large for number in range(12)}
    rows = "".join(json.dumps({**ROW, "id": name, "image": name}) + "\n" for name in pictures)
    return _zipped({"prompts.jsonl": rows.encode(), **pictures})


def _pictures() -> Iterator[Case]:
    for form in ("PNG", "JPEG", "WEBP", "BMP", "GIF"):
        whole = picture(32, form)
        for number in range(12):
            yield _picture(f"{form} flipped {number}", _flipped(whole, number))
        yield _picture(f"{form} cut", whole[: len(whole) // 2])
        yield _picture(f"{form} with a tail", whole + bytes(1_000_000))
    for name, data in {
        "empty": b"",
        "text": b"<svg/>",
        "900 megapixels": lambda: _bits(30_000),
        "no width": _png_header(0, 10),
        "a side of two billion": _png_header(2**31 - 1, 1),
        "a PNG of text": _png_text(),
        "a TIFF": picture(4, "TIFF"),
        "a PDF": b"%PDF-1.4\n",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        "21 MB": picture() + bytes(21_000_000),
    }.items():
        yield _picture(name, data, refused=name not in ("a PNG of text", "a TIFF"))


def _places() -> Iterator[Case]:
    """Yield folders in which other things lie where files should."""

    def make(what: Callable[[Path], None], folder: Path) -> None:
        (folder / "prompts.jsonl").write_text(json.dumps(ROW))
        what(folder / "a.png")

    places: dict[str, Callable[[Path], None]] = {
        "a pipe": os.mkfifo,
        "a folder": Path.mkdir,
        "an endless file": lambda path: path.symlink_to("/dev/zero"),
        "a terminal": lambda path: path.symlink_to("/dev/tty"),
        "a link outside": lambda path: path.symlink_to("/etc/hostname"),
        "a link to itself": lambda path: path.symlink_to(path),
        "a sparse file of 2 GB": lambda path: os.truncate(_touched(path), 2 << 30),
    }
    for name, what in places.items():
        for which in ("a picture", "the table"):
            target = "prompts.jsonl" if which == "a picture" else "a.png"
            yield Case(
                "prompts",
                f"{name} as {which}",
                functools.partial(make, what),
                functools.partial(read_table, target),
                True,
            )


def _table(name: str, file_name: str, data: bytes | Callable[[], bytes], refused: bool = False) -> Case:
    def make(folder: Path) -> None:
        (folder / "a.png").write_bytes(picture())
        (folder / file_name).write_bytes(data() if callable(data) else data)

    return Case("prompts", f"{file_name} {name}", make, functools.partial(read_table, file_name), refused)


def _picture(name: str, data: bytes | Callable[[], bytes], refused: bool = False) -> Case:
    def make(folder: Path) -> None:
        (folder / "a.png").write_bytes(data() if callable(data) else data)

    def read(folder: Path) -> None:
        assert Prompt((folder / "a.png",), "?").load_images()[0].mode == "RGB"

    return Case("picture", name, make, read, refused)


def _flipped(data: bytes, seed: int) -> bytes:
    """Return the data with some of its bytes changed, cut out or doubled."""
    draw, changed = random.Random(seed), bytearray(data)
    for _ in range(draw.randint(1, 6)):
        place = draw.randrange(len(changed))
        action = draw.randrange(3)
        if action == 0:
            changed[place] = draw.randrange(256)
        elif action == 1:
            del changed[place : place + draw.randint(1, 4)]
        else:
            changed[place:place] = changed[place : place + draw.randint(1, 8)]
    return bytes(changed) or b"x"


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _linked() -> bytes:
    buffer, link = io.BytesIO(), zipfile.ZipInfo("a.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("prompts.jsonl", json.dumps(ROW))
        archive.writestr(link, "/etc/hostname")
    return buffer.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_header(width: int, height: int, depth: int = 8) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))


@functools.cache
def _bits(side: int) -> bytes:
    """Return a black PNG of one bit a pixel: some kilobytes, whatever its side."""
    packer = zlib.compressobj(9)
    row = bytes(1 + -(-side // 8))
    body = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    return _png_header(side, side, 1) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _png_text() -> bytes:
    whole = picture()
    bomb = _chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(50_000_000)))
    return whole[:33] + bomb + whole[33:]


def _touched(path: Path) -> Path:
    path.touch()
    return path
