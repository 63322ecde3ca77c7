"""The whole flow as one call: record, score, mask, prune, evaluate, and tell the story."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import EvaluationError, MaskError, RecordingError
from vlm_analysis.evaluation.evaluation import METRICS, Evaluation, with_groups
from vlm_analysis.export.story import Story, story_of
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.halves import n_shared
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.compared.comparison import CHOICE_METRICS, EXAMPLES, Comparison, ways_frame
from vlm_analysis.selection.criteria.scores import LayerScores
from vlm_analysis.selection.criteria.scoring import score_layers
from vlm_analysis.selection.strategies.make import make_mask
from vlm_analysis.selection.strategies.many import RANDOM, Way
from vlm_analysis.words import counted

if TYPE_CHECKING:
    from vlm_analysis.evaluation.run.prepared import Prepared
    from vlm_analysis.evaluation.run.sharing import SharedRunner
    from vlm_analysis.evaluation.scores import ScoreStore
    from vlm_analysis.models.load import LoadedModel

RANDOM_DRAWS = 3
N_EXAMPLES = 6


def compare(
    loaded: LoadedModel,
    prompts: PromptSet,
    *,
    rows: Path | None = None,
    scores: Path | None = None,
    on_progress: Progress | None = None,
) -> Story:
    """Record, score, mask, prune and evaluate over budgets 1 to half of the layers, and return the story.

    Layers are scored by the target-aware criterion for every domain, by block influence and at random. The first and last layer
    and those the model protects stay.

    Args:
        loaded: the dense model.
        prompts: prompts of one or more domains.
        rows, scores: folders of the recording's rows and the masks' scores (see `record` and `sweep`), so that an interrupted
            comparison continues.
        on_progress: counts prompts and evaluations; raising `Cancelled` in it stops the work.

    Raises:
        StrataError: the model cannot take a prompt, no layer may be dropped, or too many layers have no finite scores.
    """
    return story_of(*compare_first_k(loaded, prompts, rows=rows, scores=scores, on_progress=on_progress))


def compare_first_k(
    loaded: LoadedModel,
    prompts: PromptSet,
    *,
    rows: Path | None = None,
    scores: Path | None = None,
    on_progress: Progress | None = None,
) -> tuple[Comparison, Recording]:
    """Return the Comparison behind the story of `compare`, and its recording."""
    from vlm_analysis.recording.record import record

    progress, n_prompts = on_progress or no_progress, len(prompts)
    budgets = budgets_of(loaded)
    total = 2 * n_prompts + (len(prompts.domains) + 1 + RANDOM_DRAWS) * len(budgets)
    recorded = part_of(progress, 0, n_prompts, total, "recording prompt")
    recording = record(loaded, prompts, folder=rows, batch_size=recording_batch(loaded), on_progress=recorded)
    ways = first_k_ways(recording, loaded)
    running = part_of(progress, n_prompts, 0, total, "running the dense model")
    pruned = part_of(progress, 2 * n_prompts, len(ways), total, "pruned model")
    comparison = compare_ways_on(loaded, prompts, ways, recording, scores, running, pruned)
    progress(total, total, "asking the pruned model")
    examples = _examples(loaded, prompts, comparison.dense, story_of(comparison, recording).pruned)
    return replace(comparison, examples=examples), recording


def recording_batch(loaded: LoadedModel) -> int:
    """Return how many prompts a comparison records together: a quarter of an evaluation's, as all measures of them are held at once."""
    from vlm_analysis.evaluation.run.evaluate import batch_for

    return max(1, batch_for(loaded) // 4)


def compare_ways_on(
    loaded: LoadedModel,
    prompts: PromptSet,
    ways: Sequence[Way],
    recording: Recording,
    folder: Path | None,
    dense_progress: Progress,
    progress: Progress,
    *,
    runner: SharedRunner | None = None,
) -> Comparison:
    """Evaluate the dense model and every mask that the model can run on the prompts (see `compare_masks`, `sweep_prepared`)."""
    from vlm_analysis.evaluation.run.evaluate import batch_for, evaluate_prepared
    from vlm_analysis.evaluation.run.prepared import prepare

    runnable, missing = _runnable(loaded, ways, {})
    work, batch_size = prepare(loaded, prompts, None, on_progress=dense_progress), batch_for(loaded)
    dense = evaluate_prepared(work, Edit(loaded.n_layers), None, batch_size=batch_size, on_progress=dense_progress)
    return _compared(
        work,
        dense,
        runnable,
        missing,
        recording,
        batch_size=batch_size,
        folder=folder,
        runner=runner,
        on_progress=progress,
    )


def budgets_of(loaded: LoadedModel) -> range:
    """Return the budgets of a story: 1 to half of the layers, or to as many as may go.

    Raises:
        MaskError: none may go.
    """
    most = min(loaded.n_layers // 2, len(loaded.locks.free))
    if most < 1:
        raise MaskError(f"No layer of {loaded.name} may be dropped: all {loaded.n_layers} are protected or locked.")
    return range(1, most + 1)


def first_k_ways(recording: Recording, loaded: LoadedModel) -> list[Way]:
    """Return the ways of a story: the first k layers of every domain's ranking, of block influence and of random ones.

    Raises:
        MaskError: no layer may go.
        RecordingError: a method has too few scores for the largest budget.
    """
    return _ways(_scores(recording), budgets_of(loaded), loaded)


def part_of(progress: Progress, first: int, size: int, total: int, words: str) -> Progress:
    """Return a progress that maps to `size` steps of `total`, from `first` on."""

    def part_progress(done: int, of: int, message: str) -> None:
        step = size * done // of if of else 0
        progress(first + step, total, f"{words} {min(step + 1, size)} of {size}" if size else words)

    return part_progress


def compare_masks(
    loaded: LoadedModel,
    prompts: PromptSet,
    ways: Sequence[Way],
    *,
    recording: Recording,
    left_out: Mapping[str, str] = MappingProxyType({}),
    reference: Evaluation | None = None,
    batch_size: int | None = None,
    max_bytes: int | None = None,
    folder: Path | None = None,
    work: Prepared | None = None,
    on_partial: Callable[[Comparison], None] | None = None,
    on_progress: Progress | None = None,
) -> Comparison:
    """Evaluate every mask of `many_masks` in one sweep, and return the Comparison.

    Args:
        loaded: the dense model.
        prompts: the prompts to report on.
        ways: the masks to compare and how each is made. Those that the model cannot run are left out.
        recording: the source of the scores; the Comparison counts how many of its prompts are reported on too.
        left_out: by method, why masks of it are missing (see `many_masks`).
        reference: the dense evaluation on these prompts.
        batch_size: prompts of similar length run together; `batch_for` the model by default.
        folder: where scores are kept (see `sweep`).
        work: these prompts, if they are ready to be scored against the reference.
        on_partial: called after each batch with the comparison on the prompts that all masks have been scored on so far.

    Raises:
        EvaluationError: `ways` is empty, or the reference or the folder belongs to another model or other prompts.
        MaskError, PromptError: as `sweep`.
    """
    from vlm_analysis.evaluation.run.evaluate import batch_for, check_reference, evaluate_prepared
    from vlm_analysis.evaluation.run.prepared import prepare

    ways, missing = _runnable(loaded, ways, left_out)
    check_reference(reference, loaded, prompts)
    batch_size = batch_size or batch_for(loaded)
    progress = on_progress or no_progress
    work = work or prepare(loaded, prompts, reference, on_progress=lambda *_: progress(0, 1, "preparing the prompts"))
    dense = reference or evaluate_prepared(
        work, Edit(loaded.n_layers), None, batch_size=batch_size, on_progress=on_progress
    )
    return _compared(
        work,
        dense,
        ways,
        missing,
        recording,
        batch_size=batch_size,
        max_bytes=max_bytes,
        folder=folder,
        on_partial=on_partial,
        on_progress=on_progress,
    )


def _compared(
    work: Prepared,
    dense: Evaluation,
    ways: Sequence[Way],
    missing: Mapping[str, str],
    recording: Recording,
    *,
    batch_size: int,
    max_bytes: int | None = None,
    folder: Path | None = None,
    runner: SharedRunner | None = None,
    on_partial: Callable[[Comparison], None] | None = None,
    on_progress: Progress | None = None,
) -> Comparison:
    """Evaluate the masks that the model can run on prepared prompts (see `compare_masks`); `missing` says why others are not there."""
    from vlm_analysis.evaluation.run.sweep import open_scores, sweep_prepared

    prompts = work.prompts
    name_of = dict(zip((prompt.id for prompt in prompts), prompts.groups.names, strict=True))
    groups = [name_of[row] for row in dense.by_prompt["id"]]
    dense = replace(dense, by_prompt=with_groups(dense.by_prompt, groups))  # a saved one may know others
    masks = tuple(dict.fromkeys(way.mask for way in ways))
    frame = ways_frame(ways, masks)
    same = recording.prompts == prompts.fingerprint
    shared = len(prompts) if same else n_shared(prompts, [*recording.keys, *recording.ties])
    store = open_scores(work, batch_size, folder)

    def partial(scores: ScoreStore) -> None:
        scored = _scored(work, dense, masks, scores)
        if scored is not None and on_partial is not None:
            at_most = min(shared, len(scored[0].by_prompt))  # of the prompts so far
            on_partial(Comparison(scored[0], masks, scored[1], frame, recording.prompts, at_most, missing))

    how: dict[str, Any] = {
        "batch_size": batch_size,
        "max_bytes": max_bytes,
        "runner": runner,
        "on_progress": on_progress,
    }
    sweep_prepared(work, masks, dense.dense_log_probs, store=store, on_batch=partial, **how)
    scored = _scored(work, dense, masks, store)
    assert scored is not None  # every mask was scored on every prompt that is not set aside
    columns = scored[1] | (_choices(work, masks, store) if CHOICE_METRICS[0] in dense.by_prompt else {})
    shared = min(shared, len(scored[0].by_prompt))
    return Comparison(scored[0], masks, columns, frame, recording.prompts, shared, missing)


def _runnable(
    loaded: LoadedModel, ways: Sequence[Way], left_out: Mapping[str, str]
) -> tuple[list[Way], dict[str, str]]:
    """Return the ways whose mask the model can run, and by method why others are missing.

    Raises:
        EvaluationError: the model can run none.
    """
    from vlm_analysis.edits.apply import why_not

    reasons = {mask: why_not(loaded.model, mask) for mask in dict.fromkeys(way.mask for way in ways)}
    missing = dict(left_out)
    for way in ways:
        if reasons[way.mask]:
            missing.setdefault(way.method, f"{counted(way.budget, 'layer')}: {reasons[way.mask]}")
    can_run = [way for way in ways if not reasons[way.mask]]
    if not can_run:
        reason_words = "; ".join(dict.fromkeys(missing.values()))
        raise EvaluationError(
            f"There is nothing to compare: expected at least one mask, got none. Choose other criteria and budgets. {reason_words}".strip()
        )
    return can_run, missing


def _scored(
    work: Prepared, dense: Evaluation, masks: Sequence[Edit], scores: ScoreStore
) -> tuple[Evaluation, dict[str, np.ndarray]] | None:
    """Return the dense evaluation and the masks' scores on the prompts that all masks were scored on; None where there are none."""
    keys, count = [mask.key for mask in masks], len(work.prompts)
    place = {prompt.id: index for index, prompt in enumerate(work.prompts)}
    places = np.array([place[name] for name in dense.by_prompt["id"]])
    known = np.flatnonzero(scores.known(keys, count).all(axis=0))
    rows = np.flatnonzero(np.isin(places, work.scored(known.tolist())))
    if not len(rows):
        return None
    columns = {metric: scores.column(metric, keys, count)[:, places[rows]] for metric in METRICS}
    whole = len(rows) == len(places) and work.set_aside == dense.set_aside
    table = dense.by_prompt.iloc[rows].reset_index(drop=True)
    return dense if whole else replace(dense, by_prompt=table, set_aside=work.set_aside), columns


def _choices(work: Prepared, masks: Sequence[Edit], scores: ScoreStore) -> dict[str, np.ndarray]:
    """Return the masks' scores by choice, where prompts have choices."""
    from vlm_analysis.evaluation.run.evaluate import evaluation_of

    if not any(work.alternatives):
        return {}
    tables = [evaluation_of(work, mask, scores.of(mask.key)).by_prompt for mask in masks]
    return {metric: np.stack([table[metric].to_numpy(np.float64) for table in tables]) for metric in CHOICE_METRICS}


def _scores(recording: Recording) -> dict[str, list[LayerScores]]:
    """Return the scores of each method; the random method has several."""
    methods = {
        f"{domain}-aware": [score_layers(recording, "target-aware", target=domain)]
        for domain in reversed(recording.domain_names)
    }
    methods["block influence"] = [score_layers(recording, "block-influence")]
    methods[RANDOM] = [score_layers(recording, "random", seed=seed) for seed in range(RANDOM_DRAWS)]
    return methods


def _check_scored(methods: Mapping[str, Sequence[LayerScores]], most: int, loaded: LoadedModel) -> None:
    """Check that every method has enough scores to drop `most` layers.

    Raises:
        RecordingError: one has too few; it names the layers without a score.
    """
    free = loaded.locks.free
    scored = [set(free) & set(scores.order) for draws in methods.values() for scores in draws]
    if min(map(len, scored)) >= most:
        return
    broken = [layer for layer in free if not all(layer in one for one in scored)]
    raise RecordingError(
        f"The methods on {loaded.name} cannot be compared: expected finite scores of every layer, got none of layers "
        f"{', '.join(map(str, broken))}. Check the weights of layer {broken[0]}, or load the model in another precision."
    )


def _ways(methods: Mapping[str, Sequence[LayerScores]], budgets: range, loaded: LoadedModel) -> list[Way]:
    """Return the masks of each method at each budget, as ways.

    Raises:
        RecordingError: a method has too few scores for the largest budget.
    """
    _check_scored(methods, budgets[-1], loaded)
    ways, info = [], loaded.info
    for method, draws in methods.items():
        for draw, scores in enumerate(draws):
            for budget in budgets:
                draw_words = f", draw {draw + 1}" if method == RANDOM else ""
                edit = make_mask(scores, "first-k", budget, locks=loaded.locks)
                mask = replace(edit, name=f"{method}, {budget} layers{draw_words}", model=info)
                criterion, strategy = (None, "random-draw") if method == RANDOM else (scores.criterion, "first-k")
                ways.append(Way(method, criterion, strategy, scores.options.get("target"), budget, draw, mask))
    return ways


def _examples(loaded: LoadedModel, prompts: PromptSet, dense: Evaluation, pruned: Evaluation) -> pd.DataFrame:
    """Return some prompts that the dense model answers exactly and the pruned one does not, with both answers.

    Where exact match tells nothing (see `evaluation.telling`), those in whose answers the two choose different tokens most often.
    """
    from vlm_analysis.edits.apply import apply_edit
    from vlm_analysis.models.decoding import greedy_text

    exact, agreement = dense.by_prompt["exact_match"], pruned.by_prompt["token_agreement"]
    if free := not exact.any():
        broken = agreement[agreement < 1].sort_values(kind="stable").index.to_numpy()[:N_EXAMPLES]
    else:
        broken = (exact & ~pruned.by_prompt["exact_match"]).to_numpy().nonzero()[0]
        broken = broken[:: max(1, len(broken) // N_EXAMPLES)][:N_EXAMPLES]
    rows, by_id, model = [], {prompt.id: prompt for prompt in prompts}, apply_edit(loaded.model, pruned.edit)
    for index in broken:
        prompt = by_id[dense.by_prompt["id"][index]]
        answer = (
            greedy_text(loaded, loaded.model, prompt) if free else dense.by_prompt["answer"][index]
        )  # it answers with that exactly
        rows.append((prompt.domain, prompt.question, answer, greedy_text(loaded, model, prompt)))
    return pd.DataFrame(rows, columns=list(EXAMPLES))
