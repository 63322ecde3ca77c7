"""Questions that are answered in three to five numbered steps, from pictures of all three kinds.

The words are those of the tokenizer, which has no minus: a difference is asked, and found, as what has to be added.
"""

from __future__ import annotations

from random import Random

from vlm_analysis.pocket.pictures import COLOURS, SHAPES, Bars, Shapes, WrittenSum, amount, count_kind

QuestionAndAnswer = tuple[str, str]


def ask_kinds(picture: Shapes, rng: Random) -> QuestionAndAnswer | None:
    """Ask for the shapes of three kinds in all; None where the picture has fewer kinds."""
    kinds = [kind for kind in SHAPES if count_kind(picture, kind)]
    if len(kinds) < 3:
        return None
    kinds = rng.sample(kinds, 3)
    counts = [count_kind(picture, kind) for kind in kinds]
    plurals = [amount(2, kind).split()[1] for kind in kinds]
    parts = [amount(count, kind) for count, kind in zip(counts, kinds, strict=True)]
    return f"how many {_listed(plurals)} are there? step by step.", _added(parts, counts)


def ask_colours(picture: Shapes, rng: Random) -> QuestionAndAnswer | None:
    """Ask for the shapes of three colours in all; None where the picture has fewer colours."""
    counts = {colour: sum(shape.colour == colour for shape in picture.shapes) for colour in COLOURS}
    present = [colour for colour, count in counts.items() if count]
    if len(present) < 3:
        return None
    colours = rng.sample(present, 3)
    parts = [f"{counts[colour]} {colour}" for colour in colours]
    question = f"how many {_listed(colours)} shapes are there? step by step."
    return question, _added(parts, [counts[colour] for colour in colours])


def ask_quarters(picture: Shapes, rng: Random) -> QuestionAndAnswer | None:
    """Ask for all shapes, counted by the four quarters of the picture."""
    counts = {(top, left): 0 for top in (True, False) for left in (True, False)}
    for shape in picture.shapes:
        counts[shape.row < 2, shape.column < 2] += 1
    parts = [f"{'top' if top else 'bottom'} {'left' if left else 'right'} is {n}" for (top, left), n in counts.items()]
    total = " + ".join(map(str, counts.values()))
    return "how many shapes are there? step by step.", _steps(parts, f"{total} = {sum(counts.values())}")


def ask_bars(picture: Bars, rng: Random) -> QuestionAndAnswer | None:
    """Ask for the sum of three bars."""
    bars = rng.sample(picture.heights, 3)
    parts = [f"{colour} is {height}" for colour, height in bars]
    question = f"add the {_listed([colour for colour, _ in bars])} bars step by step."
    return question, _added(parts, [height for _, height in bars])


def ask_difference(picture: Bars, rng: Random) -> QuestionAndAnswer | None:
    """Ask how much taller one bar is than another."""
    (first, one), (second, two) = sorted(rng.sample(picture.heights, 2), key=lambda bar: bar[1])
    parts = [f"{first} is {one}", f"{second} is {two}", f"{one} + {two - one} = {two}"]
    return f"the {first} bar + what = the {second} bar? step by step.", _steps(parts, str(two - one))


def ask_range(picture: Bars, rng: Random) -> QuestionAndAnswer | None:
    """Ask for the largest bar less the smallest."""
    (tallest, most), (shortest, least) = _ends(picture)
    parts = [f"tallest is {tallest}, {most}", f"shortest is {shortest}, {least}", f"{least} + {most - least} = {most}"]
    return "the shortest bar + what = the tallest bar? step by step.", _steps(parts, str(most - least))


def ask_ends(picture: Bars, rng: Random) -> QuestionAndAnswer | None:
    """Ask for the largest bar and the smallest together."""
    (tallest, most), (shortest, least) = _ends(picture)
    parts = [f"tallest is {tallest}", f"{tallest} is {most}", f"shortest is {shortest}", f"{shortest} is {least}"]
    return "add the tallest bar and the shortest bar step by step.", _steps(parts, f"{most} + {least} = {most + least}")


def ask_carry(picture: WrittenSum, rng: Random) -> QuestionAndAnswer | None:
    """Ask for the sum digit by digit: the ones, then the tens with what is carried."""
    (tens, ones), (more_tens, more_ones) = divmod(picture.left, 10), divmod(picture.right, 10)
    low = ones + more_ones
    high = tens + more_tens + low // 10
    parts = [
        f"{picture.left} + {picture.right}",
        f"{ones} + {more_ones} = {low}",
        f"{tens} + {more_tens} + {low // 10} = {high}",
    ]
    return "solve the sum step by step.", _steps(parts, str(picture.left + picture.right))


def _ends(picture: Bars) -> tuple[tuple[str, int], tuple[str, int]]:
    by_height = sorted(picture.heights, key=lambda bar: bar[1])
    return by_height[-1], by_height[0]


def _added(parts: list[str], counts: list[int]) -> str:
    """Return the steps of adding three counts: read each, add the first two, then the third."""
    one, two, three = counts
    return _steps([*parts, f"{one} + {two} = {one + two}"], f"{one + two} + {three} = {sum(counts)}")


def _steps(parts: list[str], therefore: str) -> str:
    numbered = " ".join(f"step {number}: {part}." for number, part in enumerate(parts, start=1))
    return f"{numbered} therefore {therefore}"


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
