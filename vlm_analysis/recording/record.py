"""Recording: one forward pass per prompt tells every measure of every decoder layer (`measures.MEASURES`).

Rows go to disk as they come (`rows`), so that a cancelled or killed recording is taken up where it stopped, and memory holds the
states of one batch, whatever the number of prompts.
"""

from __future__ import annotations

import tempfile
import time
import weakref
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlm_analysis.errors import RecordingError
from vlm_analysis.files import Owner
from vlm_analysis.models.inputs import (
    TEXT,
    VISION,
    Encoded,
    answer_tokens,
    batches,
    collate,
    encode,
    image_grids,
    pad_token,
    takes_logits_to_keep,
)
from vlm_analysis.models.interrupt import interruptible
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.recording.attention import (
    AttentionMaps,
    eager_view,
    important_tokens,
    token_weights,
    visual_attention,
)
from vlm_analysis.recording.maps import TokenMap, copy_maps, write_map
from vlm_analysis.recording.measures import DELTAS, SHARES, SINK_FACTOR, empty_rows
from vlm_analysis.recording.recording import Activations, Recording
from vlm_analysis.recording.rows import RowsGoneError, RowStore, opened_rows
from vlm_analysis.recording.similarity import PromptStreams, activations, fill_row
from vlm_analysis.recording.streams import LayerWatch, Streams

CHUNK = 16  # prompts whose inputs are prepared together, so that those of like length share a batch
FLUSH_S = 1.0  # rows are written at least this often
TRIES = 3  # beginnings, where the folder is deleted at work


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
    on_progress: Progress | None = None,
) -> Recording:
    """Run every prompt once and return what that told about each decoder layer.

    A reference answer is appended to its prompt, so that the answer tokens are seen in the same pass. Hidden states are
    kept for one batch only.

    Args:
        loaded: the model; a pruned view can be recorded by putting it into a LoadedModel.
        prompts: a PromptSet, or any sequence of prompts.
        batch_size: prompts of like length run together; padding belongs to no token group.
        full: all measures; False leaves out norms, sub-layers, HSIC and activations, and costs a little less.
        attention: also read attention maps, for the visual attention ratio and the similarity of important tokens. The decoder then
            computes attention in the open, which is slower and may change the last bits of everything.
        token_maps: also keep every token's cosine (float16) on disk, for looking at single prompts.
        known: a recording of this model with these settings, of some of the prompts: only the others are run.
        folder: where rows are kept while the work goes on. Called again with the folder of a cancelled recording, only what is missing
            is run. While another process (or thread) records into it, this one waits, and goes on with what that one has finished;
            where the folder is deleted meanwhile, it begins again. The recording keeps its rows when the folder goes; token maps it
            reads from there. None: a temporary folder.
        on_progress: called after each batch and while waiting; raising `Cancelled` in it stops the work and removes the hooks.

    Raises:
        PromptError: no prompts, or a prompt that this model cannot be asked.
        RecordingError: the model ran no layer, `known` or `folder` belong to something else, or the folder cannot be written.
    """
    prompt_set = prompts if isinstance(prompts, PromptSet) else PromptSet(prompts)
    keys = list(prompt_set.row_keys)
    settings = _settings(loaded, batch_size, full=full, attention=attention, token_maps=token_maps)
    asked = _Asked(loaded, prompt_set, keys, settings, _checked_known(known, loaded, settings, keys))
    own = tempfile.TemporaryDirectory(prefix="strata-") if folder is None else None
    place = Path(own.name if own else folder or "")
    try:
        made = _made_in(place, asked, on_progress or no_progress)
    except BaseException:
        if own is not None:
            own.cleanup()
        raise
    if own is not None and made.maps is None:
        own.cleanup()
    elif own is not None:
        weakref.finalize(made, own.cleanup)
    return made


@dataclass(frozen=True)
class _Asked:
    """What is to be recorded: the arguments of `record`, checked."""

    loaded: LoadedModel
    prompts: PromptSet
    keys: list[str]
    settings: dict[str, Any]
    known: Recording | None


def _made_in(place: Path, asked: _Asked, report: Progress) -> Recording:
    """Return the recording, made in a folder; begun again where that is deleted meanwhile, as by the process that was waited for."""
    for _ in range(TRIES - 1):
        try:
            return _made_at_once(place, asked, report)
        except RowsGoneError:
            report(0, len(asked.keys), "beginning again: the folder was deleted")
    return _made_at_once(place, asked, report)


