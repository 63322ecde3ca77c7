"""One recording of several that hold different prompts of the same set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from vlm_analysis.errors import RecordingError
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.recording.extending import groups_of, task_of
from vlm_analysis.recording.pooled import of_whole
from vlm_analysis.recording.recording import Recording
from vlm_analysis.recording.rows import merged


def join_recordings(parts: Sequence[Recording], prompts: PromptSet) -> Recording:
    """Return one recording of the shares of a prompt set (see `shard` of `record`).

    Rows are those of the shares, to the last bit; sums over prompts are added share by share, so their last bits may differ from those of
    one recording of all. Token maps stay where they are.

    Args:
        parts: recordings of one model with equal settings, each of other prompts of the set.
        prompts: the whole set, which gives the order.

    Raises:
        RecordingError: they do not belong together, hold a prompt twice, or lack one.
    """
    if not parts:
        raise _apart("recordings of shares", "none")
    first, prompts = parts[0], prompts.readable()
    for part in parts:
        differing = [
            name
            for name, own, other in (
                ("model", part.model.fingerprint, first.model.fingerprint),
                ("prompts", part.prompts, prompts.fingerprint),
                ("settings", part.settings, first.settings),
            )
            if own != other
        ]
        if differing:
            raise _apart(f"the same {' and '.join(differing)} in each", "others")
    row_of = {key: (part, row) for part in parts for row, key in enumerate(part.keys)}
    if len(row_of) < sum(part.n_prompts for part in parts):
        raise _apart("each prompt in one of them", "one in several")
    set_aside = {name: reason for part in parts for name, reason in part.set_aside.items()}
    kept = [(key, one) for key, one in zip(prompts.row_keys, prompts, strict=True) if one.id not in set_aside]
    lacking = [str(one.id) for key, one in kept if key not in row_of]
    if lacking or len(kept) < len(row_of):
        raise _apart(f"{len(kept)} prompts", f"{len(row_of)}; missing are {', '.join(lacking[:3]) or 'none'}")
    sums = reduce(merged, (part.activations for part in parts))
    states = reduce(merged, (part.pooled for part in parts))
    return replace(
        first,
        prompt_ids=tuple(str(one.id) for _, one in kept),
        domains=tuple(one.domain for _, one in kept),
        rows=np.concatenate([row_of[key][0].rows[row_of[key][1] :][:1] for key, _ in kept]),
        activations={domain: sums[domain] for domain in prompts.domains if domain in sums},
        maps=None,
        lacks=tuple(sorted({name for part in parts for name in part.lacks})),
        groups=groups_of(prompts, [str(one.id) for _, one in kept]),
        set_aside={str(one.id): set_aside[one.id] for one in prompts if one.id in set_aside} | dict(prompts.set_aside),
        tasks=prompts.tasks and tuple(one.task or "" for _, one in kept),
        pooled=of_whole(states, [task_of(one) for _, one in kept]),
    )


def _apart(expected: str, got: str) -> RecordingError:
    return RecordingError(
        f"The recordings cannot be joined: expected {expected}, got {got}. Record the shares of one set."
    )
