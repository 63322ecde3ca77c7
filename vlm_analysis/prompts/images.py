"""Decode untrusted images safely.

This module decides which bytes count as an image and the form that every later stage sees: RGB, upright, on white, at most 2048 pixels
a side. It does not know prompts, tables or models.

The size is checked in the header before a pixel is decoded: a file of 100 kB can claim 900 million pixels.
`warnings.catch_warnings` is not used, as it is not thread-safe.
"""

from __future__ import annotations

import hashlib
import re
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError, features

from vlm_analysis.errors import PromptError, short
from vlm_analysis.files import opened

# A JPEG may hold several pictures (MPO, from phones); the first one counts. Pillow may be built without the last two. Left out of what it
# reads is what runs another program (PostScript), needs another system, is known by no mark, or holds measurements rather than colours.
_OPTIONAL = {"AVIF": "avif", "JPEG2000": "jpg_2000"}
FORMATS = (
    *("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "ICO", "PCX", "PSD", "QOI", "SGI", "DDS"),
    *(name for name, codec in _OPTIONAL.items() if features.check(codec)),
)
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".avif", ".jp2", ".j2k", ".jpx", ".mpo"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".pcx", ".psd", ".qoi", ".sgi", ".dds"),
)
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm"),
    *(".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv"),
)
TAKE_FRAMES = "Take frames of it as images."
# What people take for a picture and Pillow does not read, by its first bytes and where they stand.
_OTHER_KINDS = (
    (4, b"ftyphei", "a HEIC picture, as phones take them"),
    (4, b"ftyphev", "a HEIC picture, as phones take them"),
    (4, b"ftypmif1", "a HEIC picture, as phones take them"),
    (4, b"ftypmsf1", "a HEIC picture, as phones take them"),
    (4, b"ftyp", "a video"),
    *((4, mark, "a video") for mark in (b"moov", b"mdat", b"wide")),
    (8, b"AVI ", "a video"),
    *((0, mark, "a video") for mark in (b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"FLV\1", b"0&\xb2u\x8ef\xcf\x11")),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"<svg", "an SVG drawing"),
)
MAX_FILE_BYTES = 20_000_000
MAX_PIXELS = 40_000_000
MAX_SIDE = 2048
DEPTHS = (8, 12, 16)  # bits that a 16-bit file may really hold
_DEEP = re.compile(
    "(RGB[AX]?|LA);16[BLN]"
)  # how Pillow calls colours of 16 bits; in RGBa they are multiplied by their transparency


def open_image(source: Path | bytes | Image.Image) -> Image.Image:
    """Return a new RGB image: first frame, EXIF orientation applied, transparency over white, at most 2048x2048.

    Of 16-bit grey or colours (PNG, TIFF) the upper 8 bits are kept: of 16, or of 12 or 8 where the brightest pixel needs no more, as
    scanners store 12 bits in 16, of which the upper 8 are nearly black (our choice). An image already in this form comes back with equal
    pixels, so applying the function twice changes nothing.

    Args:
        source: a file, the bytes of a file of one of `FORMATS`, or an image in memory.

    Raises:
        PromptError: the source is not such an image, is damaged or cut short, is larger than 20 MB, or has more than
            40 million pixels.
    """
    if isinstance(source, Image.Image):
        return _decode(source, "the image in memory")
    if isinstance(source, Path):
        name, data = f"image '{short(source)}'", read_file(source, MAX_FILE_BYTES)
    elif isinstance(source, bytes):
        name, data = "the image", source
    else:
        raise PromptError(
            f"an image could not be opened: expected a path, bytes or an image, got {type(source).__name__}. "
            "Pass one of these."
        )
    if len(data) > MAX_FILE_BYTES:
        raise _too_large(name, MAX_FILE_BYTES, f"{len(data):,} bytes")
    return _decode_bytes(data, name)


def image_hash(image: Image.Image) -> str:
    """Return the sha256 (hex) over mode, size and pixels of the image, as returned by `open_image`.

    Two files with the same pixels have the same hash, whatever their format or metadata.

    Raises:
        PromptError: the image cannot be decoded (see `open_image`).
    """
    rgb = open_image(image)
    digest = hashlib.sha256(f"{rgb.mode} {rgb.width}x{rgb.height}\n".encode())
    digest.update(rgb.tobytes())
    return digest.hexdigest()


def open_unchanged(source: Path | Image.Image, expected: str) -> Image.Image:
    """Return the image as `open_image` does, after checking that its hash is still the expected one.

    Raises:
        PromptError: it cannot be opened, or its pixels are others by now.
    """
    image = open_image(source)
    if image_hash(image) != expected:
        name = f"image '{short(source)}'" if isinstance(source, Path) else "the image in memory"
        raise PromptError(
            f"{name} could not be used: expected the pixels that were read first, got others. Open the prompts again."
        )
    return image


def is_blank(source: Path | Image.Image) -> bool:
    """Return whether all pixels of an image have one colour.

    Raises:
        PromptError: it cannot be opened (see `open_image`).
    """
    return all(low == high for low, high in (band.getextrema() for band in open_image(source).split()))


def read_file(path: Path, limit: int) -> bytes:
    """Return the bytes of an ordinary file of at most `limit` bytes.

    Raises:
        PromptError: there is no such file, it is not an ordinary file, it is larger, or it cannot be read.
    """
    try:
        if not path.is_file():
            raise PromptError(
                f"'{short(path)}' could not be read: expected a file, got "
                f"{'something else' if path.exists() else 'nothing there'}. Check the path."
            )
        with opened(path) as stream:
            data = stream.read(limit + 1)
    except (OSError, RuntimeError) as error:
        raise PromptError(
            f"'{short(path)}' could not be read: {short(error)}. Check the path and its permissions."
        ) from error
    if len(data) > limit:
        raise _too_large(f"'{short(path)}'", limit, "more")
    return data


