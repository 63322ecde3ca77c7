"""Drawn 64×64 pictures: coloured shapes, bar charts and written sums, each reproducible from a seed.

A picture is a value: the facts it shows and its pixels. Questions about it are in `tasks`.
All randomness comes from `random.Random(seed)`, and every glyph is drawn from a table in this file, so the same seed
gives the same pixels on every machine.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

SIZE = 64
CELL = 16  # one vision token of Pocket-VL covers one cell of the 4×4 grid
BACKGROUND = (245, 245, 245)
COLOURS = {
    "red": (215, 40, 40),
    "green": (40, 160, 70),
    "blue": (40, 80, 215),
    "yellow": (240, 200, 30),
    "purple": (150, 50, 185),
    "black": (30, 30, 30),
}
SHAPES = ("circle", "square", "triangle", "cross")
PLURALS = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}
MOST_SHAPES = 9
TALLEST_BAR = 9
N_BARS = 4
_BAR_UNIT, _BAR_WIDTH, _BAR_PITCH, _BAR_BASE = 6, 10, 15, 60

# 5×7 bitmaps, one string of five characters per row.
_GLYPHS = {
    "0": "01110 10001 10011 10101 11001 10001 01110",
    "1": "00100 01100 00100 00100 00100 00100 01110",
    "2": "01110 10001 00001 00110 01000 10000 11111",
    "3": "11110 00001 00001 01110 00001 00001 11110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
    "5": "11111 10000 11110 00001 00001 10001 01110",
    "6": "00110 01000 10000 11110 10001 10001 01110",
    "7": "11111 00001 00010 00100 01000 01000 01000",
    "8": "01110 10001 10001 01110 10001 10001 01110",
    "9": "01110 10001 10001 01111 00001 00010 01100",
    "+": "00000 00100 00100 11111 00100 00100 00000",
}


@dataclass(frozen=True)
class Shape:
    """One drawn shape; `row` and `column` are cells of the 4×4 grid, counted from the top left."""

    kind: str
    colour: str
    row: int
    column: int


@dataclass(frozen=True)
class Shapes:
    """A picture of 1 to 9 shapes in distinct cells, in reading order."""

    shapes: tuple[Shape, ...]
    image: Image.Image


@dataclass(frozen=True)
class Bars:
    """A bar chart: colours from left to right with heights 1 to 9."""

    heights: tuple[tuple[str, int], ...]
    image: Image.Image


@dataclass(frozen=True)
class WrittenSum:
    """A written sum `left + right` of two two-digit numbers."""

    left: int
    right: int
    image: Image.Image


Picture = Shapes | Bars | WrittenSum


def is_reserved_pair(left: int, right: int) -> bool:
    """Return whether this pair of numbers is kept out of training (about one in ten); packs and held-out sums use only these."""
    return zlib.crc32(f"{left}+{right}".encode()) % 10 == 0


def count_kind(picture: Shapes, kind: str) -> int:
    """Return how many shapes of `kind` the picture has."""
    return sum(shape.kind == kind for shape in picture.shapes)


def amount(count: int, kind: str) -> str:
    """Return "1 circle" or "2 circles"."""
    return f"{count} {kind if count == 1 else PLURALS[kind]}"


def draw_shapes(rng: Random) -> Shapes:
    """Draw 1 to 9 shapes; half of the pictures hold at most four."""
    count = rng.randint(1, 4) if rng.random() < 0.5 else rng.randint(3, MOST_SHAPES)
    kinds = rng.sample(SHAPES, rng.randint(1, len(SHAPES)))
    colours = rng.sample(list(COLOURS), rng.randint(1, len(COLOURS)))
    cells = sorted(rng.sample(range(16), count))
    shapes = tuple(Shape(rng.choice(kinds), rng.choice(colours), *divmod(cell, 4)) for cell in cells)
    image, pen = _canvas()
    for shape in shapes:
        radius = rng.choice((5, 6))
        x = shape.column * CELL + CELL // 2 + rng.randint(-1, 1)
        y = shape.row * CELL + CELL // 2 + rng.randint(-1, 1)
        _draw_shape(pen, shape.kind, COLOURS[shape.colour], x, y, radius)
    return Shapes(shapes, image)


def draw_bars(rng: Random) -> Bars:
    """Draw four bars of different colours; the tallest and the shortest are unique."""
    colours = rng.sample(list(COLOURS), N_BARS)
    while True:
        heights = [rng.randint(1, TALLEST_BAR) for _ in colours]
        if heights.count(max(heights)) == 1 and heights.count(min(heights)) == 1:
            break
    image, pen = _canvas()
    start = rng.randint(1, 6)
    for index, (colour, height) in enumerate(zip(colours, heights, strict=True)):
        left = start + index * _BAR_PITCH
        box = (left, _BAR_BASE - height * _BAR_UNIT, left + _BAR_WIDTH - 1, _BAR_BASE - 1)
        pen.rectangle(box, fill=COLOURS[colour])
    pen.line((0, _BAR_BASE, SIZE, _BAR_BASE), fill=(120, 120, 120))
    return Bars(tuple(zip(colours, heights, strict=True)), image)


def draw_sum(rng: Random, *, reserved: bool) -> WrittenSum:
    """Draw `left + right`; with `reserved` only pairs that training never uses, else only the others."""
    while True:
        left, right = rng.randint(10, 99), rng.randint(10, 99)
        if is_reserved_pair(left, right) == reserved:
            break
    image, pen = _canvas()
    colour = COLOURS[rng.choice(list(COLOURS))]
    x, y = rng.randint(1, 4), 8 * rng.randint(0, 6) + 1  # a line spans two rows of patches
    for character in f"{left}+{right}":
        _draw_glyph(pen, character, colour, x, y)
        x += 12
    return WrittenSum(left, right, image)


def _canvas() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (SIZE, SIZE), BACKGROUND)
    return image, ImageDraw.Draw(image)


def _draw_shape(pen: ImageDraw.ImageDraw, kind: str, colour: tuple[int, int, int], x: int, y: int, r: int) -> None:
    if kind == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif kind == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=colour)
    elif kind == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
    else:
        pen.rectangle((x - 1, y - r, x + 1, y + r), fill=colour)
        pen.rectangle((x - r, y - 1, x + r, y + 1), fill=colour)


def _draw_glyph(pen: ImageDraw.ImageDraw, character: str, colour: tuple[int, int, int], x: int, y: int) -> None:
    for row, bits in enumerate(_GLYPHS[character].split()):
        for column, bit in enumerate(bits):
            if bit == "1":
                pen.rectangle((x + 2 * column, y + 2 * row, x + 2 * column + 1, y + 2 * row + 1), fill=colour)
