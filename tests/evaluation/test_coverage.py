"""Intervals hold and verdicts err as often as docs/statistics.md says: a sample of its simulation, and all of it when slow."""

from __future__ import annotations

import re

import numpy as np
import pytest

from benchmarks.intervals import BEGIN, DOCS, END, RUNS, Case, cases, runs_of

CASES = tuple(cases())
SLACK = 3.0  # standard errors of a share that the sample may be off


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.table}-{case.words}")
def test_a_sample_of_the_simulation_holds(case: Case) -> None:
    runs = 40 if case.is_slow else 100
    found = case.simulate(np.random.default_rng(0), runs)
    for bound, sign in ((case.least, 1), (case.most, -1)):
        assert sign * (found - bound) >= -SLACK * np.sqrt(max(bound * (1 - bound), 0.01) / runs)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: f"{CASES[number].table}-{CASES[number].words}")
def test_the_simulation_gives_what_the_table_says(number: int) -> None:
    case = CASES[number]
    found = case.simulate(np.random.default_rng(number), runs_of(case, RUNS))
    assert case.least <= found <= case.most
    text = DOCS.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]
    assert f"| {case.words} | {found:.1%} |" in text


def test_the_table_has_a_row_for_each_case_and_all_hold() -> None:
    text = DOCS.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]
    rows = re.findall(r"^\| (.*?) \| ([\d.]+)% \| (\d+)% to (\d+)% \|$", text, re.MULTILINE)
    assert [words for words, *_ in rows] == [case.words for case in CASES]
    for words, found, least, most in rows:
        assert float(least) <= float(found) <= float(most), words
