"""Pooled states: of each task the mean stream that enters every layer, which two readings of arXiv:2603.20275 compare over tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm_analysis.guard.schema import LONGEST, different, listed, row, text, whole
from vlm_analysis.saved import Arrays

MOST_PROMPTS = 10_000  # as in a prompt set
LEAST_TASKS = 3  # centred rows of two tasks always have a CKA of 1
MOST_TASKS = 64  # bounds what is written after each batch; our choice
SCHEMA = listed(row(text(LONGEST, 1), text(LONGEST), whole(1, MOST_PROMPTS)), most=MOST_TASKS)

Task = tuple[str, str]
"""The names of a domain and of a task in it; "" for its prompts without one."""


@dataclass(frozen=True)
class Pooled:
    """The pooled states of one task, summed over its prompts.

    Attributes:
        sums: (n_layers + 1, hidden) float64, over prompts, of a prompt's mean over its prompt tokens (vision and text) of the stream that
            enters layer l; at n_layers, of the raw output of the last layer.
        n_prompts: the number of prompts.
    """

    sums: np.ndarray
    n_prompts: int

    def __add__(self, other: Pooled) -> Pooled:
        return Pooled(self.sums + other.sums, self.n_prompts + other.n_prompts)


def is_pooled(tasks: Iterable[Task], settings: Mapping[str, Any]) -> bool:
    """Return whether the pooled states of these tasks are recorded: of 3 to 64, at least one with a name, with all other measures."""
    names = set(tasks)
    return bool(settings.get("full")) and any(task for _, task in names) and LEAST_TASKS <= len(names) <= MOST_TASKS


def of_whole(pooled: Mapping[Task, Pooled], tasks: Collection[Task]) -> dict[Task, Pooled]:
    """Return the pooled states of the tasks of all prompts, in the tasks' order; {} where they are not those of exactly these prompts."""
    counts = Counter(tasks)
    return (
        {task: pooled[task] for task in counts}
        if counts == {task: part.n_prompts for task, part in pooled.items()}
        else {}
    )


def pooled_content(pooled: Mapping[Task, Pooled]) -> tuple[list[list[Any]], dict[str, np.ndarray]]:
    """Return pooled states for a file: names and numbers of prompts, and arrays."""
    arrays = {f"pooled_{number}": part.sums for number, part in enumerate(pooled.values())}
    return [[*task, part.n_prompts] for task, part in pooled.items()], arrays


def pooled_of(names: list[list[Any]], arrays: Arrays, n_layers: int) -> dict[Task, Pooled]:
    """Return the pooled states in a file, as `pooled_content` wrote them; raises ValueError for others."""
    different([f"{domain}\0{task}" for domain, task, _ in names], "tasks of pooled states")
    found = {
        (domain, task): Pooled(arrays.get(f"pooled_{number}", np.float64, (n_layers + 1, None)), n_prompts)
        for number, (domain, task, n_prompts) in enumerate(names)
    }
    if len({part.sums.shape for part in found.values()}) > 1:
        raise ValueError("expected pooled states of one width, got several")
    return found
