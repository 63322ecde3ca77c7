"""The comparison behind an Answer: masks are chosen on some prompts and reported on others, with times and responses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vlm_analysis.evaluation.evaluation import accepted_answers
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.compared.answer import GAINED, KEPT, MOST_EXAMPLES, best_places, example_rows
from vlm_analysis.selection.compared.comparison import RESPONSES, Comparison
from vlm_analysis.selection.compared.findings import telling
from vlm_analysis.workbench.pipeline import (
    RANDOM_DRAWS,
    budgets_of,
    compare_ways_on,
    first_k_ways,
    part_of,
    recording_batch,
)

if TYPE_CHECKING:
    from vlm_analysis.models.load import LoadedModel

TIMING_STEPS = 10  # of the progress
OnComparison = Callable[[Comparison], None]


def compare_on_halves(
    loaded: LoadedModel,
    choose: PromptSet,
    report: PromptSet,
    *,
    rows: Path | None = None,
    scores: Callable[[PromptSet], Path | None] = lambda prompts: None,
    on_partial: OnComparison | None = None,
    on_progress: Progress | None = None,
) -> tuple[Comparison, Recording]:
    """Return the comparison on `report` of the masks of a story that is recorded on `choose`, and that recording.

    The masks are evaluated on both; where both are the same prompts only once, and there is no `choosing`. The best masks are asked what
    they say, and layers are timed.

    Args:
        rows: the folder of the recording's rows.
        scores: returns the folder of the masks' scores on prompts.
        on_partial: called with the comparison before responses and times are added to it.

    Raises:
        StrataError: as `compare`.
    """
    from vlm_analysis.evaluation.run.sharing import SharedRunner
    from vlm_analysis.recording.record import record

    progress, n_budgets = on_progress or no_progress, len(budgets_of(loaded))
    halves = [report] if choose.fingerprint == report.fingerprint else [choose, report]
    n_ways, done = (len(choose.domains) + 1 + RANDOM_DRAWS) * n_budgets, len(choose)
    total = done + sum(len(half) + n_ways for half in halves) + TIMING_STEPS + MOST_EXAMPLES * n_budgets
    recorded, batch = part_of(progress, 0, done, total, "recording prompt"), recording_batch(loaded)
    recording = record(loaded, choose, folder=rows, batch_size=batch, on_progress=recorded)
    ways, compared, runner = first_k_ways(recording, loaded), list[Comparison](), SharedRunner(loaded)
    for half, words in zip(halves, ("choosing: ", "reporting: ")[-len(halves) :], strict=True):
        dense = part_of(progress, done, 0, total, f"{words}running the dense model")
        masks = part_of(progress, done + len(half), n_ways, total, f"{words}pruned model")
        compared.append(compare_ways_on(loaded, half, ways, recording, scores(half), dense, masks, runner=runner))
        done += len(half) + n_ways
    comparison = replace(compared[-1], choosing=compared[0] if len(compared) > 1 else None)
    if on_partial is not None:
        on_partial(comparison)
    asking = part_of(progress, done, total - TIMING_STEPS - done, total, "asking the pruned models:")
    comparison = replace(comparison, responses=responses_of(loaded, report, comparison, asking))
    timing = part_of(
        progress, total - TIMING_STEPS, 0, total, "timing the layers"
    )  # last, as pages draw `on_partial` by then
    comparison = replace(comparison, layer_shares=layer_shares(loaded, report, timing))
    progress(total, total, "saving")
    return comparison, recording


def layer_shares(loaded: LoadedModel, prompts: PromptSet, progress: Progress) -> np.ndarray:
    """Return the (n_layers,) share of a dense forward pass that each layer takes, measured now."""
    from vlm_analysis.evaluation.run.latency import measure_latency

    latency = measure_latency(loaded, prompts, on_progress=progress)
    return np.asarray(latency.layer_ms, np.float64) / max(latency.total_ms, 1.001 * float(latency.layer_ms.sum()))


def responses_of(loaded: LoadedModel, prompts: PromptSet, comparison: Comparison, progress: Progress) -> pd.DataFrame:
    """Return what the dense model and the best mask of each budget say to its `example_rows`, as `Comparison.responses`.

    An answer that is matched exactly is what the model says, so only the others are asked for.
    """
    from vlm_analysis.edits.apply import apply_edit
    from vlm_analysis.models.decoding import greedy_text

    @lru_cache(maxsize=1)  # what is wanted of a mask stands together
    def pruned(place: int) -> Any:
        return apply_edit(loaded.model, comparison.masks[place])

    by_id, ids = {prompt.id: prompt for prompt in prompts}, list(comparison.dense.by_prompt["id"])
    accepted = accepted_answers(comparison.dense.by_prompt)
    is_exact, right = telling(comparison) == "exact_match", comparison.base("exact_match") > 0
    wanted = [
        (place, *shown) for place in best_places(comparison).values() for shown in example_rows(comparison, place)
    ]
    dense, rows = dict[int, str](), []
    for number, (place, row, outcome) in enumerate(wanted):
        progress(number, len(wanted), "asking")
        prompt = by_id[ids[row]]
        known = accepted[row][0] if is_exact and len(accepted[row]) == 1 else None
        if row not in dense:
            dense[row] = known if known is not None and right[row] else greedy_text(loaded, loaded.model, prompt)
        stays = known is not None and outcome in (KEPT, GAINED)
        edited = known if stays else greedy_text(loaded, pruned(place), prompt)
        rows.append((place, ids[row], prompt.question, dense[row], edited))
    return pd.DataFrame(rows, columns=list(RESPONSES)).astype({"place": int})
