"""Record every measure of every decoder layer (`measures.MEASURES`) with one forward pass per prompt.

Rows are written to disk as they are measured (`rows`): a cancelled or killed recording continues where it stopped, and memory holds the
states of one batch, whatever the number of prompts.
"""

from __future__ import annotations

import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlm_analysis.errors import PromptError, RecordingError
from vlm_analysis.files import Owner
from vlm_analysis.models.inputs import (
    TEXT,
    VISION,
    Encoded,
    answer_tokens,
    batches,
    encode,
    image_grids,
)
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.refused import none_left
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.recording.attention import (
    AttentionMaps,
    eager_view,
    important_tokens,
    token_weights,
    visual_attention,
)
from vlm_analysis.recording.extending import checked_known, groups_of, settings_of, task_of
from vlm_analysis.recording.maps import TokenMap, copy_maps, write_map
from vlm_analysis.recording.measures import SHARES, empty_rows
from vlm_analysis.recording.passes import Passes
from vlm_analysis.recording.pooled import Pooled, Task, is_pooled, of_whole
from vlm_analysis.recording.recording import Activations, Recording
from vlm_analysis.recording.rows import RowsGoneError, RowStore, merged, opened_rows
from vlm_analysis.recording.similarity import PromptStreams, activations, fill_row, pooled
from vlm_analysis.recording.streams import Streams
from vlm_analysis.recording.towers import TowerWatch

CHUNK = 16  # prompts whose inputs are prepared together, so that those of similar length share a batch
FLUSH_S = 1.0  # rows are written at least this often
TRIES = 3  # attempts, if the folder is deleted meanwhile


def record(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    *,
    batch_size: int = 1,
    full: bool = True,
    attention: bool = False,
    token_maps: bool = False,
    known: Recording | None = None,
    folder: Path | None = None,
    shard: tuple[int, int] = (1, 1),
    on_progress: Progress | None = None,
) -> Recording:
    """Run every prompt once and return the measures of each decoder layer.

    A reference answer is appended to its prompt, so that the same pass measures the answer tokens. Hidden states are
    kept for one batch only. A prompt that the model or its processor refuses, or whose picture is gone, is set aside with the reason
    (`Recording.set_aside`).

    Args:
        loaded: the model; a pruned view can be recorded by putting it into a LoadedModel.
        prompts: a PromptSet, or any sequence of prompts.
        batch_size: prompts of similar length run together; padding belongs to no token group.
        full: all measures; False leaves out norms, sub-layers, HSIC and activations, and costs a little less.
        attention: also read attention maps, for the visual attention ratio and the similarity of important tokens. The decoder then
            uses eager attention, which is slower and may change the last bits of everything.
        token_maps: also keep every token's cosine (float16) on disk, to show single prompts.
        known: a recording of this model with these settings, of some of the prompts: only the others are run.
        folder: where rows are kept during the work. With the folder of a cancelled recording, only missing prompts
            are run. While another process (or thread) records into it, this one waits, and continues from its rows;
            if the folder is deleted meanwhile, it starts again. The recording keeps its rows when the folder is deleted; token maps
            are read from there. None: a temporary folder.
        shard: (i, n) records the i-th of n shares of the prompts only, in the same batches as all of them; `join_recordings` makes one of
            all shares.
        on_progress: called after each batch and while waiting; raising `Cancelled` in it stops the work and removes the hooks.

    Raises:
        PromptError: there are no prompts, or the model can take none of them.
        RecordingError: the share holds no prompt, the model ran no layer, `known` or `folder` belong to something else, or the folder
            cannot be written.
    """
    prompt_set = (prompts if isinstance(prompts, PromptSet) else PromptSet(prompts)).readable()
    keys = list(prompt_set.row_keys)
    share = set(share_of(keys, shard))
    settings = settings_of(loaded, batch_size, full=full, attention=attention, token_maps=token_maps)
    if not share:
        raise RecordingError(
            f"Share {shard[0]} of {shard[1]} holds no prompt: expected fewer shares. Take one with prompts."
        )
    inputs = _RecordInputs(
        loaded, prompt_set, keys, settings, checked_known(known, loaded, settings, prompt_set), share
    )
    own = tempfile.TemporaryDirectory(prefix="strata-") if folder is None else None
    rows_folder = Path(own.name if own else folder or "")
    try:
        recording = _record_in(rows_folder, inputs, on_progress or no_progress)
    except BaseException:
        if own is not None:
            own.cleanup()
        raise
    if own is not None and recording.maps is None:
        own.cleanup()
    elif own is not None:
        weakref.finalize(recording, own.cleanup)
    return recording


@dataclass(frozen=True)
class _RecordInputs:
    """The checked arguments of `record`."""

    loaded: LoadedModel
    prompts: PromptSet
    keys: list[str]
    settings: dict[str, Any]
    known: Recording | None
    share: set[str]


def share_of(keys: Sequence[str], shard: tuple[int, int]) -> list[str]:
    """Return the keys of the prompts of the i-th of n shares: every n-th chunk, so that batches are the same for any n."""
    number, n_shards = shard
    chunks = range(CHUNK * (number - 1), len(keys), CHUNK * n_shards)
    return [key for first in chunks for key in keys[first : first + CHUNK]]


