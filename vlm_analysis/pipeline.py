"""The whole flow as one call: record, rank, mask, prune, evaluate, and the story of it."""

from __future__ import annotations

import pandas as pd

from vlm_analysis.errors import MaskError
from vlm_analysis.evaluate import Prepared, evaluate_prepared, prepare, respond
from vlm_analysis.evaluation import Evaluation, retention, retention_interval
from vlm_analysis.masks import PruneMask, make_mask
from vlm_analysis.models import LoadedModel
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts import PromptSet
from vlm_analysis.rank import LayerScores, score_layers
from vlm_analysis.record import record
from vlm_analysis.recording import Recording
from vlm_analysis.story import CURVE_COLUMNS, EXAMPLE_COLUMNS, RANDOM, Story
from vlm_analysis.sweep import sweep_prepared

RANDOM_DRAWS = 3
SHOWN_RATIO = 0.2
N_EXAMPLES = 6
BATCH = 32


def compare(loaded: LoadedModel, prompts: PromptSet, *, on_progress: Progress | None = None) -> Story:
    """Record, rank, mask, prune and evaluate over budgets 1 to half of the layers, and return the story.

    Every domain gets its target-aware ranking; block influence and random draws stand beside them. First and last layer
    and those the model protects stay.

    Args:
        loaded: the dense model.
        prompts: prompts of one or more domains.
        on_progress: counts prompts and evaluations; raising `Cancelled` in it stops the work.

    Raises:
        StrataError: a prompt cannot be asked, or no layer may be dropped.
    """
    report = on_progress or no_progress
    most = min(loaded.n_layers // 2, loaded.n_layers - len(loaded.protected_layers | loaded.locked_layers))
    if most < 1:
        raise MaskError(f"No layer of {loaded.name} may be dropped: all {loaded.n_layers} are protected or locked.")
    budgets = range(1, most + 1)
    total = 2 * len(prompts) + (len(prompts.domains) + 1 + RANDOM_DRAWS) * len(budgets)

    def recording_progress(done: int, of: int, message: str) -> None:
        report(done, total, f"recording prompt {done} of {of}")

    recording = record(loaded, prompts, on_progress=recording_progress)

    def dense_progress(done: int, of: int, message: str) -> None:
        report(len(prompts), total, "running the dense model")

    work = prepare(loaded, prompts, on_progress=dense_progress)
    dense = evaluate_prepared(work, PruneMask(loaded.n_layers), None, batch_size=BATCH, on_progress=dense_progress)
    masks = {
        (method, budget, draw): _mask(scores, budget, loaded)
        for method, draws in _rankings(recording).items()
        for draw, scores in enumerate(draws)
        for budget in budgets
    }
    different = list(dict.fromkeys(masks.values()))

    def sweep_progress(done: int, of: int, message: str) -> None:
        share = len(masks) * done // of if of else 0
        report(2 * len(prompts) + share, total, f"pruned model {min(share + 1, len(masks))} of {len(masks)}")

    swept = sweep_prepared(work, different, dense.dense_log_probs, batch_size=BATCH, on_progress=sweep_progress)
    evaluations = dict(zip(different, swept, strict=True))
    curve = _curve(dense, masks, evaluations)
    shown = max(1, int(SHOWN_RATIO * loaded.n_layers))
    at_shown = {
        method: mask for (method, budget, draw), mask in masks.items() if budget == min(shown, most) and draw == 0
    }
    first = next(iter(at_shown.values()))
    pruned = evaluations[first]
    report(total, total, "asking the pruned model")
    return Story(recording, at_shown, curve, dense, pruned, _examples(work, dense, pruned))


def _rankings(recording: Recording) -> dict[str, list[LayerScores]]:
    """Return the rankings of each method on screen; the random method has several."""
    rankings = {
        f"{domain}-aware": [score_layers(recording, "target-aware", target=domain)]
        for domain in reversed(recording.domain_names)
    }
    rankings["block influence"] = [score_layers(recording, "block-influence")]
    rankings[RANDOM] = [score_layers(recording, "random", seed=seed) for seed in range(RANDOM_DRAWS)]
    return rankings


def _mask(scores: LayerScores, budget: int, loaded: LoadedModel) -> PruneMask:
    mask = make_mask(scores, "first-k", budget, protected=loaded.protected_layers, locked=loaded.locked_layers)
    return PruneMask(mask.n_layers, mask.dropped, name=mask.name, model=loaded.info, provenance=mask.provenance)


def _curve(
    dense: Evaluation, masks: dict[tuple[str, int, int], PruneMask], evaluations: dict[PruneMask, Evaluation]
) -> pd.DataFrame:
    rows = []
    for (method, budget, _), mask in masks.items():
        pruned = evaluations[mask]
        for domain, value in retention(pruned, dense).items():
            low, high = (value, value) if method == RANDOM else retention_interval(pruned, dense, str(domain))
            rows.append((method, domain, budget, value, low, high))
    frame = pd.DataFrame(rows, columns=list(CURVE_COLUMNS))
    groups = frame.groupby(["method", "domain", "budget"], sort=False)
    return groups.agg(value=("value", "mean"), low=("low", "min"), high=("high", "max")).reset_index()


def _examples(work: Prepared, dense: Evaluation, pruned: Evaluation) -> pd.DataFrame:
    """Return some prompts that the dense model answers exactly and the pruned one does not, with both responses."""
    broken = (dense.by_prompt["exact_match"] & ~pruned.by_prompt["exact_match"]).to_numpy().nonzero()[0]
    rows = []
    for index in broken[:: max(1, len(broken) // N_EXAMPLES)][:N_EXAMPLES]:
        prompt = work.prompts[int(index)]
        answer = dense.by_prompt["answer"][index]  # the dense model gives it exactly
        rows.append((prompt.domain, prompt.question, answer, respond(work.loaded, prompt, pruned.mask)))
    return pd.DataFrame(rows, columns=list(EXAMPLE_COLUMNS))
