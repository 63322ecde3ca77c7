"""Probe the answers: one forward pass per prompt, of which the mean vision and text state of every layer is kept, and nothing per token."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np
import torch

from vlm_analysis.errors import PromptError, RecordingError
from vlm_analysis.guard.memory import free_memory
from vlm_analysis.models.inputs import Encoded, batches, encode
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.refused import none_left
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.recording.answerprobe import PROBED, AnswerProbe, described, none_to_probe, parts_of, probed
from vlm_analysis.recording.extending import task_of
from vlm_analysis.recording.passes import Passes
from vlm_analysis.recording.streams import INPUT, OUTPUT, Streams
from vlm_analysis.words import TOKEN_GROUPS

CHUNK = 16  # prompts whose inputs are prepared together
SHARE = 2  # of the free memory, what mean states may take: one in so many parts


def probe_answers(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    *,
    batch_size: int = 1,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> AnswerProbe:
    """Return how well ridge probes tell the answers of prompts from the mean vision and text states around each layer.

    Answers are not shown to the model. Prompts that share a picture are never in two folds; an answer counts where 5 groups of prompts or
    more have it, and a task where it has two of these. `redundancies` makes curves of it.

    Args:
        loaded: the model.
        prompts: a PromptSet, or any sequence of prompts with answers; those of a task are probed together (`Prompt.task`).
        batch_size: prompts of similar length that run together.
        seed: of the folds.
        on_progress: called after each batch, and before each layer whose probes are fitted; raising `Cancelled` in it stops the work.

    Raises:
        RecordingError: no task can be probed, with the reason, or the mean states take too much memory.
        PromptError: the model can take none of the prompts; others are set aside.
    """
    prompt_set = (prompts if isinstance(prompts, PromptSet) else PromptSet(prompts)).readable()
    progress, groups = on_progress or no_progress, prompt_set.groups.names
    _check_parts(prompt_set, groups, seed)
    states = _States(loaded, len(prompt_set), batch_size)
    kept = states.run(prompt_set, progress)
    parts, left_out = parts_of(
        [task_of(prompt_set[row]) for row in kept],
        [prompt_set[row].answer for row in kept],
        [groups[row] for row in kept],
        seed,
    )
    if not parts:
        raise none_to_probe(left_out)
    layers = count(1)
    total = len(PROBED) * len(parts) * loaded.n_layers

    def told() -> None:
        progress(next(layers), total, "fitting the probes")

    found = [probed(states.states[kept, group], parts, told) for group in range(len(PROBED))]
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows)
    chosen = [kept[row] for row in rows[order]]
    right, log_loss = (np.stack(one)[..., order] for one in zip(*found, strict=True))
    return AnswerProbe(
        loaded.info,
        prompt_set.fingerprint,
        ids=tuple(str(prompt_set[row].id) for row in chosen),
        domains=tuple(prompt_set[row].domain for row in chosen),
        tasks=tuple(prompt_set[row].task or "" for row in chosen),
        groups=tuple(groups[row] for row in chosen),
        right=right,
        log_loss=log_loss,
        parts=described(parts),
        left_out=left_out,
        set_aside=states.set_aside,
    )


def _check_parts(prompts: PromptSet, groups: Sequence[str], seed: int) -> None:
    """Refuse before the model runs what could not be probed behind it."""
    parts, left_out = parts_of(
        [task_of(prompt) for prompt in prompts], [prompt.answer for prompt in prompts], groups, seed
    )
    if not parts:
        raise none_to_probe(left_out)


class _States:
    """The mean states: `states` (n_prompts, 2, n_layers, 2, hidden) float32 are means over a prompt's vision, then text tokens."""

    def __init__(self, loaded: LoadedModel, n_prompts: int, batch_size: int) -> None:
        self.loaded, self.n_prompts, self.batch_size = loaded, n_prompts, batch_size
        self.passes = Passes(loaded, loaded.model, middles=False)
        self.set_aside = self.passes.set_aside
        self.states: np.ndarray = np.empty(0, np.float32)

    def run(self, prompts: PromptSet, progress: Progress) -> list[int]:
        """Run all prompts; returns the rows of those that the model took."""
        for first in range(0, len(prompts), CHUNK):
            rows, items = list[int](), list[Encoded]()
            for row in range(first, min(first + CHUNK, len(prompts))):
                try:
                    items.append(encode(self.loaded, prompts[row]))
                    rows.append(row)
                except PromptError as error:
                    self.set_aside[str(prompts[row].id)] = str(error)
            for indices in batches(items, self.batch_size) if items else ():
                self._batch([rows[index] for index in indices], [items[index] for index in indices])
            progress(min(first + CHUNK, len(prompts)), len(prompts), "reading mean states")
        kept = [row for row, prompt in enumerate(prompts) if str(prompt.id) not in self.set_aside]
        if not kept:
            raise none_left(self.loaded.name, self.set_aside)
        return kept

    @torch.inference_mode()
    def _batch(self, rows: list[int], items: list[Encoded]) -> None:
        for places, streams in self.passes.read(items):
            for index, place in enumerate(places):
                self._take(rows[place], index, items[place], streams)

    def _take(self, row: int, place: int, item: Encoded, streams: Streams) -> None:
        groups = item.group_mask()[[TOKEN_GROUPS.index(name) for name in PROBED]]
        with np.errstate(invalid="ignore"):
            weights = torch.from_numpy(groups / groups.sum(axis=1, keepdims=True)).to(
                streams.states.device
            )  # NaN without tokens
        for side, which in enumerate((INPUT, OUTPUT)):
            for layer in np.flatnonzero(streams.ran).tolist():
                means = weights @ streams.states[which, layer, place, : item.n_tokens].double()
                self._room(means.shape[1])[row, :, layer, side] = means.cpu().numpy()

    def _room(self, hidden: int) -> np.ndarray:
        if not self.states.size:
            shape = (self.n_prompts, len(PROBED), self.loaded.n_layers, 2, hidden)
            size, most = 4 * int(np.prod(shape)), free_memory() // SHARE
            if size > most:
                raise RecordingError(
                    f"The mean states of {self.n_prompts} prompts do not fit into memory: expected at most {most / 1e9:.1f} GB, got "
                    f"{size / 1e9:.1f} GB. Take fewer prompts."
                )
            self.states = np.full(shape, np.nan, np.float32)
        return self.states
