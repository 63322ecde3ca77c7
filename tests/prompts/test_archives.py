"""Zips from outside: read in memory, never left, refused before they cost anything."""

from __future__ import annotations

import stat
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import example, given, settings, strategies as st
from PIL import Image

from vlm_analysis import PromptSet, open_prompts
from vlm_analysis.errors import PromptError
from vlm_analysis.prompts import archives
from vlm_analysis.prompts.archives import Archive, Folder, safe_name


def png(colour: str = "red") -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def with_table(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    return zipped(("prompts.csv", b"image,question\na.png,what?\n"), ("a.png", png()), *entries)


def opened(data: bytes) -> PromptSet:
    return open_prompts(("set.zip", data))


@pytest.mark.parametrize("folder", ["", "set/", "deep/er/set/"])
def test_a_table_is_found_at_any_depth_with_images_relative_to_it(folder: str) -> None:
    data = zipped((f"{folder}prompts.csv", b"image,question\nimg/a.png,what?\n"), (f"{folder}img/a.png", png("blue")))
    prompts = opened(data)
    assert prompts.problems == ()
    assert prompts[0].load_images()[0].getpixel((0, 0)) == (0, 0, 255)


def test_a_zip_on_disk_and_uploaded_give_the_same_prompts(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(with_table())
    assert open_prompts(tmp_path / "set.zip").fingerprint == opened(with_table()).fingerprint


def test_two_tables_are_refused_and_both_named() -> None:
    with pytest.raises(PromptError, match=r"'b/prompts.jsonl' and 'prompts.csv'"):
        opened(with_table(("b/prompts.jsonl", b"{}")))


def test_a_zip_without_a_table_is_read_by_folders() -> None:
    data = zipped(("set/math/a.png", png()), ("set/math/a.txt", b"how many?"), ("set/math/a.answer.txt", b"3"))
    prompt = opened(data)[0]
    assert (prompt.id, prompt.domain, prompt.question, prompt.answer) == ("set/math/a", "math", "how many?", "3")


@pytest.mark.parametrize("name", ["../evil.png", "x/../../evil.png", "/etc/evil.png", "C:evil.png", "..\\evil.png"])
def test_an_unsafe_entry_is_reported_and_the_rest_kept(name: str) -> None:
    prompts = opened(with_table((name, png())))
    assert [prompt.question for prompt in prompts] == ["what?"]
    assert [problem.row for problem in prompts.problems] == [0]
    assert "refused" in prompts.problems[0].message


def test_an_entry_whose_name_holds_a_zero_byte_is_reported_not_cut() -> None:
    data = with_table(("b.pngXevil", png())).replace(b"b.pngXevil", b"b.png\0evil")
    prompts = opened(data)
    assert "control character" in prompts.problems[0].message
    assert "b.png" not in Archive(data, "set.zip").names()


@pytest.mark.parametrize("path", ["../../a.png", "/a.png", "C:\\a.png", "x/../a.png", "../x/../../a.png"])
def test_a_row_that_points_outside_is_reported(path: str) -> None:
    table = f"image,question\n{path},outside?\na.png,inside?\n".encode()
    prompts = opened(zipped(("set/prompts.csv", table), ("set/a.png", png())))
    assert [prompt.question for prompt in prompts] == ["inside?"]
    assert [(problem.row, problem.id) for problem in prompts.problems] == [(1, "1")]


def test_a_row_may_go_up_within_the_archive() -> None:
    table = b"image,question\n../images/a.png,what?\n"
    prompts = opened(zipped(("set/data/prompts.csv", table), ("set/images/a.png", png("blue"))))
    assert prompts[0].load_images()[0].getpixel((0, 0)) == (0, 0, 255)
    assert prompts.problems == ()


def test_what_a_table_does_not_name_is_counted_and_named() -> None:
    prompts = opened(with_table(("b.png", png()), ("README.md", b"x")))
    assert [problem.row for problem in prompts.problems] == [0]
    assert (
        "2 files were left out: expected files that the table names, got 'README.md', 'b.png'."
        in prompts.problems[0].message
    )


def test_a_link_is_left_out_and_reported() -> None:
    link = zipfile.ZipInfo("passwd.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    prompts = opened(with_table((link, b"/etc/passwd")))
    assert [(problem.id, "got a link" in problem.message) for problem in prompts.problems] == [("passwd.png", True)]


def test_system_and_hidden_entries_are_ignored() -> None:
    data = with_table(("__MACOSX/prompts.csv", b"x"), (".git/prompts.csv", b"x"), ("._prompts.csv", b"x"))
    assert opened(data).problems == ()


def test_an_encrypted_zip_is_refused() -> None:
    data = bytearray(with_table())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    with pytest.raises(PromptError, match="without a password"):
        opened(bytes(data))


@pytest.mark.parametrize(
    "data",
    [with_table(("b.png", png())).replace(b"b.png", b"a.png"), with_table(("./a.png", png()))],
    ids=["same name", "same place"],
)
def test_a_name_twice_is_refused(data: bytes) -> None:
    with pytest.raises(PromptError, match=r"got 'a.png' twice"):
        opened(data)


def test_a_bomb_is_refused_by_its_ratio_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_table(("zeros.bmp", bytes(3_000_000)))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("an entry was read"))
    with pytest.raises(PromptError, match=r"up to 200 times, got 'zeros.bmp' at \d{3,} times"):
        opened(data)


def test_a_small_file_may_compress_well() -> None:
    assert len(opened(with_table(("zeros.bmp", bytes(900_000))))) == 1


def test_more_than_2000_files_are_refused_and_2000_are_not() -> None:
    entries = [(f"{number}.txt", b"") for number in range(1998)]
    assert len(opened(with_table(*entries))) == 1
    with pytest.raises(PromptError, match="at most 2000 files, got 2001"):
        opened(with_table(*entries, ("one.txt", b"")))


def test_hidden_entries_count_against_ten_times_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_table(*((f".hidden-{number}", b"") for number in range(19)))
    monkeypatch.setattr(archives, "MAX_ENTRIES", 3)
    assert len(opened(data)) == 1
    monkeypatch.setattr(archives, "MAX_ENTRIES", 2)
    with pytest.raises(PromptError, match="at most 2 files, got 21"):
        opened(data)


def test_limits_on_bytes_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_table(("notes.txt", bytes(5000)))
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 4999)
    with pytest.raises(PromptError, match=r"'notes.txt' of 5,000"):
        opened(data)
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 5000)
    assert len(opened(data)) == 1
    monkeypatch.setattr(archives, "MAX_ARCHIVE_BYTES", 5000)
    with pytest.raises(PromptError, match="at most 5,000 bytes"):
        opened(data)


