"""Scan in which layers vision tokens are needed: every late entry, early exit and single frozen layer, sharing what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.vision import SLICED
from vlm_analysis.errors import EditError, PromptError
from vlm_analysis.evaluation.run.evaluate import batch_for
from vlm_analysis.evaluation.run.metrics import answer_scores, kl_of_tokens
from vlm_analysis.evaluation.run.prepared import Prepared, prepare
from vlm_analysis.evaluation.run.shapes import attention_of
from vlm_analysis.evaluation.run.sharing import SharedRunner, ordered
from vlm_analysis.evaluation.run.sweep import score_header
from vlm_analysis.evaluation.scan import DENSE, VisionScan, edit_of_way, ways_of
from vlm_analysis.evaluation.scanparts import KeptScores, Scores
from vlm_analysis.evaluation.scores import best_of_accepted
from vlm_analysis.models.inputs import VISION
from vlm_analysis.models.layers import layer_info
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.words import counted


def scan_vision(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    *,
    form: str = SLICED,
    deepstack: bool = True,
    batch_size: int | None = None,
    max_bytes: int | None = None,
    folder: Path | None = None,
    on_progress: Progress | None = None,
) -> VisionScan:
    """Return what each late entry, early exit and single frozen layer does to the answers (see `VisionScan`).

    Edits share the vision tower and their first layers as in a sweep, so the scan costs about half of one by one. Those that name a
    layer that vision tokens cannot skip are left out. Choices are not scored.

    Args:
        loaded: the dense model.
        prompts: a PromptSet, or any sequence of prompts. One without an answer is scored on the dense model's own response.
        form, deepstack: of the edits (see `Vision`).
        batch_size: prompts of similar length that run together; `batch_for` the model by default.
        max_bytes: bound on the states kept for sharing, 1 GiB by default.
        folder: where the scores of each batch are kept as they come, so that the same scan, stopped and called again, goes on.
        on_progress: called after each edit of a batch; raising `Cancelled` in it stops the work.

    Raises:
        EditError: vision tokens can skip no layer of this model; the message says why.
        PromptError: the model can take none of the prompts; others are set aside (`VisionScan.set_aside`).
    """
    ways = _possible(loaded, form, deepstack)
    work = prepare(loaded, prompts if isinstance(prompts, PromptSet) else PromptSet(prompts), on_progress=on_progress)
    plan, batch = ordered(ways.values()), batch_size or batch_for(loaded)
    kept = None if folder is None else KeptScores(folder, score_header(loaded, work.prompts, batch), plan)
    scores = _scored(work, plan, batch, max_bytes, kept, on_progress or no_progress)
    rows = [
        {"way": way, "layer": layer, "id": work.prompts[row].id, "domain": work.prompts[row].domain, **found}
        for (way, layer), edit in ways.items()
        for row, found in sorted(best_of_accepted(scores[edit.key], work.accepted).items())
        if row < len(work.prompts)
    ]
    kinds = [work.encoded[row].kinds for row in work.scored(range(len(work.prompts)))]
    n_vision = float(np.mean([(one == VISION).sum() for one in kinds]))
    size, kv_parameters = attention_of(loaded.model)
    return VisionScan(
        work.info,
        work.prompts.fingerprint,
        pd.DataFrame(rows),
        form,
        deepstack,
        n_vision=n_vision,
        n_text=float(np.mean([len(one) for one in kinds])) - n_vision,
        attention_size=size,
        kv_parameters=kv_parameters,
        set_aside=work.set_aside,
    )


def _possible(loaded: LoadedModel, form: str, deepstack: bool) -> dict[tuple[str, int], Edit]:
    """Return the edits that the model does not refuse, the dense one first, by way and layer."""
    info, n_layers = layer_info(loaded.model), loaded.n_layers
    edits = {one: edit_of_way(n_layers, *one, form=form, deepstack=deepstack) for one in ways_of(n_layers)}
    refused = {one: reason for one, edit in edits.items() if (reason := edit.refuses(info))}
    if len(refused) == len(edits):
        raise EditError(next(iter(refused.values())))
    return {(DENSE, -1): Edit(n_layers), **{one: edit for one, edit in edits.items() if one not in refused}}


def _scored(
    work: Prepared,
    plan: Sequence[Edit],
    batch_size: int,
    max_bytes: int | None,
    kept: KeptScores | None,
    progress: Progress,
) -> Scores:
    """Return the scores of the edits on prompts and accepted answers. Prompts that the model refuses are set aside."""
    runner, scores = SharedRunner(work.loaded, max_bytes), {edit.key: dict[int, dict[str, Any]]() for edit in plan}
    parts = list(work.batches(batch_size))
    for turn, part in enumerate(parts):
        asked = [row for row in part if row < work.n_compared]
        found = None if kept is None else kept.of(asked)
        if found is None:
            words = f"part {turn + 1} of {len(parts)}, {counted(len(plan), 'edit')}"
            steps = range(turn * len(plan), len(parts) * len(plan))
            found = _scored_part(
                work, runner, asked, plan, lambda n, s=steps, w=words: progress(s.start + n, s.stop, w)
            )  # type: ignore[misc]
            if (
                kept is not None and work.scored(asked) == asked
            ):  # refused prompts are told with their reason, by another pass
                kept.keep(asked, found)
        for key, by_row in found.items():
            scores[key] |= by_row
    return scores


def _scored_part(
    work: Prepared, runner: SharedRunner, rows: Sequence[int], plan: Sequence[Edit], told: Callable[[int], object]
) -> Scores:
    """Return the scores of the edits on the rows of a batch whose prompts are not set aside; `told` is called after each edit."""
    while rows := work.scored(rows):
        scores: Scores = {}
        base: list[np.ndarray] = []
        try:
            for edit, found in runner.run([work.encoded[row] for row in rows], plan):
                base = base or list(found)  # the dense model comes first
                pairs = zip(rows, found, base, strict=True)
                scores[edit.key] = {row: _metrics(work, row, one, dense) for row, one, dense in pairs}
                told(len(scores))
            return scores
        except PromptError as error:
            work.refuse(rows, plan[min(len(scores), len(plan) - 1)], error)
    return {}


def _metrics(work: Prepared, row: int, found: np.ndarray, dense: np.ndarray) -> dict[str, Any]:
    scores = answer_scores(found, dense, work.answers[row].ids, work.loaded.end_tokens)
    to, back = (
        kl_of_tokens(dense.astype(float), found.astype(float)),
        kl_of_tokens(found.astype(float), dense.astype(float)),
    )
    one_way = {"kl_from_dense": back.mean(), "first_kl_to_dense": to[0], "first_kl_from_dense": back[0]}
    return scores | {
        name: max(float(value), 0.0) if np.isfinite(value) else float(value) for name, value in one_way.items()
    }
