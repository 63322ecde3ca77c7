"""Sweep: many edits on the same prompts in the time of a few.

What edits have in common is computed once: the prompts' inputs, the vision tower, and the first layers that edits keep alike (see
`shared_runs`). Logits are taken at answer positions only. What was scored can be kept on disk as it comes (see `score_store`), so that
an interrupted sweep continues where it stopped, and another one runs only what is new. Equal to evaluating each edit alone: to the
last bit with the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from vlm_analysis.edits.edit import Edit, check_edit
from vlm_analysis.errors import EditError
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.evaluation.run.evaluate import (
    Prepared,
    answer_scores,
    batch_for,
    check_reference,
    evaluation_of,
    prepare,
)
from vlm_analysis.evaluation.run.sharing import SharedRunner, ordered
from vlm_analysis.evaluation.scores import ScoreStore
from vlm_analysis.models.config import vision_targets
from vlm_analysis.models.inputs import batches
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import Prompt, PromptSet

OnPartial = Callable[[int, Evaluation], None]


def sweep(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    edits: Sequence[Edit],
    *,
    reference: Evaluation | None = None,
    batch_size: int | None = None,
    max_bytes: int | None = None,
    folder: Path | None = None,
    on_partial: OnPartial | None = None,
    on_progress: Progress | None = None,
) -> Iterator[Evaluation]:
    """Yield the Evaluation of every edit, in the order of `edits`, equal to what `evaluate` gives edit by edit.

    Args:
        loaded: the dense model.
        prompts: a PromptSet, or any sequence of prompts. One without an answer is scored on the dense model's own response.
        edits: equal ones are evaluated once.
        reference: the dense Evaluation on the same prompts; with its log-probabilities the dense model is not run again.
        batch_size: prompts of similar length run together; `batch_for` the model by default.
        max_bytes: bound on the states kept for sharing, 1 GiB by default; with less, more is computed again.
        folder: where scores are kept as they come. Called again with the folder of a sweep that was cancelled or killed, or of one of
            other edits, only what is missing is run. Several processes may use one folder at once: what another has scored meanwhile is
            not run again. None: nothing is kept.
        on_partial: called after each batch with each edit's index and its Evaluation on the prompts so far.
        on_progress: counts edits times batches that are left to run; raising `Cancelled` in it stops the work.

    Raises:
        EvaluationError: the reference is not the dense evaluation of this model and these prompts, or the folder belongs to another.
        EditError: an edit does not fit the model.
        PromptError: the model cannot take a prompt.
    """
    _check_edits(edits, loaded.n_layers)
    prompt_set = prompts if isinstance(prompts, PromptSet) else PromptSet(prompts)
    check_reference(reference, loaded, prompt_set)
    batch_size = batch_size or batch_for(loaded)
    work = prepare(loaded, prompt_set, reference, on_progress=on_progress)
    store = open_scores(work, batch_size, folder)

    def partial(scores: ScoreStore) -> None:
        for number, edit in enumerate(edits):
            known = scores.of(edit.key)
            if any(row < len(prompt_set) for row in known):  # rows behind the prompts are choices
                on_partial(number, evaluation_of(work, edit, known))  # type: ignore[misc]

    sweep_prepared(
        work,
        edits,
        reference.dense_log_probs if reference else None,
        store=store,
        batch_size=batch_size,
        max_bytes=max_bytes,
        on_batch=None if on_partial is None else partial,
        on_progress=on_progress,
    )
    for edit in edits:
        yield evaluation_of(work, edit, store.of(edit.key))


def _check_edits(edits: Sequence[Edit], n_layers: int) -> None:
    if isinstance(edits, Edit):
        raise EditError(
            "There is one edit to sweep: expected several, as in [edit], got an Edit. Write [edit], or evaluate it."
        )
    for edit in edits:
        check_edit(edit, n_layers)


def open_scores(work: Prepared, batch_size: int, folder: Path | None = None) -> ScoreStore:
    """Return the store for scores of edits on prepared prompts, with those of the folder.

    Raises:
        EvaluationError: the folder holds scores of something else.
    """
    loaded = work.loaded
    return ScoreStore(loaded.n_layers, len(work.encoded), folder, score_header(loaded, work.prompts, batch_size))


def score_header(loaded: LoadedModel, prompts: PromptSet, batch_size: int) -> dict[str, Any]:
    """Return everything that a score depends on, as plain JSON."""
    numbered = vision_targets(loaded.model.config)  # version 0.1 gave these edits image features of other layers
    return {
        "model": loaded.fingerprint,
        "prompts": prompts.fingerprint,
        "batch_size": batch_size,
        "max_vision_tokens": loaded.max_vision_tokens,
        "device": loaded.device.type,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **({"image_features": "each edit's own"} if numbered else {}),
    }


def sweep_prepared(
    work: Prepared,
    edits: Sequence[Edit],
    dense: tuple[np.ndarray, ...] | None,
    *,
    store: ScoreStore,
    batch_size: int = 8,
    max_bytes: int | None = None,
    on_batch: Callable[[ScoreStore], None] | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Compute the missing scores of edits on prepared prompts into `store` (see `sweep`).

    `dense` are the prompts' dense log-probabilities; None runs the dense model too, in batches where a score is missing.
    `on_batch` is called after each batch that ran.
    """
    progress = on_progress or no_progress
    whole, ends = Edit(work.loaded.n_layers), work.loaded.end_tokens
    different = ordered(edits)
    runner = SharedRunner(work.loaded, max_bytes)
    parts = list(batches(work.encoded, batch_size))
    missing = [[edit for edit in different if store.lacks(edit.key, indices)] for indices in parts]
    done, total = 0, sum(map(len, missing))
    for turn, (indices, here) in enumerate(zip(parts, missing, strict=True)):
        if not here:
            continue
        remaining = [edit for edit in here if store.lacks(edit.key, indices)]
        done += len(here) - len(remaining)  # by another process meanwhile
        if not remaining:
            continue
        progress(done, total, f"part {turn + 1} of {len(parts)}, {len(remaining)} edits")
        items = [work.encoded[index] for index in indices]
        base: Sequence[np.ndarray | None] | None
        base = None if dense is None else [dense[index] if index < len(dense) else None for index in indices]
        for edit, scored in runner.run(items, remaining if dense is not None else ordered([whole, *remaining])):
            base = scored if base is None else base  # the dense model comes first in its plan
            if edit in remaining:
                rows = zip(indices, scored, base, strict=True)
                scores = [
                    answer_scores(
                        one, one if edit == whole and other is not None else other, work.answers[index].ids, ends
                    )
                    for index, one, other in rows
                ]
                store.put(edit.key, indices, scores)
                done += 1
                progress(done, total, f"part {turn + 1} of {len(parts)}, {len(remaining)} edits")
        if on_batch is not None:
            on_batch(store)
    progress(total, total, "evaluated")
