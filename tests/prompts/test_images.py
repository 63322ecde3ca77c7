"""Images from outside: what comes in is RGB and upright, what is hostile is refused before it costs anything."""

from __future__ import annotations

import random
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.images import FORMATS, MAX_FILE_BYTES, image_hash, open_image, read_file

WRITTEN = [name for name in FORMATS if name not in ("ICO", "PSD")]  # of the others Pillow writes none, or other sizes


def noise(width: int = 24, height: int = 16, mode: str = "RGB") -> Image.Image:
    """A fixed image that no codec can compress away."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, (width, height), random.Random(0).randbytes(width * height * bands))


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A small PNG whose header claims a size that its data does not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("format", WRITTEN)
def test_every_listed_format_opens_as_rgb_of_the_same_size(format: str) -> None:
    image = open_image(encoded(noise(), format))
    assert (image.mode, image.size) == ("RGB", (24, 16))


def test_a_path_bytes_and_an_image_give_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(noise()))
    expected = noise().tobytes()
    assert [open_image(source).tobytes() for source in (path, path.read_bytes(), noise())] == [expected] * 3


def test_a_format_that_is_not_listed_is_refused_though_pillow_reads_it() -> None:
    data = encoded(noise(), "TGA")
    Image.open(BytesIO(data)).load()
    with pytest.raises(PromptError, match="expected an image"):
        open_image(data)


@pytest.mark.parametrize(
    ("width", "height"), [(30_000, 30_000), (10_000, 10_000), (40_001, 1_000)], ids=["900M", "100M", "40.001M"]
)
def test_too_many_pixels_are_refused_from_the_header(
    width: int, height: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    path = tmp_path / "bomb.png"
    path.write_bytes(png_claiming(width, height))
    with pytest.raises(PromptError, match="40 million pixels"):
        open_image(path)


def test_an_image_in_memory_of_too_many_pixels_is_refused() -> None:
    with pytest.raises(PromptError, match="40 million pixels"):
        open_image(Image.new("1", (40_001, 1_000)))


@pytest.mark.parametrize("format", WRITTEN)
def test_an_image_cut_short_is_refused(format: str) -> None:
    data = encoded(noise(300, 300), format)
    words = "expected an image" if format == "AVIF" else "damaged or cut-short"  # an AVIF is read as a whole
    with pytest.raises(PromptError, match=words):
        open_image(data[: len(data) // 2])


def test_a_file_that_is_no_image_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("not an image")
    with pytest.raises(PromptError, match=r"notes\.png.*expected an image.*got 12 bytes"):
        open_image(path)


def test_an_empty_file_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    for path, message in (
        (tmp_path / "empty.png", "got 0 bytes"),
        (tmp_path, "something else"),
        (tmp_path / "none.png", "nothing there"),
    ):
        with pytest.raises(PromptError, match=message):
            open_image(path)


def test_a_file_above_20_megabytes_is_refused_though_its_image_is_small(tmp_path: Path) -> None:
    data = encoded(noise())
    path = tmp_path / "padded.png"
    path.write_bytes(data + bytes(MAX_FILE_BYTES - len(data)))
    assert open_image(path).size == (24, 16)
    with path.open("ab") as stream:
        stream.write(b"\0")
    for source in (path, path.read_bytes()):
        with pytest.raises(PromptError, match="at most 20 MB"):
            open_image(source)


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(PromptError, match=r"table\.csv.*got more"):
        read_file(path, 4)


def test_other_types_are_refused() -> None:
    with pytest.raises(PromptError, match="got list"):
        open_image([noise()])  # type: ignore[arg-type]


def test_exif_orientation_turns_the_image_upright_and_only_once() -> None:
    image = Image.new("RGB", (4, 2), "white")
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    upright = open_image(encoded(image, exif=exif))
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == (255, 0, 0)
    assert open_image(upright).tobytes() == upright.tobytes()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(mode: str) -> None:
    clear, half = Image.new(mode, (1, 1)), Image.new("RGBA", (1, 1), (0, 0, 0, 51)).convert(mode)
    assert open_image(encoded(clear)).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(encoded(half)).getpixel((0, 0)) == (204, 204, 204)


def test_a_transparent_palette_colour_becomes_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    opened = open_image(encoded(image, "GIF", transparency=0))
    assert [opened.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (40, 50, 60)]


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    opened = open_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert opened.getpixel((0, 0)) == (255, 0, 0)


def deep_png(values: np.ndarray) -> bytes:
    """A PNG of 16-bit grey or colours, which Pillow does not write."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bands", [1, 3, 4], ids=["grey", "colours", "colours with alpha"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_of_16_bits_those_that_are_used_are_seen(bits: int, bands: int) -> None:
    """Scanners store 12 bits in files of 16, of which the upper 8 are nearly black."""
    values, want = deep_values(bits, bands)
    np.testing.assert_array_equal(np.asarray(open_image(deep_png(values))), want)


def deep_values(bits: int, bands: int) -> tuple[np.ndarray, np.ndarray]:
    """Values of some bits, opaque where the fourth band is transparency, and what is to be seen of them."""
    values = np.random.default_rng(0).integers(0, 2**bits, (9, 7, bands))
    values[0, 0] = 2**bits - 1
    n_colours = min(bands, 3)
    values[..., n_colours:] = 0xFFFF
    want = (values[..., :n_colours] >> (bits - 8)).astype(np.uint8)
    return values, np.broadcast_to(want, (9, 7, 3))


def deep_tiff(values: np.ndarray, order: str, compressed: bool) -> bytes:
    """A TIFF of 16-bit colours in one strip, which Pillow does not write."""
    height, width, bands = values.shape
    pixels = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(pixels) if compressed else pixels
    tags = {
        256: [width],
        257: [height],
        258: [16] * bands,
        259: [8 if compressed else 1],
        262: [2],
        273: [0],
        277: [bands],
    }
    tags |= {278: [height], 279: [len(data)], 284: [1]} | ({338: [2]} if bands == 4 else {})
    start, more, entries = 8 + 2 + 12 * len(tags) + 4, b"", b""
    tags[273] = [start + 2 * bands]  # behind the bits of each band, the only ones that do not fit into their entry
    for tag, numbers in tags.items():
        if tag == 258:
            more = struct.pack(f"{order}{bands}H", *numbers)
            entries += struct.pack(f"{order}HHII", tag, 3, bands, start)
        else:
            entries += struct.pack(f"{order}HHII", tag, 4, 1, numbers[0])
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + struct.pack(f"{order}I", 0) + more + data


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize(("bits", "bands"), [(8, 3), (12, 3), (12, 4), (16, 4)])
def test_colours_of_a_deep_tiff_are_as_bright_as_those_of_a_png(
    bits: int, bands: int, order: str, compressed: bool
) -> None:
    values, want = deep_values(bits, bands)
    np.testing.assert_array_equal(np.asarray(open_image(deep_tiff(values, order, compressed))), want)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture, as phones take them"),
        (b"%PDF-1.7\n", "a PDF"),
    ],
)
def test_what_is_taken_for_a_picture_is_called_by_its_kind(data: bytes, kind: str) -> None:
    with pytest.raises(PromptError, match=rf"got {kind}\. Save it again as PNG\."):
        open_image(data)