def _made_at_once(place: Path, asked: _Asked, report: Progress) -> Recording:
    loaded, known, keys = asked.loaded, asked.known, asked.keys

    def wait(owner: Owner | None) -> None:
        report(0, len(keys), f"waiting for {owner or 'another process'}, which records the same prompts")

    belongs = {"model": loaded.fingerprint, "settings": asked.settings}
    with opened_rows(place, belongs, loaded.n_layers, wait) as store:
        if known is not None and (twice := len(store.keys & set(known.keys))):
            raise RecordingError(
                f"{twice} prompts are in the earlier recording and in {place} too: expected each in one of them, or they would count "
                "twice. Leave out `known`, or name another folder."
            )
        maps = asked.settings["token_maps"]
        if known is not None and maps:
            copy_maps(known.maps, place, known.keys)
        there = store.keys | (frozenset(known.keys) if known else frozenset())
        missing = [(key, prompt) for key, prompt in zip(keys, asked.prompts, strict=True) if key not in there]
        _Pass(loaded, store, asked.settings).run(missing, len(keys), report)
        made = _finished(asked, store, place if maps else None)
        return made if missing or not maps else _with_own_maps(made)


def _with_own_maps(made: Recording) -> Recording:
    """Return the recording with copies of its token maps: who recorded them in this folder may be about to delete it."""
    assert made.maps is not None
    own = tempfile.TemporaryDirectory(prefix="strata-")
    try:
        copy_maps(made.maps, Path(own.name), made.keys)
    except FileNotFoundError as error:
        own.cleanup()
        raise RowsGoneError(
            f"The recording in {made.maps} stopped: expected all its token maps, got no {error.filename}. Delete the folder and "
            "record again."
        ) from error
    copied = replace(made, maps=Path(own.name))
    weakref.finalize(copied, own.cleanup)
    return copied


def _settings(loaded: LoadedModel, batch_size: int, **parts: bool) -> dict[str, Any]:
    return {
        "max_vision_tokens": loaded.max_vision_tokens,
        "batch_size": batch_size,
        **parts,
        "deltas": list(DELTAS),
        "shares": list(SHARES),
        "sink_factor": SINK_FACTOR,
    }


