"""The edits of each kind that meet a budget of parameters, and which of them is picked. Which are tried is our choice."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from vlm_analysis.edits.edit import Edit, PruneMask
from vlm_analysis.errors import EditError, EvaluationError
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.evaluation.telling import telling_score_of
from vlm_analysis.model_info import Locks, ModelInfo
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.contest.contest import chosen_score
from vlm_analysis.selection.search.mixes import CLOSE, Mix
from vlm_analysis.selection.strategies.many import PLAIN, many_masks
from vlm_analysis.selection.width.choosing import GLOBAL, make_narrow
from vlm_analysis.selection.width.options import NONE, STEPS
from vlm_analysis.selection.width.scores import MAGNITUDE, UNITS, WidthScores

CRITERIA = ("block-influence", "linear-cka", "mlp-similarity", "attention-similarity", "worst-case")
STRATEGIES = (PLAIN, "angular-block", "interlace", "last-n")
WIDTHS: dict[str, dict[str, Any]] = {
    "uniform": {"mode": "uniform", "pivots": STEPS},
    "uniform, no pivots": {"mode": "uniform", "pivots": NONE},
    "global": {"pivots": STEPS},
    "global, no pivots": {"pivots": NONE},
    "uniform by magnitude": {"mode": "uniform", "by": MAGNITUDE, "alpha": 0.0, "beta": 0.0},
    "global by magnitude": {"by": MAGNITUDE, "alpha": 0.0, "beta": 0.0},
}


NO_PARAMETERS = "where vision tokens skip layers, all weights stay, so no parameters go."


@dataclass(frozen=True)
class Candidate:
    """An edit that competes for the entry of its kind, and how it was made."""

    method: str
    edit: Edit


@dataclass(frozen=True)
class Plan:
    """A budget of parameters in the units of each kind: so many whole layers, and as many parameters of width.

    Attributes:
        model: whose layers and parameters.
        n_dropped: the fewest layers that reach the share, each counted as the mean of those that may go.
        share: what so many layers save, which width and mixes save too: the share that was asked for, rounded up to whole layers.
        step: the share that a step of width saves in a mix: that of one layer.
    """

    model: ModelInfo
    n_dropped: int
    share: float
    step: float

    @property
    def width_share(self) -> float:
        """Return the share of the parameters that width alone has to save."""
        return self.share

    def skipping(self) -> list[Edit]:
        """Return the edits in which vision tokens skip layers that meet the budget.

        Raises:
            EditError: none does.
        """
        raise EditError(NO_PARAMETERS)

    @property
    def widths(self) -> Sequence[float]:
        """Return what 0, 1, 2, … steps of width save."""
        return [step * self.step for step in range(self.n_dropped + 1)]

    @property
    def visions(self) -> Sequence[tuple[Edit, float]]:
        return ()

    def saved(self, mix: Mix) -> float:
        """Return the share of the decoder layers' parameters that a mix saves, its width to a unit."""
        return self.dropped_share(mix.dropped) + max(0.0, self.narrow_share(mix))

    def narrow_share(self, mix: Mix) -> float:
        """Return the share of the parameters that the width of a mix saves: its last step only what is missing to the budget."""
        return min(mix.narrow * self.step, self.share - self.dropped_share(mix.dropped))

    def dropped_share(self, dropped: Collection[int]) -> float:
        """Return the share of the parameters in these layers."""
        return PruneMask(self.model.n_layers, dropped).saved_parameters(self.model) / sum(self.model.layer_parameters)


def plan_of(model: ModelInfo, share: float, locks: Locks) -> Plan:
    """Return the plan of a budget.

    Raises:
        EvaluationError: the parameters were not counted, or so many layers may not go.
    """
    step = step_of(model, locks)
    n_dropped = max(1, math.ceil(share / step - CLOSE))
    most = min(len(locks.free), model.n_layers - 1)
    if n_dropped > most:
        raise EvaluationError(
            f"So much cannot go: expected at most {most * step:.0%} of the decoder layers' parameters, as {most} layers may go, got "
            f"{share:.0%}. Ask for less."
        )
    return Plan(model, n_dropped, n_dropped * step, step)


