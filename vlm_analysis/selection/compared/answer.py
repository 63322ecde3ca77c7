"""The Answer of a comparison: at a budget, the best mask on the prompts that masks were chosen on, and what it keeps on the others.

Which mask is best is our choice: the one with the highest retention on the choosing prompts as a mean over domains, then the one whose
worst domain keeps most, then the one with the least KL. Random masks are for comparison only. The recommended budget is the largest whose
best mask keeps at least `TOLERANCE` there. All numbers that an Answer tells are of the comparison's own prompts, the reporting ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.cost import Cost, speedup
from vlm_analysis.evaluation.diff import Piece, word_diff
from vlm_analysis.evaluation.evaluation import retention_bands
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.selection.compared.comparison import Comparison
from vlm_analysis.selection.compared.findings import kept_scores, retention_curves, retentions, telling
from vlm_analysis.selection.compared.recovered import is_recovered
from vlm_analysis.selection.compared.skipping import is_skipping
from vlm_analysis.selection.strategies.many import RANDOM
from vlm_analysis.words import brief, some_of

TOLERANCE = 0.95  # of the dense model's answers
MOST_EXAMPLES = 6
LOST, KEPT, GAINED = "lost", "kept", "gained"
ROOM = {LOST: 4, GAINED: 1, KEPT: 1}  # of the examples, where there are so many
CURVE = ("budget", "method", "place", "saved", "times", "domain", "value", "low", "high")
OTHERS = ("method", "budget", "saved", "value")


@dataclass(frozen=True)
class Kept:
    """What an edit keeps of the answers of a domain.

    Attributes:
        domain: its name.
        stay, of: how many of the prompts that the dense model answers exactly the edited model answers too; 0 of 0 where it answers none.
        gained: how many the edited model answers and the dense one does not.
        value, low, high: the retention of the answer's metric with its 90 % interval (see `retention_bands`); NaN where it is not defined.
    """

    domain: str
    stay: int
    of: int
    gained: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Speed:
    """How many times as fast a forward pass is, measured on this machine or expected from the times of the dense model's layers."""

    times: float
    is_measured: bool


