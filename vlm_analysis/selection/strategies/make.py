"""Make an Edit from scores, a recording or neither: one call for every strategy and every kind of budget."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.edit import Edit, PruneMask
from vlm_analysis.errors import MaskError
from vlm_analysis.model_info import Locks
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.scores import LayerScores
from vlm_analysis.selection.criteria.spans import Spans
from vlm_analysis.selection.strategies.budgets import Share, as_layers, checked_costs, reach
from vlm_analysis.selection.strategies.choice import Choice, StrategyInputs
from vlm_analysis.selection.strategies.strategies import STRATEGIES, provenance_of
from vlm_analysis.words import counted


def make_mask(
    scores: LayerScores | None,
    strategy: str,
    budget: int | float | Share,
    *,
    n_layers: int | None = None,
    recording: Recording | None = None,
    locks: Locks | None = None,
    protected: Collection[int] | None = None,
    locked: Collection[int] = (),
    seed: int = 0,
    gap: int = 1,
    domain: str | None = None,
    token_group: str | None = None,
    costs: Sequence[float] | np.ndarray | None = None,
) -> Edit:
    """Return the mask that `strategy` makes of `scores`; it drops exactly the budget.

    Args:
        scores: layer scores; None for a strategy that needs none. A layer whose score is NaN is never dropped by score.
        strategy: a key of `STRATEGIES`.
        budget: layers to drop (int); the ratio of all layers (float in [0, 1); the floor counts); or a `Share` of the costs.
        n_layers: of the model; needed only without scores and without a recording.
        recording: for strategies that read its spans.
        locks: which layers stay (`loaded.locks`, `recording.model.locks`); by default the first and the last.
        protected, locked: the same as two collections of layers, instead of `locks`; `protected=None` means the first and the last.
        seed: for strategies that draw at random.
        gap: for `minimum-gap`, how many layers are kept between any two dropped ones, at least 0.
        domain, token_group: for strategies that read spans: whose prompts (None: all) and which tokens (None: the strategy's
            own choice).
        costs: (n_layers,) parameters or measured time of each layer, for a budget that is a `Share`.

    Raises:
        MaskError: an unknown strategy, a budget that cannot be met, or inputs that do not fit together.
        RecordingError: an unknown token group or domain.
    """
    row = _checked_row(strategy, scores, recording)
    count = count_layers(scores, recording, n_layers)
    if not is_whole(gap) or gap < 0 or not is_whole(seed) or seed < 0:
        raise MaskError(f"Gap and seed are whole numbers of at least 0, got {gap!r} and {seed!r}.")
    spans = None if row.needs != "recording" or recording is None else Spans(recording, domain, token_group)
    free = Locks.given(count, locks, protected, locked).free
    inputs = StrategyInputs(count, free, 0, scores, spans, gap, seed)
    choice = choose(strategy, inputs, budget, costs)
    budget_json: dict[str, Any] = asdict(budget) if isinstance(budget, Share) else budget  # type: ignore[assignment]
    provenance = {"strategy": strategy, "budget": budget_json, "seed": seed, **provenance_of(strategy, inputs, choice)}
    first = [scores.criterion] if row.needs == "scores" and scores is not None else []
    name = ", ".join([*first, strategy, str(len(choice.layers))])
    return PruneMask(count, tuple(choice.layers), name=name, provenance=provenance)


def choose(
    strategy: str, inputs: StrategyInputs, budget: int | float | Share, costs: Sequence[float] | np.ndarray | None
) -> Choice:
    """Return the strategy's choice for any kind of budget; arguments as in `make_mask`."""
    if isinstance(budget, Share):
        checked = checked_costs(budget, costs, inputs.n_layers)
        return reach(budget, checked, len(inputs.candidates), lambda layers: _choose(strategy, inputs, layers))
    return _choose(strategy, inputs, as_layers(budget, inputs.n_layers))


def _choose(strategy: str, inputs: StrategyInputs, budget: int) -> Choice:
    """Return the strategy's choice of exactly `budget` layers.

    Raises:
        MaskError: there are too few layers to drop.
    """
    number = len(inputs.candidates)
    if budget > number:
        raise MaskError(
            f"Cannot drop {counted(budget, 'layer')}: {number} of {inputs.n_layers} may go, the others are protected or locked. "
            "Lower the budget or unprotect layers."
        )
    function = STRATEGIES[strategy].choose
    assert function is not None  # refused by `_checked_row`
    choice = function(replace(inputs, budget=budget)) if budget else Choice([])
    if len(choice.layers) < budget:
        what = "a score" if STRATEGIES[strategy].needs == "scores" else "a measured span"
        raise MaskError(
            f"Cannot drop {counted(budget, 'layer')}: only {len(choice.layers)} that may go have {what}. Lower the budget."
        )
    return choice


def random_masks(
    n_draws: int,
    budget: int | float | Share,
    *,
    n_layers: int,
    locks: Locks | None = None,
    protected: Collection[int] | None = None,
    locked: Collection[int] = (),
    seed: int = 0,
    costs: Sequence[float] | np.ndarray | None = None,
) -> list[Edit]:
    """Return `n_draws` masks of the strategy `random-draw`, with consecutive seeds from `seed`; some may be equal."""
    locks = Locks.given(n_layers, locks, protected, locked)
    return [
        make_mask(
            None,
            "random-draw",
            budget,
            n_layers=n_layers,
            locks=locks,
            seed=seed + draw,
            costs=costs,
        )
        for draw in range(n_draws)
    ]


def count_layers(scores: LayerScores | None, recording: Recording | None, n_layers: int | None) -> int:
    """Return the number of layers; raise MaskError where the arguments disagree or none has it."""
    counts = {len(scores.values) if scores else None, recording.n_layers if recording else None, n_layers} - {None}
    if len(counts) != 1:
        raise MaskError(
            f"Scores, recording and n_layers must agree on the number of layers, got {sorted(map(str, counts))}."
        )
    count = counts.pop()
    assert count is not None
    return count


def _checked_row(strategy: str, scores: LayerScores | None, recording: Recording | None) -> Any:
    if strategy not in STRATEGIES:
        raise MaskError(f"Unknown strategy: expected one of {list(STRATEGIES)}, got {strategy!r}.")
    row = STRATEGIES[strategy]
    missing = {
        "scores": "layer scores. Call score_layers first." if scores is None else "",
        "recording": "a recording, whose spans it reads. Pass `recording`." if recording is None else "",
        "model": "measurements of the model after each step. Call greedy, beam or evolve instead.",
        "nothing": "",
    }[row.needs]
    if missing:
        raise MaskError(f"Strategy {strategy!r} needs {missing}")
    return row