def step_of(model: ModelInfo, locks: Locks) -> float:
    """Return the share of the decoder layers' parameters in one layer, as the mean of those that may go.

    Raises:
        EvaluationError: the parameters were not counted, or no layer may go.
    """
    whole = sum(model.layer_parameters)
    if not whole or not locks.free:
        raise EvaluationError(
            f"The kinds cannot be compared: expected a model with counted parameters and layers that may go, got "
            f"{model.name}. Load the model."
        )
    return float(np.mean([model.layer_parameters[layer] for layer in locks.free])) / whole


def depth_candidates(recording: Recording, n_dropped: int, locks: Locks) -> list[Candidate]:
    """Return masks of so many layers by some criteria and strategies, each mask once."""
    ways, _ = many_masks(recording, [n_dropped], criteria=CRITERIA, strategies=STRATEGIES, locks=locks)
    return _each_once(Candidate(way.method, way.mask) for way in ways)


def width_candidates(scores: WidthScores, share: float) -> tuple[list[Candidate], dict[str, str]]:
    """Return edits that narrow layers by this share of the parameters in some ways, and by way why there is none."""
    made, refused = list[Candidate](), dict[str, str]()
    for method, options in WIDTHS.items():
        try:
            made.append(Candidate(method, make_narrow(scores, share, **{"mode": GLOBAL, **options})))
        except EditError as error:
            refused[method] = str(error)
    return _each_once(made), refused


def _each_once(candidates: Iterable[Candidate]) -> list[Candidate]:
    by_edit: dict[Edit, Candidate] = {}
    for candidate in candidates:
        by_edit.setdefault(candidate.edit, candidate)
    return list(by_edit.values())


class Budget(Protocol):
    """What mixes are made of: see `Plan` and `TimePlan`."""

    @property
    def model(self) -> ModelInfo: ...

    @property
    def visions(self) -> Sequence[tuple[Edit, float]]: ...

    def narrow_share(self, mix: Mix) -> float: ...


def mix_maker(plan: Budget, scores: WidthScores | None) -> Callable[[Mix], Edit]:
    """Return the function that makes the edit of a mix: layers are dropped, and those that stay are narrowed in mode "global"."""

    def make(mix: Mix) -> Edit:
        edit = PruneMask(plan.model.n_layers, mix.dropped, model=plan.model)
        if mix.narrow:
            if scores is None:
                raise EditError("There is no such mix: expected scores of the width, got none. Score it.")
            narrow = make_narrow(_staying(scores, mix.dropped), plan.narrow_share(mix), GLOBAL)
            edit = replace(edit + narrow, provenance=narrow.provenance)
        return edit + plan.visions[mix.vision - 1][0] if mix.vision else edit

    return make


def _staying(scores: WidthScores, dropped: Collection[int]) -> WidthScores:
    """Return the scores without the units of dropped layers."""
    neurons, kv_groups = (
        tuple(part[:, :0] if layer in dropped else part for layer, part in enumerate(getattr(scores, unit)))
        for unit in UNITS
    )
    return replace(scores, neurons=neurons, kv_groups=kv_groups)


def pick(
    candidates: Sequence[Candidate], evaluations: Sequence[Evaluation], dense: Evaluation
) -> tuple[Candidate, float | None]:
    """Return the candidate of the highest mean retention over domains, of equal ones the one of less KL, with that retention.

    Args:
        candidates, evaluations: edits of one kind, and their scores on the choosing prompts.
    """
    metric = telling_score_of(dense, *evaluations)
    ranked = []
    for place, evaluation in enumerate(evaluations):
        score = chosen_score(evaluation, dense, metric)
        kl = float(evaluation.by_prompt["kl_to_dense"].mean(skipna=False))
        ranked.append((np.inf if score is None else -score, kl if np.isfinite(kl) else np.inf, place))
    _, _, best = min(ranked)
    return candidates[best], chosen_score(evaluations[best], dense, metric)
