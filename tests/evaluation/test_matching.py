"""Matching texts: what normalisation takes away and what it keeps, and numbers within five per cent."""

from __future__ import annotations

import re
import time
from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from vlm_analysis.evaluation.matching import normalised, normalised_match, numeric_match

PAIRS = [
    ("The Red Circle.", "red circle"),
    ("  top \t left\n", "top left"),
    ("top-left", "top left"),
    ("don't", "dont"),
    ("'red'", "red"),
    ("A.", "a"),
    ("An apple, a pear", "apple pear"),
    ("1,234.5", "1234.5"),
    ("1,234,567", "1234567"),
    ("1,2", "1 2"),
    ("5.", "5"),
    (".5", ".5"),
    ("40 %", "40"),
    ("−3", "-3"),
    ("–3", "-3"),
    ("3-4", "3 4"),
    ("1e-5", "1e-5"),
    ("٣", "3"),
    ("５％", "5"),
    ("ﬁn", "fin"),
    ("STRASSE", "straße"),
    ("½", "1/2"),
    ("?!", "?!"),
    ("the", "The"),
    ("10⁵", "10^5"),
    ("10⁻⁵", "10 ^ -5"),
    ("10²³", "10^23"),
    ("1½", "1 1/2"),
    ("CO₂", "CO2"),
    ("5ᵗʰ", "5th"),
    ("１5", "15"),
    ("x=-5", "x = -5"),
    ("x = - 5", "x=-5"),
    ("-3°C", "-3 °C"),
    ("-3 ℃", "− 3°c"),
    ("- 3", "-3"),
    ("- $5", "-$ 5"),
    ("3 - 4", "3-4"),
    ("light-blue", "light blue"),
    ("red - blue", "red blue"),
    ("- red", "red"),
    ("1, 2", "1,2"),
    ("yes!", "yes"),
    ("yes!!", "Yes."),
    ("C #", "c#"),
    ("A dog", "dog"),
    ("a T-shirt", "T-shirt"),
    ('a "red" dog', "red dog"),
    ("a 5 dollar bill", "5 dollar bill"),
    ("A $5 bill", "$5 bill"),
    ("(A)", "a"),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_these_are_the_same(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    assert normalised_match(one, other)
    assert numeric_match(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("-3", "3"), ("1.5", "15"), ("x > 3", "x < 3"), ("?", "!"), ("", "a"), ("then", "n"), ("1e-5", "1e5"), ("$", "€")],
)
def test_these_are_not(one: str, other: str) -> None:
    assert not normalised_match(one, other)
    assert not numeric_match(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("10⁵", "105"), ("10⁻⁵", "10-5"), ("10⁻⁵", "105"), ("5²", "52"), ("1½", "11/2"), ("½5", "1/25"), ("1①", "11"), ("log₂8", "log28"),
     ("10²⁰", "10²¹"), ("- 3", "3"), ("-$5", "$5"), ("- $5", "$5"), ("-x", "x"), ("x = - 5", "x = 5"), ("-√2", "√2")],
)  # fmt: skip
def test_a_power_a_fraction_and_a_minus_sign_count(one: str, other: str) -> None:
    assert not normalised_match(one, other)
    assert not numeric_match(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("10:30", "10:31"), ("at 10:30 pm", "at 10:31 pm"), ("1.20.5", "1.25.5"), ("v1.20.5", "v1.25.5"), ("0,05", "0,5"), ("0,125", "125"),
     ("3,41", "3,40"), ("1234,567", "1234567"), ("100!", "101!")],
)  # fmt: skip
def test_what_only_looks_like_a_number_is_text(one: str, other: str) -> None:
    assert not numeric_match(one, other)
    assert numeric_match(one, one + ".")


@pytest.mark.parametrize(
    ("one", "other"),
    [("C#", "C"), ("5!", "5"), ("A, B", "B"), ("B, A", "B"), ("A B", "B"), ("a, b", "b"), ("vitamin A, zinc", "vitamin zinc"),
     ("10 a.m.", "10 m")],
)  # fmt: skip
def test_a_sign_or_a_letter_that_means_something_stays(one: str, other: str) -> None:
    assert not normalised_match(one, other)
    assert not numeric_match(one, other)


