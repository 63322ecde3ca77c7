"""Score every MLP neuron and attention group of a model on prompts (µCRASP, arXiv:2605.25842). Weights stay as they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import EditError, PromptError
from vlm_analysis.evaluation.pivots import (
    EACH,
    WINDOW,
    check_windows,
    even_splits,
    find_pivots,
    in_windows,
    pivot_tokens,
)
from vlm_analysis.evaluation.run.evaluate import batch_for
from vlm_analysis.evaluation.run.prepared import answer_logits, prepare, with_one_answer
from vlm_analysis.models.decoding import decode, token_spans
from vlm_analysis.models.layers import find_decoder_layers
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.memory import free_bytes, within_memory
from vlm_analysis.models.offload import is_offloaded
from vlm_analysis.models.widths import Part, find_attention, find_mlp
from vlm_analysis.progress import Cancelled, Progress, no_progress
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.recording.record import record
from vlm_analysis.recording.recording import Recording
from vlm_analysis.recovery.finetune.activations import kept_bytes
from vlm_analysis.recovery.memoryplan import MARGIN
from vlm_analysis.selection.width.kept import KeptSums
from vlm_analysis.selection.width.passes import GradientPasses, Sums, magnitudes
from vlm_analysis.selection.width.scores import EXACT, FAST, KV_GROUPS, NEURONS, UNITS, VALUES, WidthScores

WEIGHED = VALUES[:3]  # sums over answer tokens
_HALF = 2  # of the free memory, at most so much of it is for gradients; our choice


def score_width(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    *,
    window: int = WINDOW,
    sides: str = EACH,
    fast: bool = False,
    seed: int | None = None,
    recording: Recording | None = None,
    batch_size: int | None = None,
    folder: Path | None = None,
    on_progress: Progress | None = None,
) -> WidthScores:
    """Return what each MLP neuron and each attention group does to the answers (see `WidthScores`).

    One backward pass for each answer token, of all prompts of a batch at once; pivots cost nothing more, as their scores are sums of the
    same values. Where an answer has no mark of a step, it is split evenly as in the paper; one too short for that has no pivots.

    Args:
        loaded: the dense model; it is not changed.
        prompts: with answers that reason, where that is to be protected. One without an answer is scored on the dense model's response.
        window, sides: tokens of a window, on "each" side of a pivot or in "all" (see `in_windows`).
        fast: two backward passes a batch in place of one for each answer token: |the sum over a prompt's tokens|, which is another number.
        seed: of windows at random places, as many as there are around pivots, for comparison; with `fast` they take a pass more. None: no
            such windows.
        recording: of the same prompts by the same model, for CMDS and Sens; recorded anew without one.
        batch_size: prompts that run together; by default as many as fit into half of the free memory, `batch_for` the model at most.
        folder: where the sums so far are kept, so that the same call goes on after it was stopped.
        on_progress: called after each batch; raising `Cancelled` in it stops the work.

    Raises:
        EditError: no unit of the model can be cut, an option is out of range, the weights are quantised or not all in memory, numbers are
            not finite, or memory is too small.
        PromptError: the model can take none of the prompts; others are set aside (`WidthScores.set_aside`).
    """
    check_windows(window, sides, seed)
    _check(loaded)
    windows, progress = Windows(window, sides, seed), on_progress or no_progress
    return within_memory(
        lambda: _Work(loaded, prompts, windows, fast, progress).done(recording, batch_size, folder),
        lambda: EditError(
            f"The width of {loaded.name} could not be scored: expected enough memory for gradients, got less than it took. Take fewer "
            "prompts at a time (`batch_size`), shorter ones, or fewer vision tokens an image."
        ),
    )


def _check(loaded: LoadedModel) -> None:
    failed = f"The width of {loaded.name} cannot be scored"
    if loaded.quantiser is not None:
        raise EditError(
            f"{failed}: expected weights of numbers, got ones quantised with {loaded.quantiser}. Load the original."
        )
    if is_offloaded(loaded.model):
        raise EditError(
            f"{failed}: expected all weights in memory, got some that accelerate keeps elsewhere. Load the model whole."
        )


@dataclass(frozen=True)
class Windows:
    """Where an answer's tokens lie near a pivot, and near as many tokens drawn at random."""

    window: int
    sides: str
    seed: int | None

    def of(self, text: str, spans: Sequence[tuple[int, int]], place: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Return both as (n_tokens,) bool, and 0 for an answer with marks, 1 for one split evenly, 2 for one too short.

        Args:
            text, spans: of the answer, and of its tokens with the end token.
            place: of the prompt, which with the seed decides the draw.
        """
        n_tokens = len(spans)
        marked = pivot_tokens(find_pivots(text), spans)
        pivots = marked or even_splits(n_tokens, self.window)
        drawn: tuple[int, ...] = ()
        if self.seed is not None:
            draw = np.random.default_rng([self.seed, place])
            drawn = tuple(draw.choice(n_tokens, len(pivots), replace=False).tolist())
        near, random = (in_windows(n_tokens, chosen, self.window, self.sides) for chosen in (pivots, drawn))
        return near, random, 0 if marked else 1 if pivots else 2


class _Work:
    """Prompts made ready, and the sums over their answer tokens so far."""

    def __init__(
        self, loaded: LoadedModel, prompts: Sequence[Prompt], windows: Windows, fast: bool, progress: Progress
    ) -> None:
        self.loaded, self.windows, self.fast, self.progress = loaded, windows, fast, progress
        self.layers = find_decoder_layers(loaded.model)
        self.parts = _parts_of(loaded)
        self.given = prompts if isinstance(prompts, PromptSet) else PromptSet(prompts)
        self.prepared = prepare(loaded, PromptSet(map(with_one_answer, self.given.readable())), on_progress=progress)
        self.near: dict[int, tuple[np.ndarray, np.ndarray, int]] = {}
        for row in range(len(self.prepared.prompts)):
            spans = token_spans(loaded, ids := self.prepared.answers[row].ids)
            self.near[row] = self.windows.of(decode(loaded, ids), spans, row)
        self.totals = {place: np.zeros((len(WEIGHED), part.n)) for place, part in self.parts.items()}

    def done(self, recording: Recording | None, batch_size: int | None, folder: Path | None) -> WidthScores:
        """Run all batches; return the scores."""
        self._run(batch_size or self._batch(), folder)
        found = recording or record(
            self.loaded, self.prepared.prompts, batch_size=self._batch(), on_progress=self.progress
        )
        used = self.prepared.scored(range(len(self.prepared.prompts)))
        states = [self.near[row][2] for row in used]
        units = {unit: tuple(self._of(layer, unit) for layer in range(len(self.layers))) for unit in UNITS}
        if not all(np.isfinite(part).all() for parts in units.values() for part in parts):
            raise EditError(
                f"The width of {self.loaded.name} cannot be scored: expected finite gradients, got NaN or infinity. Load the model in "
                "bfloat16 or float32."
            )
        return WidthScores(
            self.loaded.info,
            self.given.fingerprint,
            **units,
            cmds=found.cross_modal_distance(),
            sens=found.layer_values("output_rms"),
            how=FAST if self.fast else EXACT,
            window=self.windows.window,
            sides=self.windows.sides,
            seed=self.windows.seed,
            answers=(states.count(0), states.count(1), states.count(2)),
            tokens=(sum(len(self.near[row][0]) for row in used), sum(int(self.near[row][0].sum()) for row in used)),
            set_aside=self.prepared.set_aside,
        )

    def _run(self, batch_size: int, folder: Path | None) -> None:
        """Add up all batches; those in a file in the folder are not run again."""
        batches = list(self.prepared.batches(batch_size))
        kept = None if folder is None else KeptSums(folder, self._named(batch_size))
        n_done, refused = kept.open(self.totals) if kept else (0, {})
        self.prepared.refused.update(refused)
        for number, rows in enumerate(batches[n_done:], start=n_done):
            self._add([row for row in rows if row < len(self.prepared.prompts)])
            done = number + 1
            try:
                self.progress(done, len(batches), "scoring neurons and attention groups")
            except Cancelled:
                if kept:
                    kept.keep(self.totals, done, self.prepared.refused, at_once=True)
                raise
            if kept:
                kept.keep(self.totals, done, self.prepared.refused, at_once=done == len(batches))

    def _named(self, batch_size: int) -> str:
        """Return a text with all that the sums depend on."""
        about = [self.loaded.fingerprint, self.given.fingerprint, self.fast, batch_size, *astuple(self.windows)]
        return json.dumps([*about, str(self.loaded.model.dtype)])

    def _batch(self) -> int:
        """Return how many prompts run together: `batch_for` the model, unless their gradients take more than half of the free memory."""
        rows = self.prepared.scored(range(len(self.prepared.prompts)))
        longest = self.prepared.encoded[max(rows, key=lambda row: self.prepared.encoded[row].n_tokens)]
        each = kept_bytes(
            self.loaded.model, lambda: answer_logits(self.loaded, self.loaded.model, [longest])
        )  # what is kept before the first layer is too much, on the safe side
        fitting = free_bytes(self.loaded.device) / _HALF / max(1, MARGIN * each)
        return max(1, min(batch_for(self.loaded), int(fitting)))

    def _add(self, rows: Sequence[int]) -> None:
        """Add a batch to the totals; prompts that the model refuses are set aside."""
        passes = None
        while passes is None and (rows := self.prepared.scored(rows)):
            try:
                passes = GradientPasses(self.loaded, [self.prepared.encoded[row] for row in rows], self.parts)
            except PromptError as error:
                self.prepared.refuse(rows, Edit(self.loaded.n_layers), error)
        if passes is None:
            return
        near = [np.stack([np.ones_like(self.near[row][0]), *self.near[row][:2]]).astype(float) for row in rows]
        if self.fast:
            for at in range(len(WEIGHED) - (self.windows.seed is None)):
                sums = passes.sums([torch.from_numpy(one[at]) for one in near])
                self._take(sums, np.repeat(np.eye(len(WEIGHED))[:, [at]], len(rows), axis=1))
        else:
            for token, sums in enumerate(passes.of_tokens()):
                zero = np.zeros(len(WEIGHED))
                self._take(sums, np.stack([one[:, token] if token < one.shape[1] else zero for one in near], axis=1))

    def _take(self, sums: Sums, weights: np.ndarray) -> None:
        """Add the absolute values of a pass to the totals, those of prompts weighed by (n_totals, n_prompts)."""
        for place, values in sums.items():
            self.totals[place] += weights @ values.abs().cpu().numpy()

    def _of(self, layer: int, unit: str) -> np.ndarray:
        """Return the values of a layer's units, (4, n_units)."""
        part = self.parts.get((layer, unit))
        if part is None:
            return np.zeros((len(WEIGHED) + 1, 0))
        return np.vstack([self.totals[layer, unit], magnitudes(self.layers[layer], unit, part).numpy()])


def _parts_of(loaded: LoadedModel) -> dict[tuple[int, str], Part]:
    """Return by layer and unit the parts that can be cut.

    Raises:
        EditError: there are none; the message gives the first reason.
    """
    parts: dict[tuple[int, str], Part] = {}
    widths = loaded.info.widths
    for layer, module in enumerate(find_decoder_layers(loaded.model)):
        for unit, find in ((NEURONS, find_mlp), (KV_GROUPS, find_attention)):
            if getattr(widths[layer], unit):
                part = find(module)
                assert isinstance(part, Part)  # it was counted
                parts[layer, unit] = part
    if not parts:
        raise EditError(
            f"The width of {loaded.name} cannot be scored: expected layers with neurons or attention groups that can be cut, got none: "
            f"{widths[0].mlp_locked}; {widths[0].attention_locked}. Drop layers instead."
        )
    return parts
