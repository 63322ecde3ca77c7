"""Recordings with memory: a saved one is opened, an interrupted one continues, one of fewer prompts is extended."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from vlm_analysis.errors import RecordingError
from vlm_analysis.progress import Progress
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.recording.recording import Recording
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.shelf import is_whole, keep_recording, unfinished_folder, whole_items
from vlm_analysis.workbench.workspace import Item


def record_prompts(desk: Desk, prompts: Item, name: str, options: Mapping[str, Any], progress: Progress) -> Item:
    """Record the prompts, continuing from an unfinished or an earlier recording; return the recording's Item."""
    from vlm_analysis.recording.extending import extendable
    from vlm_analysis.recording.record import record

    loaded, prompt_set = desk.loaded, desk.open_prompts(prompts)
    folder = unfinished_folder(desk.shelf, desk.model, prompts, options)
    known = None if folder.exists() else extendable(whole_recordings(desk), loaded, prompt_set, **options)
    if desk.crew is not None:
        from vlm_analysis.workbench.cluster.doors import model_of, record_rows_on

        record_rows_on(desk.crew, loaded, model_of(desk.slot), prompt_set, folder, options, known, progress)
    recording = record(loaded, prompt_set, **options, known=known, folder=folder, on_progress=progress)
    item = keep_recording(desk.shelf, recording, name)
    shutil.rmtree(folder, ignore_errors=True)
    return item


def known_recording(desk: Desk, prompts: Item, options: Mapping[str, Any]) -> Recording | None:
    """Return the newest whole recording of the model on these prompts with these options; None if there is none."""
    from vlm_analysis.recording.extending import extendable

    prompt_set = desk.open_prompts(prompts)
    known = extendable(whole_recordings(desk, prompts.prompts), desk.loaded, prompt_set, **options)
    return None if known is None else in_groups_of(known, prompt_set)


def in_groups_of(recording: Recording, prompts: PromptSet) -> Recording:
    """Return a recording of these prompts in their groups and tasks: a saved one may know others, or, of version 0.1, none."""
    task_of = {prompt.id: prompt.task or "" for prompt in prompts}
    tasks = prompts.tasks and tuple(task_of.get(name, "") for name in recording.prompt_ids)
    return replace(recording, groups=prompts.groups.shared, ties=tuple(sorted(prompts.groups.known)), tasks=tasks)


def whole_recordings(desk: Desk, prompts: str | None = None) -> Iterator[Recording]:
    """Yield the saved recordings of the model that can be opened, newest first; with `prompts` those of one prompt set."""
    items = (item for item in desk.shelf.items("recordings") if item.model == desk.model)
    yield from (recording for _, recording in whole_items(one for one in items if prompts in (None, one.prompts)))


def recorded_prompts(desk: Desk, item: Item) -> Item:
    """Return the saved prompts of a recording; an item of prompts is returned as it is.

    Raises:
        RecordingError: the recording is another model's, or its prompts are not saved.
    """
    if item.kind != "recordings":
        return item
    if item.model != desk.model:
        raise RecordingError(
            f"The recording {item.name!r} is another model's: expected one of {desk.loaded.name} ({desk.model[:8]}), got one of "
            f"{item.model_name} ({str(item.model)[:8]}). Load that model, or choose another recording."
        )
    saved = (one for one in desk.shelf.items("prompts") if one.prompts == item.prompts and is_whole(one))
    prompts = next(saved, None)
    if prompts is None:
        raise RecordingError(
            f"The prompts of the recording {item.name!r} are not saved: expected those of {str(item.prompts)[:8]}, got none. "
            "Save them again."
        )
    return prompts
