"""Evaluations with memory: the dense model's once for each prompt set, and the scores of edits, kept for good."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from vlm_analysis.edits.edit import Edit
from vlm_analysis.evaluation.evaluation import METRICS, Evaluation
from vlm_analysis.progress import Progress
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.details import edit_key
from vlm_analysis.workbench.shelf import (
    find_dense,
    keep_dense,
    keep_evaluation,
    open_whole,
    scores_folder,
    whole_items,
)
from vlm_analysis.workbench.stale import is_stale
from vlm_analysis.workbench.workspace import Item

if TYPE_CHECKING:
    from vlm_analysis.evaluation.scores import ScoreStore

MAX_WRITTEN = 200  # prompts; above that, responses are written when asked for

OnPartial = Callable[[int, Evaluation], None]
"""Called after each batch with an edit's index and its Evaluation on the prompts so far."""


class Scorer(Protocol):
    """The function that `scorer` returns: it takes edits and returns their Evaluations in the same order."""

    def __call__(self, edits: Sequence[Edit], on_partial: OnPartial | None = None) -> list[Evaluation]: ...


def evaluate_edit(
    desk: Desk,
    prompts: Item,
    edit: Edit,
    progress: Progress,
    *,
    name: str = "",
    responses: bool = False,
    on_partial: Callable[[Evaluation, Evaluation], None] | None = None,
) -> Item:
    """Evaluate the dense model, if needed, and an edit; return the Item of the edit's evaluation.

    `on_partial` gets the scores and the dense model's before the responses are written.
    """
    dense, evaluation = scorer(desk, prompts, progress)([Edit(edit.n_layers), edit])
    evaluation = replace(evaluation, edit=edit)  # under its own name, where it changes nothing too
    if on_partial is not None:
        on_partial(evaluation, dense)
    if responses:
        prompt_set = desk.open_prompts(prompts)
        if "response" not in dense.by_prompt:
            dense_evaluation(desk, prompt_set, prompts.name, progress, responses=True)
        evaluation = with_responses(desk, prompt_set, evaluation, progress)
    return keep_evaluation(desk.shelf, evaluation, name or f"{edit.name or 'unnamed mask'} on {prompts.name}")


def dense_evaluation(
    desk: Desk, prompts: PromptSet, name: str, progress: Progress, *, responses: bool = False
) -> Evaluation:
    """Return the dense evaluation on these prompts: computed once per loaded model, and saved unless a whole one is saved already.

    With `responses`, missing responses are written and saved too.
    """
    slot = desk.slot
    known = slot.dense.get(prompts.fingerprint)
    if known is None:
        begun = time.monotonic()
        known = _dense_here(desk, prompts, progress) if desk.crew is None else _dense_on_crew(desk, prompts, progress)
        slot.seen.add(prompts.fingerprint, len(prompts), time.monotonic() - begun)
        slot.dense[prompts.fingerprint] = known
    keep_dense(desk.shelf, known, name)
    if responses and "response" not in known.by_prompt:
        known = with_responses(desk, prompts, known, progress)
        slot.dense[prompts.fingerprint] = known
        keep_dense(desk.shelf, known, name)
    return known


def _dense_here(desk: Desk, prompts: PromptSet, progress: Progress) -> Evaluation:
    from vlm_analysis.evaluation.run.evaluate import batch_for, evaluate_prepared

    work = desk.ready(prompts, None, progress)
    dense = Edit(desk.loaded.n_layers)
    return evaluate_prepared(work, dense, None, batch_size=batch_for(desk.loaded), on_progress=progress)


def _dense_on_crew(desk: Desk, prompts: PromptSet, progress: Progress) -> Evaluation:
    """Return the dense evaluation by the workers of a cluster, without log-probabilities: they stay there."""
    from vlm_analysis.evaluation.run.evaluate import batch_for, evaluation_of
    from vlm_analysis.evaluation.run.sweep import open_scores
    from vlm_analysis.workbench.cluster.doors import model_of, score_on

    assert desk.crew is not None
    dense, batch = Edit(desk.loaded.n_layers), batch_for(desk.loaded)
    work = desk.ready(prompts, None, progress)
    store = open_scores(work, batch, scores_folder(desk.shelf, desk.loaded, prompts))
    how: dict[str, Any] = {"store": store, "batch_size": batch, "on_batch": None}
    score_on(desk.crew, model_of(desk.slot), work, [dense], **how, progress=progress)
    return evaluation_of(work, dense, store.of(dense.key))


