"""What was left out while prompts were read: the first rows of each reason one by one, the others counted.

A table of 9,000 rows without a picture has 9,000 times the same to say.
"""

from __future__ import annotations

from collections import Counter

from vlm_analysis.prompts.prompts import Problem

MOST_OF_ONE = 10  # rows that are named for one reason
MOST_PROBLEMS = 10_000


class Problems:
    """Problems as they come; `listed` has those that are kept, and one for each reason that holds for more rows."""

    def __init__(self) -> None:
        self._kept: list[Problem] = []
        self._times: Counter[str] = Counter()
        self._n_more = 0

    def add(self, problem: Problem) -> None:
        """Take in a problem; those about the whole source are always kept."""
        if problem.row and (problem.message in self._times or len(self._times) < MOST_PROBLEMS):
            self._times[problem.message] += 1
            if self._times[problem.message] > MOST_OF_ONE:
                return
        if problem.row and len(self._kept) >= MOST_PROBLEMS:
            self._n_more += 1
        else:
            self._kept.append(problem)

    def listed(self) -> tuple[Problem, ...]:
        """Return the problems that are kept, then what is counted."""
        again = [
            f"{times - MOST_OF_ONE:,} more rows were left out for the same reason: {message}"
            for message, times in self._times.items()
            if times > MOST_OF_ONE
        ]
        if self._n_more:
            again.append(
                f"{self._n_more:,} more rows were left out: expected rows without problems. Correct those above first."
            )
        return (*self._kept, *(Problem(0, "", message) for message in again))
