"""Zips of unknown origin: the directory is measured before it is read."""

from __future__ import annotations

import io
import zipfile

import pytest

from vlm_analysis.guard.zips import check_entries, opened_zip


def zipped(names: list[str], **options: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:  # type: ignore[arg-type]
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


def test_a_zip_opens_with_the_content_it_has() -> None:
    with opened_zip(io.BytesIO(zipped(["a", "b"])), 2) as archive:
        assert archive.namelist() == ["a", "b"]


def test_a_directory_that_is_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = zipped([f"{number:03}" + "x" * 600 for number in range(4)])
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("it was read"))
    with pytest.raises(ValueError, match="a directory for 2 files at most"):
        opened_zip(io.BytesIO(data), 2)


def test_the_directory_of_a_large_zip_is_measured_too() -> None:
    end = b"PK\x05\x06" + b"\0" * 8 + b"\xff" * 4 + b"\xff" * 4 + b"\0\0"
    record = b"PK\x06\x06" + (44).to_bytes(8, "little") + b"\0" * 28 + (1 << 40).to_bytes(8, "little") + b"\0" * 8
    locator = b"PK\x06\x07" + b"\0" * 16
    with pytest.raises(ValueError, match="got one of 1,099,511,627,776 bytes"):
        opened_zip(io.BytesIO(record + locator + end), 1000)


@pytest.mark.parametrize("data", [b"", b"PK", b"x" * 100])
def test_what_is_no_zip_is_refused(data: bytes) -> None:
    with pytest.raises(zipfile.BadZipFile):
        opened_zip(io.BytesIO(data), 10)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("names", "method", "told"),
    [(["a"], zipfile.ZIP_LZMA, "ordinary compression"), (["a", "a"], zipfile.ZIP_STORED, "each name once")],
)
def test_other_compression_and_names_that_stand_twice_are_refused(names: list[str], method: int, told: str) -> None:
    with opened_zip(io.BytesIO(zipped(names, compression=method)), 9) as archive, pytest.raises(ValueError, match=told):
        check_entries(archive.infolist())
