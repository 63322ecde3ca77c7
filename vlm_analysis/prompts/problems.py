"""What was left out while prompts were read: the first rows of each reason one by one, the others counted.

A table of 9,000 rows without a picture has 9,000 times the same to say. On screen, problems of one reason are one line (`grouped`),
whatever names and numbers their messages hold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from vlm_analysis.prompts.prompts import Problem
from vlm_analysis.words import counted, some_of

MOST_OF_ONE = 10  # rows that are named for one reason
MOST_PROBLEMS = 10_000
MOST_NAMED = 6  # rows and ids of a line
_VARIES = re.compile(r"'[^']*'|\"[^\"]*\"|\d[\d,.]*")  # what differs between messages of one reason: names and numbers


class Problems:
    """Problems as they come; `listed` has those that are kept, and one for each reason that holds for more rows."""

    def __init__(self) -> None:
        self._kept: list[Problem] = []
        self._times: Counter[str] = Counter()
        self._last: dict[str, int] = {}
        self._n_more = 0

    def add(self, problem: Problem) -> None:
        """Take in a problem; those about the whole source are always kept, and of a row with several prompts one of each reason."""
        if problem.row and self._last.get(problem.message) == problem.row:
            return
        if problem.row and (problem.message in self._times or len(self._times) < MOST_PROBLEMS):
            self._times[problem.message] += 1
            self._last[problem.message] = problem.row
            if self._times[problem.message] > MOST_OF_ONE:
                return
        if problem.row and len(self._kept) >= MOST_PROBLEMS:
            self._n_more += 1
        else:
            self._kept.append(problem)

    def listed(self) -> tuple[Problem, ...]:
        """Return the problems that are kept, then what is counted."""
        again = [_more(times - MOST_OF_ONE, message) for message, times in self._times.items() if times > MOST_OF_ONE]
        if self._n_more:
            more = f"{counted(self._n_more, 'more row')} left out: expected rows without problems. Correct those above first."
            again.append(Problem(0, "", more))
        return (*self._kept, *again)


def _more(number: int, reason: str) -> Problem:
    message = f"{counted(number, 'more row')} left out for the same reason: {reason}"
    return Problem(0, "", message, n_more=number, reason=reason)


@dataclass(frozen=True)
class ProblemGroup:
    """Problems of one reason.

    Attributes:
        message: that of the first.
        number: how many there are.
        rows: the rows of those that are listed, from 1; () where it is about the whole source.
        ids: the ids of those that have one beside the row's number.
    """

    message: str
    number: int
    rows: tuple[int, ...]
    ids: tuple[str, ...] = ()

    @property
    def row_words(self) -> str:
        """Return the first rows in words; "" where it is about the whole source."""
        return some_of(map(str, self.rows), MOST_NAMED, self.number)

    @property
    def id_words(self) -> str:
        """Return the first ids in words."""
        return some_of(self.ids, MOST_NAMED)


def grouped(problems: Iterable[Problem]) -> list[ProblemGroup]:
    """Return the problems by reason, those of the whole source first, then those that are most.

    >>> two = [Problem(row, str(row), f"'{row}.png' is not there") for row in (3, 7)]
    >>> [(group.message, group.row_words) for group in grouped(two)]
    [("'3.png' is not there", '3, 7')]
    """
    members: dict[tuple[bool, str], list[Problem]] = {}
    more: Counter[tuple[bool, str]] = Counter()
    for problem in problems:
        if problem.n_more:
            more[True, _VARIES.sub("…", problem.reason)] += problem.n_more
        else:
            members.setdefault((problem.row > 0, _VARIES.sub("…", problem.message)), []).append(problem)
    rows = {reason: tuple(dict.fromkeys(one.row for one in several if one.row)) for reason, several in members.items()}
    groups = [
        ProblemGroup(
            several[0].message,
            (len(rows[reason]) or len(several)) + more[reason],
            rows[reason],
            tuple(one.id for one in several if one.id not in ("", str(one.row))),
        )
        for reason, several in members.items()
    ]
    return sorted(groups, key=lambda group: (bool(group.rows), -group.number))


def problem_lines(problems: Iterable[Problem]) -> list[str]:
    """Return a line for each reason: which rows are left out, and why.

    >>> problem_lines([Problem(3, "3", "no image"), Problem(0, "", "two files are no images")])
    ['two files are no images', 'row 3 is left out: no image']
    """
    lines = []
    for group in grouped(problems):
        several = f"{group.number:,} rows are left out ({group.row_words}), the first: "
        of_rows = several if group.number > 1 else f"row {group.row_words} is left out: "
        lines.append((of_rows if group.rows else "") + group.message)
    return lines