def test_a_read_stops_at_its_limit() -> None:
    archive = Archive(zipped(("a.txt", b"12345")), "set.zip")
    assert archive.read("a.txt", 5) == b"12345"
    with pytest.raises(PromptError, match="at most 4 bytes, got more"):
        archive.read("a.txt", 4)


def test_pictures_become_files_that_share_their_bytes_and_keep_their_names_in_messages() -> None:
    table = b"image,question\na.png,1?\na.png,again?\nb.png,2?\nbad.png,3?\n"
    prompts = opened(zipped(("prompts.csv", table), ("a.png", png()), ("b.png", png()), ("bad.png", png()[:40])))
    assert len({image for prompt in prompts for image in prompt.images}) == 1
    assert "image 'bad.png' could not be" in prompts.problems[0].message


def test_another_compression_is_refused() -> None:
    with pytest.raises(PromptError, match="ordinary compression"):
        opened(zipped(("a.png", png()), method=zipfile.ZIP_LZMA))


def test_an_entry_with_damaged_bytes_is_reported_by_its_row() -> None:
    image = png("lime")
    table = b"image,question\nbad.png,bad?\na.png,good?\n"
    data = zipped(("prompts.csv", table), ("a.png", png()), ("bad.png", image), method=zipfile.ZIP_STORED)
    damaged = data.replace(image, image[:-20] + bytes(20))
    assert damaged != data
    prompts = opened(damaged)
    assert [prompt.question for prompt in prompts] == ["good?"]
    assert (prompts.problems[0].row, "damaged" in prompts.problems[0].message) == (1, True)


@pytest.mark.parametrize(
    "data", [b"", b"PK", b"not a zip" * 50, with_table()[:-30]], ids=["empty", "PK", "text", "cut"]
)
def test_what_is_no_zip_is_refused(data: bytes) -> None:
    with pytest.raises(PromptError, match="expected a zip archive"):
        opened(data)


def test_an_accent_written_in_two_ways_names_the_same_image() -> None:
    table = "image,question\nch\u00e2t.png,what?\n".encode()
    assert opened(zipped(("prompts.csv", table), ("cha\u0302t.png", png()))).problems == ()


def test_a_folder_that_links_to_itself_is_listed_once(tmp_path: Path) -> None:
    (tmp_path / "math").mkdir()
    (tmp_path / "math" / "a.png").write_bytes(png())
    (tmp_path / "math" / "loop").symlink_to(tmp_path)
    assert Folder(tmp_path).names() == ("math/a.png",)


def test_a_folder_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_LISTED", 2)
    for name in "abc":
        (tmp_path / name).touch()
    with pytest.raises(PromptError, match="at most 2 files"):
        Folder(tmp_path).names()


@example("./C:a.png")
@given(st.text(st.sampled_from("ab./\\:C\0")))
def test_a_safe_name_stays_inside_and_is_in_normal_form(name: str) -> None:
    try:
        safe = safe_name(name)
    except PromptError:
        return
    assert Path("/root", safe).resolve().is_relative_to("/root")
    assert safe_name(safe) == safe
    assert not {"..", "."} & set(safe.split("/"))


def test_a_damaged_empty_name_is_refused_in_words() -> None:
    data = with_table()
    directory = data.rindex(b"PK\x01\x02")
    name = directory + 46
    spoilt = data[:name] + b"\0" + data[name + 1 :]
    with pytest.raises(PromptError, match="no prompts"):
        opened(spoilt)


@settings(deadline=None)
@given(st.data())
def test_a_damaged_zip_is_refused_cleanly_or_opened(data: st.DataObject) -> None:
    whole = bytearray(with_table())
    for position in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=6)):
        whole[position] = data.draw(st.integers(0, 255))
    try:
        assert len(opened(bytes(whole))) == 1
    except PromptError:
        return
