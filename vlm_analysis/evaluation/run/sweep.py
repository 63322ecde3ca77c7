"""Sweep: many edits on the same prompts in the time of a few.

What edits have in common is computed once: the prompts' inputs, the vision tower, and the first layers that edits keep alike (see
`shared_runs`). Logits are taken at answer positions only. What was scored can be kept on disk as it comes (see `score_store`), so that
an interrupted sweep continues where it stopped, and another one runs only what is new. Equal to evaluating each edit alone: to the
last bit with the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import transformers

from vlm_analysis.edits.edit import Edit, check_edit
from vlm_analysis.errors import EditError, PromptError
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.evaluation.run.evaluate import batch_for, check_reference, evaluation_of
from vlm_analysis.evaluation.run.metrics import AnswerScorer
from vlm_analysis.evaluation.run.prepared import Prepared, prepare
from vlm_analysis.evaluation.run.sharing import SharedRunner, ordered
from vlm_analysis.evaluation.scores import ScoreStore
from vlm_analysis.models.config import vision_targets
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.places import has_marks
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.words import counted

OnPartial = Callable[[int, Evaluation], None]


class Kept(Protocol):
    """Where scores go as they come: a ScoreStore, or what sends them on."""

    def lacks(self, key: str, rows: Sequence[int]) -> bool: ...
    def put(self, key: str, rows: Sequence[int], scores: Sequence[Mapping[str, Any]]) -> None: ...


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
        PromptError: the model can take none of the prompts; others are set aside (`Evaluation.set_aside`).
    """
    check_edits(edits, loaded.n_layers)
    prompt_set = prompts if isinstance(prompts, PromptSet) else PromptSet(prompts)
    check_reference(reference, loaded, prompt_set)
    batch_size = batch_size or batch_for(loaded)
    work = prepare(loaded, prompt_set, reference, on_progress=on_progress)
    store = open_scores(work, batch_size, folder)

    def partial(scores: ScoreStore) -> None:
        for number, edit in enumerate(edits):
            known = scores.of(edit.key)
            if work.has_prompt(known):
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


def check_edits(edits: Sequence[Edit], n_layers: int) -> None:
    """Check that there are several edits, and that each fits a model of so many layers.

    Raises:
        EditError: one does not, or it is a single edit.
    """
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
    header = score_header(loaded, work.prompts, batch_size)
    return ScoreStore(loaded.n_layers, len(work.encoded), folder, header, work.accepted)


def score_header(loaded: LoadedModel, prompts: PromptSet, batch_size: int) -> dict[str, Any]:
    """Return everything that a score depends on, as plain JSON."""
    numbered = vision_targets(
        loaded.model.config
    )  # version 0.1 gave these edits image features of other layers, and took marks for text
    return {
        "model": loaded.fingerprint,
        "prompts": prompts.fingerprint,
        "batch_size": batch_size,
        "max_vision_tokens": loaded.max_vision_tokens,
        "device": loaded.device.type,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **({"image_features": "each edit's own"} if numbered else {}),
        **({"images": "where the marks stand"} if any(has_marks(one.question) for one in prompts) else {}),
    }


def sweep_prepared(
    work: Prepared,
    edits: Sequence[Edit],
    dense: tuple[np.ndarray | None, ...] | None,
    *,
    store: ScoreStore,
    batch_size: int = 8,
    max_bytes: int | None = None,
    runner: SharedRunner | None = None,
    shard: tuple[int, int] = (1, 1),
    on_batch: Callable[[ScoreStore], None] | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Compute the missing scores of edits on prepared prompts into `store` (see `sweep`).

    `dense` are the prompts' dense log-probabilities; None runs the dense model too, in batches where a score is missing. `runner` is one
    that has run edits of this model before, whose views are used again. `shard` is (i, n) for the i-th of n shares of the batches, which
    are the same whatever n is. `on_batch` is called after each batch that ran.
    """
    progress = on_progress or no_progress
    different = ordered(edits)
    runner = runner or SharedRunner(work.loaded, max_bytes)
    parts = list(work.batches(batch_size))[shard[0] - 1 :: shard[1]]
    missing = [[edit for edit in different if store.lacks(edit.key, rows)] for rows in parts]
    done, total = 0, sum(map(len, missing))
    for turn, (rows, here) in enumerate(zip(parts, missing, strict=True)):
        if not here:
            continue
        words, ran, begun = f"part {turn + 1} of {len(parts)}", False, done
        progress(done, total, f"{words}, {counted(len(here), 'edit')}")
        for n_left in run_part(work, runner, rows, here, dense, store):
            ran, done = True, begun + len(here) - n_left  # others may be scored by another process meanwhile
            progress(done, total, f"{words}, {counted(len(here), 'edit')}")
        done = begun + len(here)
        if ran and on_batch is not None:
            on_batch(store)
    progress(total, total, "evaluated")


def run_part(
    work: Prepared,
    runner: SharedRunner,
    rows: list[int],
    edits: Sequence[Edit],
    dense: tuple[np.ndarray | None, ...] | None,
    store: Kept,
) -> Iterator[int]:
    """Score the edits on the rows of one batch; yields after each how many are left. Prompts that the model refuses are set aside."""
    while (rows := work.scored(rows)) and (left := [edit for edit in edits if store.lacks(edit.key, rows)]):
        plan = left if dense is not None else ordered([Edit(work.loaded.n_layers), *left])
        n_run, n_left = 0, len(left)
        try:
            items = [work.encoded[row] for row in rows]
            scorer: AnswerScorer | None = None
            if dense is not None:
                scorer = _scorer(work, rows, [dense[row] if row < len(dense) else None for row in rows])
            for edit, scored in runner.run(items, plan):
                scorer = scorer or _scorer(work, rows, scored)  # the dense model comes first in its plan
                n_run += 1
                if edit in left:
                    store.put(edit.key, rows, scorer.scores(scored, is_dense=edit.is_dense))
                    n_left -= 1
                    yield n_left
        except PromptError as error:
            work.refuse(rows, plan[min(n_run, len(plan) - 1)], error)


def _scorer(work: Prepared, rows: Sequence[int], dense: Sequence[np.ndarray | None]) -> AnswerScorer:
    """Return what scores edits on the rows of a batch against the dense model's log-probabilities; None for a choice."""
    return AnswerScorer(dense, [work.answers[row].ids for row in rows], work.loaded.end_tokens)