@dataclass(frozen=True)
class Example:
    """One prompt with both responses in pieces (see `word_diff`).

    Attributes:
        id, domain, question: the prompt's.
        outcome: "lost", "kept" or "gained"; where the dense model matches no answer exactly, "kept" where both choose the same tokens of
            the answer, or say the same.
        dense, edited: the responses.
    """

    id: str
    domain: str
    question: str
    outcome: str
    dense: tuple[Piece, ...]
    edited: tuple[Piece, ...]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a comparison answers at one budget.

    Attributes:
        model: the dense model.
        edit, method: the mask, and how it was made.
        metric: the score that is shown (see `evaluation.telling`).
        kept: by domain, on the reporting prompts.
        chosen: the same on the choosing prompts; that of `kept` where they are the same.
        saved: share of the parameters that the edit saves, in [0, 1].
        speed: None where no time is known.
        curve: columns `CURVE`, a row a budget and domain: the best mask at each budget and what it keeps on the reporting prompts. `times`
            is as `Speed.times`, NaN where no time is known; the dense model is at budget 0.
        others: columns `OTHERS`, a row a method and budget: the mean over domains of the retention on the reporting prompts.
        examples: at most `MOST_EXAMPLES`, lost ones first; () where no responses were asked for.
        is_recommended: whether this is the recommended budget.
        chosen_on, reported_on: fingerprints of the prompts, and how many they are.
        n_shared: how many of the reported prompts are among those that layers were scored on, or share a picture with one.
        has_halves: whether the best mask was chosen on prompts of its own.
    """

    model: ModelInfo
    edit: Edit
    method: str
    metric: str
    kept: tuple[Kept, ...]
    chosen: tuple[Kept, ...]
    saved: float
    speed: Speed | None
    curve: pd.DataFrame
    others: pd.DataFrame
    examples: tuple[Example, ...]
    is_recommended: bool
    chosen_on: tuple[str, int]
    reported_on: tuple[str, int]
    n_shared: int
    has_halves: bool

    def __repr__(self) -> str:
        kept = (f"{one.domain} keeps {one.value:.0%}" for one in self.kept)
        return brief(
            self, self.model.name, repr(self.edit), self.method, some_of(kept, 3), f"{self.saved:.0%} fewer parameters"
        )

    @property
    def budget(self) -> int:
        """Return the number of dropped layers."""
        return self.edit.budget

    @property
    def budgets(self) -> tuple[int, ...]:
        """Return the budgets that can be asked for, ascending."""
        return tuple(int(budget) for budget in sorted(self.curve["budget"].unique()) if budget)

    @property
    def is_within(self) -> bool:
        """Return whether the domains keep at least `TOLERANCE` on the choosing prompts, as a mean."""
        return bool(_mean(np.array([[one.value] for one in self.chosen]))[0] >= TOLERANCE)


def best_places(comparison: Comparison) -> dict[int, int]:
    """Return by budget, ascending, the place of the best mask on the choosing prompts; on all prompts where there are no halves.

    Recovered masks are no candidates, nor those beside which vision tokens skip layers, nor those that no method but a random draw makes,
    unless there are no others.
    """
    judged, values = comparison.choosing or comparison, _judged(comparison)
    kl = np.nan_to_num(judged.scores["kl_to_dense"].mean(axis=1), nan=np.inf)
    worst, mean = _worst(values), np.nan_to_num(_mean(values), nan=-np.inf)
    ways = comparison.ways[(comparison.ways["budget"] > 0) & ~is_recovered(comparison.ways)]
    ways = ways[~is_skipping(ways)]
    drawn = ways["method"] == RANDOM
    candidates = ways[~drawn] if not drawn.all() else ways
    found = {}
    for budget in sorted(candidates["budget"].unique()):
        here = candidates[candidates["budget"] == budget]["place"].tolist()
        found[int(budget)] = int(max(here, key=lambda place: (mean[place], worst[place], -kl[place])))
    return found


def recommended_budget(comparison: Comparison) -> int:
    """Return the largest budget whose best mask keeps `TOLERANCE` on the choosing prompts, as a mean over domains; else the smallest.

    Raises:
        EvaluationError: no mask drops a layer.
    """
    places, mean = best_places(comparison), _mean(_judged(comparison))
    if not places:
        raise EvaluationError(
            "The comparison has no answer: expected a mask that drops a layer, got none. Compare masks of one or more layers."
        )
    return max((budget for budget, place in places.items() if mean[place] >= TOLERANCE), default=min(places))


def answer_of(comparison: Comparison, budget: int | None = None, *, costs: Sequence[Cost] = ()) -> Answer:
    """Return the Answer of a finished comparison at a budget, by default the recommended one.

    Args:
        comparison: of masks on the reporting prompts; its `choosing` is the same on the choosing ones.
        budget: number of layers to drop.
        costs: what was timed of this model; that of the mask makes its speed a measured one.

    Raises:
        EvaluationError: the comparison has no mask at this budget.
    """
    recommended, places = recommended_budget(comparison), best_places(comparison)
    budget = recommended if budget is None else budget
    if budget not in places:
        raise EvaluationError(
            f"The comparison has no answer: expected a budget among {', '.join(map(str, places))}, got {budget}. Choose one of them."
        )
    place, judged, metric = places[budget], comparison.choosing or comparison, telling(comparison)
    curve, ways = _curve(comparison, places, metric, costs), comparison.ways
    return Answer(
        model=comparison.dense.model,
        edit=comparison.masks[place],
        method=_method(ways, budget, place),
        metric=metric,
        kept=_kept(comparison, place, metric),
        chosen=_kept(judged, place, telling(judged)),
        saved=float(1 - comparison.parameters_left()[place]),
        speed=_speed(comparison, place, costs),
        curve=curve,
        others=_others(comparison, metric),
        examples=_examples(comparison, place),
        is_recommended=budget == recommended,
        chosen_on=(comparison.chosen_on, len(judged.dense.by_prompt)),
        reported_on=(comparison.dense.prompts, len(comparison.dense.by_prompt)),
        n_shared=comparison.n_shared,
        has_halves=comparison.choosing is not None,
    )


def example_rows(comparison: Comparison, place: int, most: int = MOST_EXAMPLES) -> list[tuple[int, str]]:
    """Return up to `most` prompts to show of a mask, as (row, outcome): lost ones first, then gained, then kept.

    Up to `ROOM` of each, and more where others are missing; of each spread evenly over the prompts.
    """
    outcomes = outcomes_of(comparison, place)
    found = {outcome: np.flatnonzero(outcomes == outcome) for outcome in ROOM}
    room = {outcome: min(ROOM[outcome], len(rows)) for outcome, rows in found.items()}
    for outcome in (LOST, KEPT, GAINED):
        room[outcome] += min(most - sum(room.values()), len(found[outcome]) - room[outcome])
    return [(row, outcome) for outcome, rows in found.items() for row in _spread(rows, room[outcome])]


def outcomes_of(comparison: Comparison, place: int) -> np.ndarray:
    """Return the (n_prompts,) outcome of each prompt, "" where neither model answers it (see `Example.outcome`)."""
    if telling(comparison) != "exact_match":
        return np.where(comparison.scores["token_agreement"][place] < 1, LOST, KEPT)
    dense, edited = comparison.base("exact_match") > 0, comparison.scores["exact_match"][place] > 0
    return np.select([dense & ~edited, dense & edited, edited], [LOST, KEPT, GAINED], "")


def _judged(comparison: Comparison) -> np.ndarray:
    """Return the (n_domains, n_masks) retentions on the choosing prompts; on all where there are no halves."""
    judged = comparison.choosing or comparison
    return np.stack([retentions(judged, domain, telling(judged)) for domain in judged.domains])


def _spread(rows: np.ndarray, count: int) -> list[int]:
    return [int(rows[index * len(rows) // count]) for index in range(count)]


def _worst(values: np.ndarray) -> np.ndarray:
    """Return the least of (n_domains, n) retentions that is defined, -inf where none is."""
    least = np.where(np.isnan(values), np.inf, values).min(axis=0)
    return np.where(np.isinf(least), -np.inf, least)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean of (n_domains, n) retentions over the domains in which it is defined; NaN where there is none."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)


def _method(ways: pd.DataFrame, budget: int, place: int) -> str:
    names = ways[(ways["place"] == place) & (ways["budget"] == budget)]["method"]
    return str(next((name for name in names if name != RANDOM), names.iloc[0]))


def _kept(comparison: Comparison, place: int, metric: str) -> tuple[Kept, ...]:
    base, scores = comparison.base("exact_match") > 0, comparison.scores["exact_match"][place] > 0
    found = []
    for domain in comparison.domains:
        rows = comparison.rows(domain)
        kept, dense = kept_scores(comparison, domain, metric)
        numbers = comparison.groups[comparison.rows(domain, metric)]
        low, high = retention_bands(kept[[place]], dense, metric, numbers)[:, 0]
        value = retentions(comparison, domain, metric)[place]
        stay, of, gained = (int(which[rows].sum()) for which in (base & scores, base, scores & ~base))
        found.append(Kept(domain, stay, of, gained, float(value), float(low), float(high)))
    return tuple(found)


def _speed(comparison: Comparison, place: int, costs: Sequence[Cost]) -> Speed | None:
    edit, model = comparison.masks[place], comparison.dense.model.fingerprint
    timed = next((one for one in costs if one.edit.key == edit.key and one.model.fingerprint == model), None)
    if timed is not None:
        return Speed(speedup(timed, "prefill")[0], True)
    shares = comparison.layer_shares
    return Speed(float(1 / (1 - shares[list(edit.gone)].sum())), False) if len(shares) else None


def _curve(comparison: Comparison, places: dict[int, int], metric: str, costs: Sequence[Cost]) -> pd.DataFrame:
    rows: list[tuple[object, ...]] = [
        (0, "dense", -1, 0.0, 1.0, domain, 1.0, np.nan, np.nan) for domain in comparison.domains
    ]
    left = comparison.parameters_left()
    for budget, place in places.items():
        speed, method = _speed(comparison, place, costs), _method(comparison.ways, budget, place)
        times = np.nan if speed is None else speed.times
        rows += [
            (budget, method, place, float(1 - left[place]), times, one.domain, one.value, one.low, one.high)
            for one in _kept(comparison, place, metric)
        ]
    return pd.DataFrame(rows, columns=list(CURVE))


def _others(comparison: Comparison, metric: str) -> pd.DataFrame:
    saved = comparison.ways.assign(saved=(1 - comparison.parameters_left())[comparison.ways["place"]])
    saved = saved.groupby(["method", "budget"], sort=False)["saved"].mean().reset_index()
    mean = retention_curves(comparison, metric).groupby(["method", "budget"], sort=False)["value"].mean().reset_index()
    return saved.merge(mean, on=["method", "budget"])[list(OTHERS)]


def _examples(comparison: Comparison, place: int) -> tuple[Example, ...]:
    said = comparison.responses[comparison.responses["place"] == place]
    ids, domains = (list(comparison.dense.by_prompt[name]) for name in ("id", "domain"))
    outcomes, is_exact, found = outcomes_of(comparison, place), telling(comparison) == "exact_match", []
    for one in said.itertuples():
        row = ids.index(one.id)
        dense, edited = word_diff(str(one.dense), str(one.edited))
        says_the_same = not is_exact and str(one.dense) == str(one.edited)
        outcome = KEPT if says_the_same else str(outcomes[row])
        found.append(Example(str(one.id), domains[row], str(one.question), outcome, tuple(dense), tuple(edited)))
    return tuple(found)