def _record_in(folder: Path, inputs: _RecordInputs, progress: Progress) -> Recording:
    """Record in a folder; start again if it is deleted meanwhile, as by the process that owned it before."""
    for _ in range(TRIES - 1):
        try:
            return _record_once(folder, inputs, progress)
        except RowsGoneError:
            progress(0, len(inputs.keys), "starting again: the folder was deleted")
    return _record_once(folder, inputs, progress)


def _record_once(folder: Path, inputs: _RecordInputs, progress: Progress) -> Recording:
    loaded, known, keys = inputs.loaded, inputs.known, inputs.keys

    def wait(owner: Owner | None) -> None:
        progress(0, len(keys), f"waiting for {owner or 'another process'}, which records the same prompts")

    belongs = {"model": loaded.fingerprint, "settings": inputs.settings}
    with opened_rows(folder, belongs, loaded.n_layers, wait, loaded.n_tower) as store:
        if known is not None and (n_twice := len(store.keys & set(known.keys))):
            raise RecordingError(
                f"{n_twice} prompts are in the earlier recording and in {folder} too: expected each in one of them, or they would count "
                "twice. Leave out `known`, or name another folder."
            )
        maps = inputs.settings["token_maps"]
        if known is not None and maps:
            copy_maps(known.maps, folder, known.keys)
        present_keys = store.keys | (frozenset(known.keys) if known else frozenset())
        missing = [
            (key, prompt)
            for key, prompt in zip(keys, inputs.prompts, strict=True)
            if key in inputs.share - present_keys
        ]
        pools = is_pooled(map(task_of, inputs.prompts), inputs.settings)
        refused = _Pass(loaded, store, inputs.settings, pools).run(missing, len(keys), progress)
        set_aside = dict(inputs.prompts.set_aside) | refused
        recording = _make_recording(inputs, store, folder if maps else None, set_aside)
        return recording if missing or not maps else _with_own_maps(recording)


def _with_own_maps(recording: Recording) -> Recording:
    """Return the recording with copies of its token maps: the process that recorded them may be about to delete the folder."""
    assert recording.maps is not None
    own = tempfile.TemporaryDirectory(prefix="strata-")
    try:
        copy_maps(recording.maps, Path(own.name), recording.keys)
    except FileNotFoundError as error:
        own.cleanup()
        raise RowsGoneError(
            f"The recording in {recording.maps} stopped: expected all its token maps, got no {error.filename}. Delete the folder and "
            "record again."
        ) from error
    copy = replace(recording, maps=Path(own.name))
    weakref.finalize(copy, own.cleanup)
    return copy


def _make_recording(inputs: _RecordInputs, store: RowStore, maps: Path | None, set_aside: dict[str, str]) -> Recording:
    known, prompts = inputs.known, inputs.prompts
    pairs = zip(inputs.keys, prompts, strict=True)
    kept = [(key, prompt) for key, prompt in pairs if key in inputs.share and prompt.id not in set_aside]
    if not kept:
        raise none_left(inputs.loaded.name, set_aside)
    sums = merged(known.activations if known else {}, store.activations)
    states = merged(known.pooled if known else {}, store.pooled)
    return Recording(
        model=inputs.loaded.info,
        prompts=prompts.fingerprint,
        prompt_ids=tuple(str(prompt.id) for _, prompt in kept),
        domains=tuple(prompt.domain for _, prompt in kept),
        rows=store.assembled([key for key, _ in kept], known),
        settings=inputs.settings,
        activations={domain: sums[domain] for domain in prompts.domains if domain in sums},
        maps=maps,
        lacks=store.lacks,
        groups=groups_of(prompts, [str(prompt.id) for _, prompt in kept]),
        ties=tuple(sorted(prompts.groups.known)),
        set_aside=set_aside,
        tasks=prompts.tasks and tuple(prompt.task or "" for _, prompt in kept),
        pooled=of_whole(states, [task_of(prompt) for _, prompt in kept]),
    )


def record_rows(
    loaded: LoadedModel,
    keyed_prompts: Sequence[tuple[str, Prompt]],
    folder: Path,
    *,
    settings: dict[str, Any],
    pools: bool,
) -> dict[str, str]:
    """Record some prompts of a set, each with its key, into the rows of a folder of its own; see `record` for the rest.

    `pools` tells whether the mean states of tasks are kept, which the whole set decides. Returns by id the prompts that the model refuses.
    """
    belongs = {"model": loaded.fingerprint, "settings": settings}
    with opened_rows(folder, belongs, loaded.n_layers, lambda owner: None, loaded.n_tower) as store:
        return _Pass(loaded, store, settings, pools).run(list(keyed_prompts), len(keyed_prompts), no_progress)