def known_dense(desk: Desk, prompts: str, *, responses: bool = False) -> Evaluation | None:
    """Return the dense evaluation on a prompt set (by its fingerprint) from memory, else the saved one; None if there is none.

    A saved one has no log-probabilities. With `responses`, one without responses does not count.
    """
    item = find_dense(desk.shelf, desk.model, prompts)
    for evaluation in (desk.slot.dense.get(prompts), None if item is None else open_whole(item)):
        if evaluation is not None and (not responses or "response" in evaluation.by_prompt):
            return evaluation
    return None


def scorer(desk: Desk, prompts_item: Item, progress: Progress, on_dense: Progress | None = None) -> Scorer:
    """Return a function that evaluates edits on the prompts; inputs are prepared once, and scores are kept for good.

    If all scores are known, and the dense model was evaluated in another process, the model does not run.
    `on_dense` gets the dense model's progress in place of `progress` when it runs among the edits.
    """
    from vlm_analysis.evaluation.run.evaluate import batch_for, evaluation_of
    from vlm_analysis.evaluation.run.sweep import open_scores, sweep_prepared
    from vlm_analysis.workbench.cluster.doors import model_of, score_on

    loaded, prompts = desk.loaded, desk.open_prompts(prompts_item)
    dense = _saved_reference(desk, prompts) or dense_evaluation(desk, prompts, prompts_item.name, progress)
    begun = time.monotonic()
    ready = desk.ready(prompts, dense, lambda *_: progress(0, 1, "preparing the prompts"))
    batch = batch_for(loaded)
    store = open_scores(ready, batch, scores_folder(desk.shelf, loaded, prompts))
    preparing_s = time.monotonic() - begun

    def score(edits: Sequence[Edit], on_partial: OnPartial | None = None) -> list[Evaluation]:
        nonlocal dense
        changed = [edit for edit in edits if not edit.is_dense]
        rows = ready.scored(range(len(ready.encoded)))
        missing = [edit for edit in changed if store.lacks(edit.key, rows)]
        whole = len(missing) == 1 and not store.of(missing[0].key)
        if missing:
            dense = dense_evaluation(
                desk, prompts, prompts_item.name, on_dense or progress
            )  # for its log-probabilities
            ready.take_over(dense)

        def partial(scores: ScoreStore) -> None:
            for number, edit in enumerate(edits):
                known = scores.of(edit.key)
                if on_partial is not None and ready.has_prompt(known):
                    on_partial(number, evaluation_of(ready, edit, known))

        begun = time.monotonic()
        on_batch = None if on_partial is None else partial
        how: dict[str, Any] = {"store": store, "batch_size": batch, "on_batch": on_batch}
        if desk.crew is None:
            sweep_prepared(ready, changed, dense.dense_log_probs, **how, on_progress=progress)
        else:
            score_on(desk.crew, model_of(desk.slot), ready, changed, **how, progress=progress)
        if whole:
            desk.slot.seen.add(prompts.fingerprint, len(prompts), preparing_s + time.monotonic() - begun)
        return [dense if edit.is_dense else evaluation_of(ready, edit, store.of(edit.key)) for edit in edits]

    return score


def _saved_reference(desk: Desk, prompts: PromptSet) -> Evaluation | None:
    """Return the saved dense evaluation if none is in memory and all prompts have answers; others depend on the machine."""
    if prompts.fingerprint in desk.slot.dense:
        return None
    item = find_dense(desk.shelf, desk.model, prompts.fingerprint)
    evaluation: Evaluation | None = None if item is None else open_whole(item)
    all_answered = all(prompt.answer is not None for prompt in prompts)
    return evaluation if all_answered else None


def with_responses(desk: Desk, prompts: PromptSet, evaluation: Evaluation, progress: Progress) -> Evaluation:
    """Return the evaluation with responses: those of a saved one with the same scores to the last bit, else the model writes them."""
    from vlm_analysis.evaluation.run.evaluate import write_responses

    scores = [*METRICS, "answer"]
    for known in _whole_evaluations(desk, evaluation.edit.key, evaluation.prompts):
        if "response" in known.by_prompt and known.by_prompt[scores].equals(evaluation.by_prompt[scores]):
            return replace(evaluation, by_prompt=known.by_prompt)
    return write_responses(desk.loaded, prompts, evaluation, on_progress=progress)


def _whole_evaluations(desk: Desk, key: str, prompts: str) -> Iterator[Evaluation]:
    """Yield the saved evaluations of an edit on a prompt set that open, newest first."""
    items = (item for item in desk.shelf.items("evaluations") if (item.model, item.prompts) == (desk.model, prompts))
    same = (item for item in items if edit_key(item.details) == key and not is_stale(desk.shelf, item))
    yield from (evaluation for _, evaluation in whole_items(same))
