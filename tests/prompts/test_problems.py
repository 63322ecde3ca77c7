"""Problems of a source: each reason is told of its first rows, and counted for the others."""

from __future__ import annotations

import pytest

from vlm_analysis.prompts import problems
from vlm_analysis.prompts.problems import Problems
from vlm_analysis.prompts.prompts import Problem


def test_a_reason_of_many_rows_is_told_ten_times_and_then_counted() -> None:
    told = Problems()
    told.add(Problem(0, "", "text only"))
    for row in range(1, 9001):
        told.add(Problem(row, str(row), "text only"))
        if row % 1000 == 0:
            told.add(Problem(row, str(row), f"no file {row}"))
    listed = told.listed()
    assert [one.row for one in listed] == [0, *range(1, 11), *range(1000, 9001, 1000), 0]
    assert listed[-1].message == "8,990 more rows left out for the same reason: text only"


def test_a_reason_of_ten_rows_is_not_counted() -> None:
    told = Problems()
    for row in range(1, 11):
        told.add(Problem(row, str(row), "text only"))
    assert [one.row for one in told.listed()] == list(range(1, 11))


def test_of_many_reasons_only_so_many_are_kept_and_the_others_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "MOST_PROBLEMS", 20)
    told = Problems()
    for row in range(1, 101):
        told.add(Problem(row, str(row), f"no file {row}"))
    told.add(Problem(0, "", "about the table"))
    *kept, last, more = told.listed()
    assert [one.row for one in kept] == list(range(1, 21))
    assert last.message == "about the table"
    assert more.message.startswith("80 more rows left out: ")
