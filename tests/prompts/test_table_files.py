"""Tables of every kind: rows one after another with all their cells, and one message for what cannot be read."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from fixtures import png
from pyarrow import ipc, parquet

from vlm_analysis import open_prompts
from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.cells import Row
from vlm_analysis.prompts.tables import Table, read_table

ROWS = [{"image": "a.png", "question": "1?", "more": {"x": [1]}}, {"image": "b.png", "question": "2?", "more": None}]
WANTED = [Row(number, cells) for number, cells in enumerate(ROWS, 1)]


def json_table(value: object, part: str = "") -> Table:
    return read_table("t.json", json.dumps(value).encode(), part)


def test_json_is_a_list_or_an_object_with_one_list_of_objects() -> None:
    assert list(json_table(ROWS).rows) == WANTED
    assert list(json_table({"version": 1, "sizes": [1, 2], "data": ROWS, "more": {"a": []}}).rows) == WANTED
    assert json_table({"data": ROWS}).parts == {"data": ("image", "question", "more")}


def test_of_several_lists_in_an_object_one_is_named() -> None:
    value = {"images": [{"id": 1}], "annotations": ROWS}
    table = json_table(value)
    assert (list(table.rows), table.columns) == ([], ())
    assert table.parts == {"images": ("id",), "annotations": ("image", "question", "more")}
    assert list(json_table(value, "annotations").rows) == WANTED
    with pytest.raises(PromptError, match="expected a list 'captions' in it, got 'images', 'annotations'"):
        json_table(value, "captions")
    with pytest.raises(PromptError, match="expected one list of prompts, got an object with 'images', 'annotations'"):
        open_prompts(("t.json", json.dumps(value).encode()))


@pytest.mark.parametrize("text", ["{}", '{"a": 1}', "7", '"a"', '{"a": [1, 2]}'])
def test_json_without_rows_is_refused(text: str) -> None:
    with pytest.raises(PromptError, match="expected a list of rows, or an object with one"):
        read_table("t.json", text.encode())


@pytest.mark.parametrize("text", ['{"a": [{"b": 1}', '{"a" 1}', '{"a": {]}', "{" + '"a":[' * 90_000])
def test_a_damaged_object_is_refused(text: str) -> None:
    with pytest.raises(PromptError, match=r"'t\.json' could not be read: expected JSON, got"):
        read_table("t.json", text.encode())


@pytest.mark.parametrize("rest", ["{", ",", "7", '{"a": 1},]', "[" * 100_000, '{"n": ' + "1" * 6000 + "}"])
def test_a_list_that_breaks_off_keeps_the_rows_before_it(rest: str) -> None:
    *rows, last = read_table("t.json", f"[{json.dumps(ROWS[0])}, {rest}".encode()).rows
    assert rows[:1] == WANTED[:1]
    assert last.number >= 2
    assert "and what follows it could not be read" in last.error
    assert len(last.error) < 400


def test_a_row_that_is_no_object_is_one_bad_row() -> None:
    first, bad, last = json_table([ROWS[0], ["nested", ["list"]], ROWS[1]]).rows
    assert (first, last) == (WANTED[0], Row(3, ROWS[1]))
    assert "expected a JSON object, got a list. Write one object a row." in bad.error


def test_tsv_is_separated_by_tabs() -> None:
    rows = list(read_table("t.tsv", b'image\tQuestion \na,b.png\t"one\ttwo"\nc.png\tx\ty\n').rows)
    assert rows[0] == Row(1, {"image": "a,b.png", "question": "one\ttwo"})
    assert "expected 2 cells, got 3. Put cells that hold a tab in quotes." in rows[1].error


def packed(kind: str, table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    if kind == "parquet":
        parquet.write_table(table, buffer)
    else:
        with (ipc.new_file if kind == "file" else ipc.new_stream)(buffer, table.schema) as writer:
            writer.write_table(table)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_packed_tables_hold_structs_bytes_lists_and_names_of_classes(kind: str) -> None:
    features = {
        "info": {"features": {"Label": {"_type": "ClassLabel", "names": ["cat", "dog"]}, "image": {"_type": "Image"}}}
    }
    cells = {
        "image": [{"bytes": b"\xff\0", "path": "a.png"}, None],
        "Label": [1, -1],
        "raw": [b"x", None],
        "list": [["a"], []],
    }
    table = pa.table(cells).replace_schema_metadata({"huggingface": json.dumps(features)})
    read = read_table("t.parquet" if kind == "parquet" else "t.arrow", packed(kind, table))
    assert (read.columns, read.labels) == (("image", "label", "raw", "list"), {"label": ("cat", "dog")})
    assert read.n_rows == (2 if kind == "parquet" else None)
    assert list(read.rows) == [
        Row(1, {"image": {"bytes": b"\xff\0", "path": "a.png"}, "label": "dog", "raw": b"x", "list": ["a"]}),
        Row(2, {"image": None, "label": None, "raw": None, "list": []}),
    ]


@pytest.mark.parametrize("metadata", ["[1]", "{", '{"info": {"features": {"label": 7}}}', '{"info": {"features": []}}'])
def test_metadata_of_others_never_stops_the_rows(metadata: str) -> None:
    table = pa.table({"label": [1]}).replace_schema_metadata({"huggingface": metadata})
    assert list(read_table("t.parquet", packed("parquet", table)).rows) == [Row(1, {"label": 1})]


def test_damaged_arrow_is_refused() -> None:
    for data in (packed("file", pa.table({"a": [1]}))[:200], b"ARROW1\0\0" + bytes(300), b"\xff" * 100):
        with pytest.raises(PromptError, match="expected an Arrow table"):
            list(read_table("t.arrow", data).rows)


@pytest.mark.slow
def test_a_row_of_more_pictures_than_memory_is_for_them_names_their_size() -> None:
    table = pa.table({"images": [[bytes(15_000_000)] * 6], "image": [bytes(21_000_000)]})
    (row,) = read_table("t.parquet", packed("parquet", table)).rows
    assert [repr(one) for one in row.cells["images"][4:]] == ["picture of 15,000,000 bytes"] * 2
    assert repr(row.cells["image"]) == "picture of 21,000,000 bytes"


def lines(n_rows: int) -> Iterator[bytes]:
    return (
        json.dumps({"image": "none.png", "question": "?" * 100, "id": number}).encode() + b"\n"
        for number in range(n_rows)
    )


@pytest.mark.parametrize("suffix", [pytest.param("jsonl", marks=pytest.mark.slow), "csv"])
def test_30000_rows_stream_in_the_memory_of_a_few(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{suffix}"
    with path.open("wb") as file:
        file.writelines(
            [b"image,question\n", *[b"none.png,?" + b"?" * 100 + b"\n"] * 30_000] if suffix == "csv" else lines(30_000)
        )
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_table(path.name, path).rows) == 30_000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000 < path.stat().st_size
    finally:
        tracemalloc.stop()


def tarred(*members: tuple[str | tarfile.TarInfo, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


TABLE = b"image,question\na.png,what?\n"


def test_a_tar_is_read_like_a_zip_and_the_rest_of_it_named(tmp_path: Path) -> None:
    others = [
        member("link.png", tarfile.SYMTYPE, "/etc/passwd"),
        member("hard.png", tarfile.LNKTYPE, "set/a.png"),
        member("null.png", tarfile.CHRTYPE),
        member("pipe.png", tarfile.FIFOTYPE),
    ]
    data = tarred(
        ("set/any.csv", TABLE), ("./set/a.png", png("blue")), ("../evil.png", png()), *((one, b"") for one in others)
    )
    (tmp_path / "set.tar").write_bytes(data)
    for prompts in (open_prompts(("set.tar", data)), open_prompts(tmp_path / "set.tar")):
        assert prompts[0].load_images()[0].getpixel((0, 0)) == (0, 0, 255)
        assert [problem.id for problem in prompts.problems] == [
            "../evil.png",
            "link.png",
            "hard.png",
            "null.png",
            "pipe.png",
        ]
        assert [problem.row for problem in prompts.problems] == [0] * 5


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a tar archive"),
        (b"no tar" * 200, "expected a tar archive"),
        (tarred(("a.csv", TABLE), mode="w:gz"), "expected a tar archive without compression"),
        (tarred(("a.csv", TABLE), ("a.csv", TABLE)), "got 'a.csv' twice"),
        (tarred(*((f"{number}.txt", b"") for number in range(2001))), "at most 2000 files, got 2001"),
        (tarred(("a.png", bytes(20_000_001))), "'a.png' of 20,000,001"),
    ],
)
def test_a_tar_beyond_the_limits_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        open_prompts(("set.tar", data))


def test_a_tar_that_claims_more_than_it_holds_is_one_bad_row() -> None:
    info = tarfile.TarInfo("a.png")
    info.size = 10_000_000
    data = tarred(("t.csv", TABLE))[:1024] + info.tobuf() + png()
    with pytest.raises(PromptError, match=r"'\./a\.png' in 'set\.tar' is damaged: expected 10,000,000 bytes|damaged"):
        open_prompts(("set.tar", data))