class _Pass:
    """What one recording makes of the streams of its prompts, and the store of the rows."""

    def __init__(self, loaded: LoadedModel, store: RowStore, settings: dict[str, Any], pools: bool) -> None:
        self.loaded, self.store, self.settings, self.pools = loaded, store, settings, pools
        model = eager_view(loaded.model) if settings["attention"] else loaded.model
        self.attention = AttentionMaps(model) if settings["attention"] else None
        self.tower = TowerWatch(model)
        self.passes = Passes(loaded, model, middles=settings["full"], beside=self._beside)
        self.pending: list[np.ndarray] = []
        self.sums: dict[str, Activations] = {}
        self.states: dict[Task, Pooled] = {}
        self.written = time.monotonic()

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """Watch what is read beside the streams of decoder layers."""
        with ExitStack() as stack:
            stack.enter_context(self.tower.watching())
            if self.attention is not None:
                stack.enter_context(self.attention.watching())
            yield

    def run(self, missing: list[tuple[str, Prompt]], total: int, progress: Progress) -> dict[str, str]:
        """Record the missing prompts, chunk by chunk; measured rows are always written.

        Returns by id the prompts that the model refuses, each with the reason.
        """
        done = total - len(missing)
        progress(done, total, "recording")
        try:
            for first in range(0, len(missing), CHUNK):
                chunk, encoded = [], []
                for key, prompt in missing[first : first + CHUNK]:
                    try:
                        answer_ids = answer_tokens(self.loaded, prompt.answer, prompt.id)
                        encoded.append(encode(self.loaded, prompt, answer_ids))
                        chunk.append((key, prompt))
                    except PromptError as error:
                        self.passes.set_aside[str(prompt.id)] = str(error)
                        done += 1
                    progress(done, total, "recording")
                for indices in batches(encoded, self.settings["batch_size"]):
                    self._batch([chunk[index] for index in indices], [encoded[index] for index in indices])
                    done += len(indices)
                    self._write(FLUSH_S)
                    progress(done, total, "recording")
        finally:
            self._write(0)
        return self.passes.set_aside

    def _write(self, after_s: float) -> None:
        """Write the rows measured since the last write, unless that was less than `after_s` ago."""
        now = time.monotonic()
        if self.pending and now - self.written >= after_s:
            rows, sums, states = np.concatenate(self.pending), self.sums, self.states
            self.pending, self.sums, self.states, self.written = [], {}, {}, now
            self.store.append(rows, sums, states)

    @torch.inference_mode()
    def _batch(self, keyed_prompts: list[tuple[str, Prompt]], items: list[Encoded]) -> None:
        for places, streams in self.passes.read(items):
            self._take([keyed_prompts[place] for place in places], [items[place] for place in places], streams)

    def _take(self, keyed_prompts: list[tuple[str, Prompt]], items: list[Encoded], streams: Streams) -> None:
        rows = empty_rows(len(items), self.loaded.n_layers, len(self.tower.layers))
        rows["tower_cosine"] = self.tower.means(items)
        sums, states = self.sums, self.states
        for index, ((key, prompt), item) in enumerate(zip(keyed_prompts, items, strict=True)):
            rows["key"][index] = key.encode()
            part, state = self._row(rows[index], key, index, item, streams)
            sums = sums if part is None else merged(sums, {prompt.domain: part})
            states = states if state is None else merged(states, {task_of(prompt): state})
        self.pending.append(rows)
        self.sums, self.states = sums, states

    def _row(
        self, row: np.void, key: str, index: int, item: Encoded, streams: Streams
    ) -> tuple[Activations | None, Pooled | None]:
        """Fill one prompt's row; returns its part of the activation sums, and its pooled states."""
        states, groups = streams.states[:, :, index, : item.n_tokens], item.group_mask()
        ran, has_middle = np.array(streams.ran), np.array(streams.has_middle)
        prompt = PromptStreams(states[0], states[1], states[2], ran, has_middle)
        cosines = fill_row(row, prompt, groups, full=self.settings["full"])
        if self.attention is not None:
            self._fill_attention(row, index, item, cosines)
        if self.settings["token_maps"]:
            texts = self.loaded.processor.tokenizer.convert_ids_to_tokens(item.tensors["input_ids"][0].tolist())
            half = cosines.half().cpu().numpy()
            half[~ran] = np.nan
            write_map(self.store.folder, key, TokenMap(half, item.kinds, tuple(texts), image_grids(item, self.loaded)))
        state = Pooled(pooled(prompt, groups), 1) if self.pools else None
        result = activations(prompt, groups) if self.settings["full"] else None
        if result is None:
            return None, state
        row["cross_modal"], part = result
        return part, state

    def _fill_attention(self, row: np.void, index: int, item: Encoded, cosines: torch.Tensor) -> None:
        assert self.attention is not None
        n = item.n_prompt_tokens
        kinds = torch.from_numpy(item.kinds[:n])
        for layer, attention in enumerate(self.attention.maps):
            if attention is None:
                continue
            own = attention[index, :n, :n].cpu()
            vision, text = kinds == VISION, kinds == TEXT
            row["visual_attention"][layer] = visual_attention(own, vision, text)
            weights = token_weights(own, vision, text).numpy()
            values = cosines[layer, :n].double().cpu().numpy()
            row["important_cosine"][layer] = [values[important_tokens(weights, share)].mean() for share in SHARES]
