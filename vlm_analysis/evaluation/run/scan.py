"""Scan in which layers vision tokens are needed: every late entry, early exit and single frozen layer, sharing what they have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from vlm_analysis.evaluation.scan import DENSE, ONE_WAY, VisionScan, edit_of_way, ways_of
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
    how: dict[str, Any] = {"form": form, "deepstack": deepstack, "batch_size": batch_size, "folder": folder}
    ready = prepare_scan(loaded, prompts, **how, on_progress=on_progress)
    return scan_of(ready, run_scan(ready, max_bytes, on_progress))


@dataclass(frozen=True, eq=False)
class ScanWork:
    """A scan that is ready to run.

    Attributes:
        ways: the edits by way and layer, the dense one first.
        plan: the same edits in the order in which they run.
        parts: the rows of each batch that are compared with the dense model.
        kept: where the scores of whole batches are kept; None keeps none.
        form, deepstack: of the edits.
    """

    work: Prepared
    ways: Mapping[tuple[str, int], Edit]
    plan: Sequence[Edit]
    parts: Sequence[list[int]]
    kept: KeptScores | None
    form: str
    deepstack: bool

    def known(self, number: int) -> Scores | None:
        """Return the kept scores of a part; None where there are none."""
        return None if self.kept is None else self.kept.of(self.parts[number])

    def keep(self, number: int, scores: Scores) -> None:
        """Keep the scores of a part. With a prompt that is set aside it is not kept: its reason is told by another pass."""
        rows = self.parts[number]
        if self.kept is not None and self.work.scored(rows) == rows:
            self.kept.keep(rows, scores)


def prepare_scan(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    *,
    form: str = SLICED,
    deepstack: bool = True,
    batch_size: int | None = None,
    folder: Path | None = None,
    on_progress: Progress | None = None,
) -> ScanWork:
    """Return a scan that is ready to run (arguments and errors as of `scan_vision`)."""
    ways = _possible(loaded, form, deepstack)
    work = prepare(loaded, prompts if isinstance(prompts, PromptSet) else PromptSet(prompts), on_progress=on_progress)
    plan, batch = ordered(ways.values()), batch_size or batch_for(loaded)
    kept = None if folder is None else KeptScores(folder, score_header(loaded, work.prompts, batch), plan)
    parts = [[row for row in part if row < work.n_compared] for part in work.batches(batch)]
    return ScanWork(work, ways, plan, parts, kept, form, deepstack)


def run_scan(ready: ScanWork, max_bytes: int | None = None, on_progress: Progress | None = None) -> Scores:
    """Return the scores of a scan's edits on prompts and accepted answers. Prompts that the model refuses are set aside."""
    runner, progress, scores = SharedRunner(ready.work.loaded, max_bytes), on_progress or no_progress, Scores()
    n_edits, n_parts = len(ready.plan), len(ready.parts)
    words = counted(n_edits, "edit")
    for turn, rows in enumerate(ready.parts):
        found = ready.known(turn)
        if found is None:
            found = Scores()
            for edit, by_row in run_scan_part(ready.work, runner, rows, ready.plan):
                found[edit] = by_row
                progress(turn * n_edits + len(found), n_parts * n_edits, f"part {turn + 1} of {n_parts}, {words}")
            ready.keep(turn, found)
        add_scores(scores, found)
    return scores


def add_scores(scores: Scores, found: Scores) -> None:
    """Add the scores of a part to those of other parts."""
    for key, by_row in found.items():
        scores.setdefault(key, {}).update(by_row)


def scan_of(ready: ScanWork, scores: Scores) -> VisionScan:
    """Return the scan of these scores of all parts."""
    work, loaded = ready.work, ready.work.loaded
    rows = [
        {"way": way, "layer": layer, "id": work.prompts[row].id, "domain": work.prompts[row].domain, **found}
        for (way, layer), edit in ready.ways.items()
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
        ready.form,
        ready.deepstack,
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


def run_scan_part(
    work: Prepared, runner: SharedRunner, rows: Sequence[int], plan: Sequence[Edit]
) -> Iterator[tuple[str, dict[int, dict[str, Any]]]]:
    """Yield the key of each edit with its scores on the rows of a batch, by row; the dense model comes first in the plan.

    Where the model refuses a prompt, it is set aside, and all edits come again, without it.
    """
    while rows := work.scored(rows):
        n_run = 0
        base: list[np.ndarray] = []
        try:
            for edit, found in runner.run([work.encoded[row] for row in rows], plan):
                base = base or list(found)
                pairs = zip(rows, found, base, strict=True)
                yield edit.key, {row: _metrics(work, row, one, dense) for row, one, dense in pairs}
                n_run += 1
            return
        except PromptError as error:
            work.refuse(rows, plan[min(n_run, len(plan) - 1)], error)


def _metrics(work: Prepared, row: int, found: np.ndarray, dense: np.ndarray) -> dict[str, Any]:
    scores = answer_scores(found, dense, work.answers[row].ids, work.loaded.end_tokens)
    to, back = (
        kl_of_tokens(dense.astype(float), found.astype(float)),
        kl_of_tokens(found.astype(float), dense.astype(float)),
    )
    one_way = zip(ONE_WAY, (back.mean(), to[0], back[0]), strict=True)
    return scores | {name: max(float(value), 0.0) if np.isfinite(value) else float(value) for name, value in one_way}