def _checked_known(
    known: Recording | None, loaded: LoadedModel, settings: dict[str, Any], keys: list[str]
) -> Recording | None:
    if known is None:
        return None
    apart = [name for name, value in settings.items() if known.settings.get(name) != value] + list(known.lacks)
    if known.model.fingerprint != loaded.fingerprint or apart:
        raise RecordingError(
            f"The recording cannot be extended: expected one of {loaded.name} with the same settings, got one of "
            f"{known.model.name} that differs in {', '.join(apart) or 'the model'}. Record all prompts anew."
        )
    strange = sum(key not in set(keys) for key in known.keys)
    if strange:
        raise RecordingError(
            f"The recording cannot be extended: {strange} of its {known.n_prompts} prompts are not among those to record. "
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
    """Return the recording that spares most work when handed to `record` as `known` with the same options, or None."""
    settings = _settings(loaded, batch_size, full=full, attention=attention, token_maps=token_maps)
    keys = list(prompts.row_keys)
    best: Recording | None = None
    for recording in earlier:
        try:
            _checked_known(recording, loaded, settings, keys)
        except RecordingError:
            continue
        best = recording if best is None or recording.n_prompts > best.n_prompts else best
    return best


def _finished(asked: _Asked, store: RowStore, maps: Path | None) -> Recording:
    known, prompts = asked.known, asked.prompts
    sums = dict(known.activations) if known else {}
    for domain, part in store.activations.items():
        sums[domain] = sums[domain] + part if domain in sums else part
    return Recording(
        model=asked.loaded.info,
        prompts=prompts.fingerprint,
        prompt_ids=tuple(str(prompt.id) for prompt in prompts),
        domains=tuple(prompt.domain for prompt in prompts),
        rows=store.assembled(asked.keys, known),
        settings=asked.settings,
        activations={domain: sums[domain] for domain in prompts.domains if domain in sums},
        maps=maps,
        lacks=store.lacks,
    )


class _Pass:
    """The forward passes of one recording: hooks, the model that runs, and where rows go."""

    def __init__(self, loaded: LoadedModel, store: RowStore, settings: dict[str, Any]) -> None:
        self.loaded, self.store, self.settings = loaded, store, settings
        self.model = eager_view(loaded.model) if settings["attention"] else loaded.model
        self.watch = LayerWatch(self.model, middles=settings["full"])
        self.attention = AttentionMaps(self.model) if settings["attention"] else None
        self.pending: list[np.ndarray] = []
        self.sums: dict[str, Activations] = {}
        self.written = time.monotonic()
        self.keep = {"logits_to_keep": 1} if takes_logits_to_keep(self.model) else {}

    def run(self, missing: list[tuple[str, Prompt]], total: int, report: Progress) -> None:
        """Record the missing prompts, chunk by chunk; what was measured is written whatever happens."""
        done = total - len(missing)
        report(done, total, "recording")
        try:
            for first in range(0, len(missing), CHUNK):
                chunk = missing[first : first + CHUNK]
                encoded = []
                for _, prompt in chunk:
                    encoded.append(encode(self.loaded, prompt, answer_tokens(self.loaded, prompt.answer)))
                    report(done, total, "recording")
                for places in batches(encoded, self.settings["batch_size"]):
                    self._batch([chunk[place] for place in places], [encoded[place] for place in places])
                    done += len(places)
                    self._write(FLUSH_S)
                    report(done, total, "recording")
        finally:
            self._write(0)

    def _write(self, after_s: float) -> None:
        """Hand the rows measured since the last writing to the store, unless that was less than `after_s` ago."""
        now = time.monotonic()
        if self.pending and now - self.written >= after_s:
            rows, sums = np.concatenate(self.pending), self.sums
            self.pending, self.sums, self.written = [], {}, now
            self.store.append(rows, sums)

    @torch.inference_mode()
    def _batch(self, named: list[tuple[str, Prompt]], items: list[Encoded]) -> None:
        streams = self._run(items)
        if streams.uneven and self.keep:  # tokens were left out because one logit was asked for
            self.keep = {}
            streams = self._run(items)
        if streams.uneven:
            raise RecordingError(f"{self.loaded.name} hands its layers different tokens: they cannot be compared.")
        if not any(streams.ran):
            raise RecordingError(
                f"{self.loaded.name} ran none of its {self.loaded.n_layers} decoder layers: nothing could be recorded."
            )
        rows, sums = empty_rows(len(items), self.loaded.n_layers), dict(self.sums)
        for place, ((key, prompt), item) in enumerate(zip(named, items, strict=True)):
            rows["key"][place] = key.encode()
            part = self._row(rows[place], key, place, item, streams)
            if part is not None:
                sums[prompt.domain] = sums[prompt.domain] + part if prompt.domain in sums else part
        self.pending.append(rows)
        self.sums = sums

    def _run(self, items: list[Encoded]) -> Streams:
        batch = collate(items, pad_token(self.loaded))
        with ExitStack() as stack:
            streams = stack.enter_context(self.watch.watching(batch["input_ids"].shape))
            if self.attention is not None:
                stack.enter_context(self.attention.watching())
            stack.enter_context(interruptible(self.model))
            self.model(**batch, **self.keep, use_cache=False)
        return streams

    def _row(self, row: np.void, key: str, place: int, item: Encoded, streams: Streams) -> Activations | None:
        """Fill one prompt's row; returns its part of the activation sums."""
        states, groups = streams.states[:, :, place, : item.n_tokens], item.group_mask()
        ran, has_middle = np.array(streams.ran), np.array(streams.has_middle)
        prompt = PromptStreams(states[0], states[1], states[2], ran, has_middle)
        cosines = fill_row(row, prompt, groups, full=self.settings["full"])
        if self.attention is not None:
            self._fill_attention(row, place, item, cosines)
        if self.settings["token_maps"]:
            texts = self.loaded.processor.tokenizer.convert_ids_to_tokens(item.tensors["input_ids"][0].tolist())
            half = cosines.half().cpu().numpy()
            half[~ran] = np.nan
            write_map(self.store.folder, key, TokenMap(half, item.kinds, tuple(texts), image_grids(item, self.loaded)))
        found = activations(prompt, groups) if self.settings["full"] else None
        if found is None:
            return None
        row["cross_modal"], part = found
        return part

    def _fill_attention(self, row: np.void, place: int, item: Encoded, cosines: torch.Tensor) -> None:
        assert self.attention is not None
        n = item.n_prompt_tokens
        kinds = torch.from_numpy(item.kinds[:n])
        for index, attention in enumerate(self.attention.maps):
            if attention is None:
                continue
            own = attention[place, :n, :n].cpu()
            vision, text = kinds == VISION, kinds == TEXT
            row["visual_attention"][index] = visual_attention(own, vision, text)
            weights = token_weights(own, vision, text).numpy()
            values = cosines[index, :n].double().cpu().numpy()
            row["important_cosine"][index] = [values[important_tokens(weights, share)].mean() for share in SHARES]
