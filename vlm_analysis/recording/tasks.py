"""The tasks of a recording, the level below its domains: which prompts are of which, and the similarity of layers on each."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vlm_analysis.errors import RecordingError
from vlm_analysis.recording.measures import mean_of_prompts
from vlm_analysis.recording.pooled import LEAST_TASKS, MOST_TASKS, Task, is_pooled, of_whole
from vlm_analysis.recording.recording import Recording
from vlm_analysis.words import TOKEN_GROUPS


def tasks_in(recording: Recording) -> list[Task]:
    """Return domain and task of each prompt of a recording."""
    return list(zip(recording.domains, recording.tasks or ("",) * recording.n_prompts, strict=True))


def pooled_rows(recording: Recording) -> np.ndarray:
    """Return the (n_tasks, n_layers + 1, hidden) float64 mean streams of each task, prompts with equal weight, in order of appearance.

    Raises:
        RecordingError: the recording has too few or too many tasks, or was made without pooled states.
    """
    tasks = tasks_in(recording)
    number = len(set(tasks)) if recording.tasks else 0
    if not LEAST_TASKS <= number <= MOST_TASKS:
        raise RecordingError(
            f"Layers cannot be compared over tasks: expected prompts of {LEAST_TASKS} to {MOST_TASKS} tasks, got {number}. Record prompts "
            "with tasks, such as those of a probe suite."
        )
    whole_parts = of_whole(recording.pooled, tasks)
    if not whole_parts:
        raise RecordingError(
            "Layers cannot be compared over tasks: expected a recording with the mean state of each task, got one without. Record the "
            "prompts again."
        )
    return np.stack([part.sums / part.n_prompts for part in whole_parts.values()])


def lacks_pooled(recording: Recording) -> bool:
    """Return whether a new recording of the same prompts would hold the mean states of tasks, and this one does not."""
    tasks = tasks_in(recording)
    return is_pooled(tasks, {"full": True}) and not of_whole(recording.pooled, tasks)


def tasks_of(recording: Recording) -> dict[Task, np.ndarray]:
    """Return the indices of each task's prompts: domains, and tasks in them, in the order of their first prompt; empty without tasks."""
    if not recording.tasks:
        return {}
    pairs = tasks_in(recording)
    place = {name: index for index, name in enumerate(recording.domain_names)}
    names = sorted(dict.fromkeys(pairs), key=lambda pair: place[pair[0]])
    return {name: np.array([index for index, pair in enumerate(pairs) if pair == name]) for name in names}


def task_similarity(recording: Recording, token_group: str = "all") -> np.ndarray:
    """Return the (n_tasks, n_layers) float64 mean cosine of each layer on the prompts of each task, in the order of `tasks_of`.

    Prompts count as in `Recording.layer_similarity`.
    """
    values = recording.prompt_values("cosine", None, token_group).astype(np.float64)
    counts = recording.counts_in("cosine", None, token_group)
    rows = [mean_of_prompts(values[indices], counts[indices]) for indices in tasks_of(recording).values()]
    return np.stack(rows) if rows else np.empty((0, recording.n_layers))


def task_table(recording: Recording) -> pd.DataFrame:
    """Return one row per domain, task, token group and layer: how many prompts have the token group, and the mean cosine."""
    groups = tasks_of(recording)
    frames = []
    for token_group in TOKEN_GROUPS:
        has = recording.has_group(None, token_group)
        for ((domain, task), indices), cosine in zip(
            groups.items(), task_similarity(recording, token_group), strict=True
        ):
            columns = {"domain": domain, "task": task, "token_group": token_group, "layer": range(recording.n_layers)}
            frames.append(pd.DataFrame({**columns, "n_prompts": int(has[indices].sum()), "cosine": cosine}))
    return pd.concat(frames, ignore_index=True)