def test_an_icon_and_a_photoshop_file_open() -> None:
    icon = open_image(encoded(noise(32, 32), "ICO", sizes=[(32, 32)]))
    assert icon.tobytes() == noise(32, 32).tobytes()
    head = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, 2, 1, 8, 3) + struct.pack(">III", 0, 0, 0)
    drawing = open_image(head + b"\0\0" + bytes([255, 10, 0, 20, 0, 30]))  # a band after another
    assert [drawing.getpixel((x, 0)) for x in range(1)] == [(255, 0, 0)]


def test_grey_with_transparency_is_seen_in_16_bits_and_refused_in_12() -> None:
    values = np.full((3, 3, 2), 0xFFFF)
    assert open_image(deep_png(values)).getpixel((1, 1)) == (255, 255, 255)
    values[..., 0] = 0xFFF
    with pytest.raises(PromptError, match=r"expected 16 bits of grey, got at most 12.*Save it without transparency"):
        open_image(deep_png(values))


def test_black_stays_black_and_16_bits_in_memory_are_read_alike() -> None:
    assert not np.asarray(open_image(deep_png(np.zeros((2, 2, 3), int)))).any()
    values = np.array([[0, 0x123, 0xFFF]], np.uint16)
    assert open_image(Image.fromarray(values)).getpixel((2, 0)) == (255, 255, 255)


@pytest.mark.parametrize("most", [4095, 65_535])
def test_grey_of_16_bits_in_a_pgm_is_as_bright_as_it_says(most: int) -> None:
    pixels = np.array([0, most // 2, most], ">u2").tobytes()
    opened = open_image(b"P5 3 1 %d\n" % most + pixels)
    assert [opened.getpixel((x, 0))[0] for x in range(3)] == [0, 127, 255]


def test_16_bit_grey_keeps_its_shades() -> None:
    values = np.array([[0, 0x1234, 0x80FF, 0xFFFF]], dtype=np.uint16)
    opened = open_image(encoded(Image.fromarray(values)))
    assert [opened.getpixel((x, 0))[0] for x in range(4)] == [0, 0x12, 0x80, 0xFF]


def test_pixels_of_unknown_range_are_refused() -> None:
    with pytest.raises(PromptError, match="mode F"):
        open_image(Image.new("F", (2, 2)))


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_large_images_shrink_to_fit_and_keep_their_shape(format: str) -> None:
    assert open_image(encoded(Image.new("RGB", (5000, 1250), "red"), format)).size == (2048, 512)
    assert open_image(encoded(Image.new("RGB", (2048, 2048), "red"), format)).size == (2048, 2048)


def test_no_metadata_travels_on_and_the_source_is_untouched() -> None:
    source = Image.open(BytesIO(encoded(noise(), icc_profile=b"profile")))
    assert open_image(source).info == {}
    assert source.info["icc_profile"] == b"profile"


def test_the_hash_is_of_the_pixels_not_of_the_file() -> None:
    fast, small = (encoded(noise(), compress_level=level) for level in (0, 9))
    assert fast != small
    assert image_hash(open_image(fast)) == image_hash(open_image(small)) == image_hash(noise())


def test_the_hash_tells_apart_one_pixel_and_the_shape() -> None:
    changed = noise()
    changed.putpixel((0, 0), (1, 2, 3))
    turned = Image.frombytes("RGB", (16, 24), noise().tobytes())
    assert len({image_hash(image) for image in (noise(), changed, turned)}) == 3


def test_the_hash_is_the_same_on_every_machine() -> None:
    assert image_hash(Image.new("RGB", (2, 1), "red")) == (
        "c4740f92fe90a2a224e4f04a395f49551084a95dc2975d8030cd8b471c5fb853"
    )


@settings(deadline=None)
@given(st.sampled_from(WRITTEN), st.data())
def test_a_damaged_file_is_refused_cleanly_or_opened(format: str, data: st.DataObject) -> None:
    whole = bytearray(encoded(noise(), format))
    for position in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=8)):
        whole[position] = data.draw(st.integers(0, 255))
    try:
        opened = open_image(bytes(whole))
    except PromptError:
        return
    assert opened.mode == "RGB"
    assert max(opened.size) <= 2048