def settles(text: str) -> bool:
    """Return whether normalising again changes nothing, or only an "a" that lost the comma after it."""
    once = normalised(text)
    return normalised(once) == once or re.search(r"\ba\b", once) is not None


@given(st.text())
def test_normalising_again_changes_nothing(text: str) -> None:
    assert settles(text)


@given(st.text(alphabet="aAtheé '’.,-−–%01239e+ \t$!#:=^²⁻½①₂_(\u0338"))
def test_normalising_what_is_made_of_signs_again_changes_nothing(text: str) -> None:
    assert settles(text)


@given(st.text(), st.text())
def test_a_text_matches_itself_and_a_normalised_match_is_a_numeric_one(one: str, other: str) -> None:
    assert normalised_match(one, one)
    assert numeric_match(one, one)
    assert normalised_match(one, other) == normalised_match(other, one)
    assert numeric_match(one, other) or not normalised_match(one, other)


NUMBERS = st.decimals(-(10**6), 10**6, allow_nan=False, places=2)


@given(NUMBERS, NUMBERS)
def test_one_number_matches_within_five_per_cent_reckoned_in_fractions(found: object, wanted: object) -> None:
    gap = abs(Fraction(str(found)) - Fraction(str(wanted)))
    assert numeric_match(str(found), str(wanted)) == (gap <= abs(Fraction(str(wanted))) / 20)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.sampled_from(["red", "blue bars"])), min_size=1, max_size=5))
def test_several_numbers_match_one_by_one_in_their_order(parts: list[tuple[int, str]]) -> None:
    def text(numbers: list[float]) -> str:
        return ", ".join(f"{number:.6f} {word}" for number, (_, word) in zip(numbers, parts, strict=True))

    wanted = [float(number) for number, _ in parts]
    assert numeric_match(text([number * 1.049 for number in wanted]), text(wanted))
    for place in range(len(parts)):
        off = [number * (1.06 if index == place else 1) for index, number in enumerate(wanted)]
        assert not numeric_match(text(off), text(wanted))
    assert not numeric_match(text(wanted) + " 7", text(wanted))


@pytest.mark.parametrize(
    ("response", "answer", "right"),
    [
        ("1.05", "1", True),
        ("0.95", "1", True),
        ("1.0501", "1", False),
        ("0.0", "0", True),
        ("0.0001", "0", False),
        ("-1.04", "-1", True),
        ("39 red", "40 red", True),
        ("39 blue", "40 red", False),
        ("40", "forty", False),
        ("3, 41", "3, 40", True),
        ("41, 3", "3, 40", False),
        ("w71", "w70", False),
        ("5.1kg", "5 kg", True),
        ("1e999", "1e999", True),
        ("1e999", "1e1000", False),
        ("1e999", "5", False),
        ("5", "1e999", False),
        ("1,234.5", "1,200", True),
        ("٣٠", "31", True),
        ("nan", "inf", False),
    ],
)
def test_worked_numbers(response: str, answer: str, right: bool) -> None:
    assert numeric_match(response, answer) == right


def test_the_tolerance_can_be_chosen() -> None:
    assert not numeric_match("102", "100", tolerance=0.01)
    assert numeric_match("120", "100", tolerance=0.2)
    assert not numeric_match("101", "100", tolerance=0)


@pytest.mark.parametrize(
    "part",
    ["9", "1,", "-", ".", "1.1e-", "'a", "e1", "1 ", "a ", "\u0308", "(", "1.", "-.5", "1:", "2²", "- ", "+ ", "½"],
)
def test_a_very_long_text_takes_no_more_than_its_length(part: str) -> None:
    """Four times the text takes about four times as long, on any machine; where time grows as the square it takes 16 times as long."""

    def seconds(length: int) -> float:
        text, times = part * (length // len(part)), []
        for _ in range(2):
            before = time.thread_time()
            numeric_match(text, text + "1")
            times.append(time.thread_time() - before)
        return min(times)

    assert seconds(24_000) < 10 * max(seconds(6_000), 1e-3)
