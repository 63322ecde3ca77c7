"""The corpus of hostile files: made by a script each time, none of them kept."""

from __future__ import annotations

import functools
import random

from . import (
    benchmark_files,
    checkpoints,
    edit_files,
    format_files,
    map_files,
    mask_files,
    prompt_files,
    saved_files,
    workspaces,
)
from .cases import Case

SAMPLE = 100  # of all cases, in `make test`


@functools.cache
def corpus() -> tuple[Case, ...]:
    """Return every case."""
    found = tuple(
        case
        for part in (
            saved_files,
            edit_files,
            map_files,
            mask_files,
            prompt_files,
            format_files,
            benchmark_files,
            workspaces,
            checkpoints,
        )
        for case in part.cases()
    )
    names = [case.id for case in found]
    assert len(set(names)) == len(names), "two cases of one name"
    return found


def sample() -> list[Case]:
    """Return the cases that `make test` tries: the same ones each time, of every kind some."""
    drawn = random.Random(0).sample(corpus(), len(corpus()))
    kinds = {case.kind for case in drawn}
    return [
        case for kind in sorted(kinds) for case in [one for one in drawn if one.kind == kind][: SAMPLE // len(kinds)]
    ]
