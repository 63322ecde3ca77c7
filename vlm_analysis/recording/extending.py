"""Which recordings can be extended: those of the same model and settings, whose prompts are all among those to record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vlm_analysis.errors import RecordingError
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.recording.measures import DELTAS, SHARES, SINK_FACTOR
from vlm_analysis.recording.pooled import Task, is_pooled, of_whole
from vlm_analysis.recording.recording import Recording

if TYPE_CHECKING:
    from vlm_analysis.models.load import LoadedModel


def task_of(prompt: Prompt) -> Task:
    """Return the names of a prompt's domain and task."""
    return prompt.domain, prompt.task or ""


def groups_of(prompts: PromptSet, ids: Iterable[str]) -> tuple[str, ...]:
    """Return the group of each of these prompts; () where each is alone in its group."""
    by_id = dict(zip((prompt.id for prompt in prompts), prompts.groups.shared, strict=False))
    groups = tuple(by_id[name] for name in ids if name in by_id)
    return groups if len(set(groups)) < len(groups) else ()


def settings_of(loaded: LoadedModel, batch_size: int, **parts: bool) -> dict[str, Any]:
    """Return everything but model and prompts that the numbers of a recording depend on."""
    return {
        "max_vision_tokens": loaded.max_vision_tokens,
        "batch_size": batch_size,
        **parts,
        "deltas": list(DELTAS),
        "shares": list(SHARES),
        "sink_factor": SINK_FACTOR,
    }


def checked_known(
    known: Recording | None, loaded: LoadedModel, settings: dict[str, Any], prompts: PromptSet
) -> Recording | None:
    """Return the recording to extend; None where there is none.

    Raises:
        RecordingError: it is of another model, has other settings, lacks something, or has prompts that are not to record.
    """
    if known is None:
        return None
    different = [name for name, value in settings.items() if known.settings.get(name) != value] + list(known.lacks)
    tasks = dict(zip(keys := list(prompts.row_keys), map(task_of, prompts), strict=True))
    if is_pooled(tasks.values(), settings) and not of_whole(
        known.pooled, [tasks[key] for key in known.keys if key in tasks]
    ):
        different.append("the mean states of tasks")
    if known.model.fingerprint != loaded.fingerprint or different:
        raise RecordingError(
            f"The recording cannot be extended: expected one of {loaded.name} with the same settings, got one of "
            f"{known.model.name} that differs in {', '.join(different) or 'the model'}. Record all prompts anew."
        )
    n_strange = sum(key not in set(keys) for key in known.keys)
    if n_strange:
        raise RecordingError(
            f"The recording cannot be extended: {n_strange} of its {known.n_prompts} prompts are not among those to record. "
            "Keep all its prompts, or record anew."
        )
    return known


def extendable(
    earlier: Iterable[Recording],
    loaded: LoadedModel,
    prompts: PromptSet,
    *,
    batch_size: int = 1,
    full: bool = True,
    attention: bool = False,
    token_maps: bool = False,
) -> Recording | None:
    """Return the recording that saves most work as `known` in `record` with the same options, or None."""
    settings = settings_of(loaded, batch_size, full=full, attention=attention, token_maps=token_maps)
    best: Recording | None = None
    for recording in earlier:
        try:
            checked_known(recording, loaded, settings, prompts)
        except RecordingError:
            continue
        best = recording if best is None or recording.n_prompts > best.n_prompts else best
    return best