def _too_large(name: str, limit: int, got: str) -> PromptError:
    return PromptError(
        f"{name} could not be read: expected at most {limit // 1_000_000} MB, got {got}. Save a smaller version."
    )


def _too_many_pixels(name: str, got: str) -> PromptError:
    return PromptError(
        f"{name} could not be opened: expected at most {MAX_PIXELS // 1_000_000} million pixels, got {got}. "
        "Scale it down."
    )


def _decode_bytes(data: bytes, name: str) -> Image.Image:
    expected = ", ".join(FORMATS)
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            _check_size(image, name)
            image.draft(
                "RGB", (MAX_SIDE, MAX_SIDE)
            )  # a JPEG is decoded at a fraction of its size; other formats ignore this
            return _decode(_brightened(image, data, name), name)
    except PromptError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(name, "more than twice that") from error
    except UnidentifiedImageError as error:
        got = next((kind for place, mark, kind in _OTHER_KINDS if data.startswith(mark, place)), "")
        raise PromptError(
            f"{name} could not be opened: expected an image ({expected}), got {got or f'{len(data):,} bytes that are none'}. "
            f"{TAKE_FRAMES if got == 'a video' else 'Save it again as PNG.'}"
        ) from error
    except Exception as error:
        raise _damaged(name, error) from error


def _check_size(image: Image.Image, name: str) -> None:
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise _too_many_pixels(name, f"{image.width}x{image.height} = {pixels:,}")
    if pixels == 0:
        raise PromptError(f"{name} could not be opened: expected at least one pixel, got none. Choose another image.")


def _decode(image: Image.Image, name: str) -> Image.Image:
    """Check the size, then decode; Pillow's decoders can raise almost any exception on hostile data."""
    _check_size(image, name)
    try:
        image.load()
        return _upright_rgb(image, name)
    except PromptError:
        raise
    except Exception as error:
        raise _damaged(name, error) from error


def _upper_bits(pixels: np.ndarray) -> np.ndarray:
    """Return 16-bit values as 8-bit ones: the upper 8 of as many bits as the brightest needs, of 8, 12 or 16."""
    bits = next(bits for bits in DEPTHS if int(pixels.max(initial=0)) < 2**bits)
    return (pixels >> (bits - 8)).astype(np.uint8)


def _brightened(image: ImageFile.ImageFile, data: bytes, name: str) -> Image.Image:
    """Return an opened image; where 16-bit colours use 12 bits, in 8 bits, as Pillow keeps the upper 8 of 16."""
    if image.format == "PPM" and image.mode == "I":  # grey of 16 bits, over which Pillow has spread it
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    rawmodes = {_rawmode(tile) for tile in image.tile}
    if image.format not in ("PNG", "TIFF") or not rawmodes or not all(map(_DEEP.fullmatch, rawmodes)):
        return image
    image.load()
    upper = np.asarray(image).astype(np.uint16)
    is_grey = any(rawmode.startswith("LA") for rawmode in rawmodes)
    n_colours = len(image.getbands()) - ("A" in image.getbands())
    brightest = int(upper[..., :n_colours].max(initial=0))
    if brightest >= 2 ** (DEPTHS[-2] - 8) or (not brightest and is_grey):
        return image
    if is_grey:
        raise PromptError(
            f"{name} could not be opened: expected 16 bits of grey, got at most 12 of them beside transparency, which would turn black. "
            "Save it without transparency, or with 8 bits."
        )
    with Image.open(BytesIO(data), formats=FORMATS) as again:
        again.tile = [_swapped(tile) for tile in again.tile]
        lower = np.asarray(again)
    colours = _upper_bits(upper[..., :n_colours] << 8 | lower[..., :n_colours])
    bright = Image.fromarray(np.concatenate([colours, upper[..., n_colours:].astype(np.uint8)], axis=-1), image.mode)
    bright.info = {key: image.info[key] for key in ("exif",) if key in image.info}
    return bright


def _rawmode(tile: Any) -> str:
    """Return how the pixels of a tile are stored: the first of its arguments (TIFF), or the only one (PNG)."""
    return str(tile.args[0] if isinstance(tile.args, tuple) else tile.args)


def _swapped(tile: Any) -> Any:
    """Return a tile that is read as if the other byte of its 16-bit values came first: Pillow keeps the lower byte then."""
    rawmode = _rawmode(tile)
    other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}[rawmode[-1]]
    swapped = rawmode[:-1] + other
    return tile._replace(args=(swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else swapped)


def _damaged(name: str, error: Exception) -> PromptError:
    return PromptError(
        f"{name} could not be decoded: expected a whole image, got damaged or cut-short data ({short(error)}). "
        "Save or copy it again."
    )


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255, which turns a 16-bit image all white.
        image = Image.fromarray(_upper_bits(np.asarray(image)))
    elif image.mode in ("I", "F"):
        raise PromptError(
            f"{name} could not be opened: expected 8 or 16 bits a channel, got mode {image.mode}, whose range is not "
            "known. Scale it to 0..255 and save as PNG."
        )
    transparent = image.has_transparency_data
    # Converted before resizing: palette images would be resized without smoothing.
    image = image.convert("RGBA" if transparent else "RGB")
    if max(image.size) > MAX_SIDE:
        image.thumbnail((MAX_SIDE, MAX_SIDE))
    # Pasted into a new image to leave out metadata (colour profile, EXIF).
    clean = Image.new("RGB", image.size, "white")
    clean.paste(image, mask=image.getchannel("A") if transparent else None)
    return clean
