"""How long evaluating one edit takes: the median of what was seen with the loaded model."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

MOST_SEEN = 9  # of the newest: a model that runs beside other work now is not judged by an idle morning


@dataclass
class Seen:
    """The seconds that evaluations of one edit took, the dense model's among them, as (prompts, n_prompts, seconds); the newest last."""

    took: list[tuple[str, int, float]] = field(default_factory=list)

    def add(self, prompts: str, n_prompts: int, seconds: float) -> None:
        """Add an evaluation of one edit on all prompts of a set."""
        if n_prompts > 0:
            self.took.append((prompts, n_prompts, seconds))

    def expected_s(self, prompts: str, n_prompts: int) -> float | None:
        """Return the seconds of evaluating one edit: as seen on these prompts, else on others, by their number; None where none was seen.

        >>> seen = Seen([("a", 10, 1.0), ("a", 10, 3.0), ("a", 10, 2.0)])
        >>> seen.expected_s("a", 10), seen.expected_s("b", 20), Seen().expected_s("a", 10)
        (2.0, 4.0, None)
        """
        same = [seconds for name, _, seconds in self.took if name == prompts]
        if same:
            return median(same[-MOST_SEEN:])
        others = [seconds / n for _, n, seconds in self.took]
        return median(others[-MOST_SEEN:]) * n_prompts if others else None
