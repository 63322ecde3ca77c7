"""Compute LayerScores from a Recording, with their spread under resampling of the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vlm_analysis.errors import MaskError, StrataError
from vlm_analysis.recording.measures import DELTAS, SHARES
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria import similarity as by
from vlm_analysis.selection.criteria.basis import Basis, basis_of
from vlm_analysis.selection.criteria.criteria import CRITERIA, Criterion
from vlm_analysis.selection.criteria.damage import Damage, read_damage
from vlm_analysis.selection.criteria.draws import N_RESAMPLES, Sampled, Units, spread_over
from vlm_analysis.selection.criteria.query import ScoreQuery
from vlm_analysis.selection.criteria.scores import LayerScores

if TYPE_CHECKING:
    from vlm_analysis.evaluation.evaluation import Evaluation


def score_layers(
    recording: Recording,
    criterion: str,
    *,
    target: str | None = None,
    weight: float = 0.7,
    token_group: str = "all",
    damage: Sequence[Evaluation] | Damage | None = None,
    seed: int = 0,
    domain: str | None = None,
    other: str | None = None,
    share: float = 0.5,
    delta: float = 0.05,
) -> LayerScores:
    """Return the scores of every decoder layer under `criterion`; `CRITERIA[criterion].takes` names the arguments that matter.

    Args:
        recording: what was measured.
        criterion: a key of `CRITERIA`.
        target: the domain whose answers should survive. Criteria that compare domains take the recording's first by default;
            measured damage takes all prompts by default.
        weight: of the target in `mixed`, of the others in `mixed-others`, in [0, 1].
        token_group: which tokens the similarities are averaged over; those of Skip-It? are always over vision.
        damage: for criteria that need it, leave-one-out Evaluations of the recording's model, or the Damage that `read_damage`
            returned. Layers without one score NaN: they are never dropped by score, and `options["not_measured"]` names them.
        seed: for `random` and for the resampling behind `spread`.
        domain: whose prompts count, for criteria that compare no domains; None for all.
        other: for `contrast`, the second domain; None for all but the target.
        share: for `important-tokens`, the share of tokens, one of `SHARES`.
        delta: for `skip-proximal`, the threshold, one of `DELTAS`.

    Raises:
        MaskError: an unknown criterion or target, a weight outside [0, 1], one domain where two are needed, or a recording
            without what the criterion needs.
        RecordingError: an unknown token group or domain.
    """
    row = _row(criterion, seed)
    if row.values is None:
        values = np.random.default_rng(seed).random(recording.n_layers)
        options = {"token_group": token_group, "recording_prompts": recording.prompts, "seed": seed}
        return LayerScores(criterion, values, np.zeros_like(values), row.drop, options)
    query = ScoreQuery(recording, target, other, domain, weight, token_group, share, delta, _read(damage, recording))
    query = _checked(criterion, row, query)
    values = _finite(row.values(query))
    spread = spread_over(_finite(row.values(query.redrawn(N_RESAMPLES, seed))))
    return LayerScores(criterion, values, spread, row.drop, _options(row, query))


@dataclass(frozen=True, eq=False)
class ScoreDraws:
    """The scores of one criterion on all prompts and on resampled prompts.

    Attributes:
        scores: of all prompts.
        draws: (n_draws, n_layers) float64, each the criterion's values on groups of prompts drawn with replacement within their domain.
        basis: the prompts that the scores are computed from.
    """

    scores: LayerScores
    draws: np.ndarray
    basis: Basis


def draw_scores(
    recording: Recording, criterion: str, n_draws: int = 1000, *, seed: int = 0, **options: Any
) -> ScoreDraws:
    """Return the scores and those of `n_draws` draws of the prompts; `options` are arguments of `score_layers`.

    Raises:
        MaskError: as `score_layers`; and for a criterion that is not a mean over prompts and cannot be resampled.
    """
    row = _row(criterion, seed)
    if row.values is None or row.values is by.cross_modal_pooled:
        raise MaskError(f"Criterion {criterion!r} cannot be drawn again: expected one that is a mean over prompts.")
    query = _asked(recording, criterion, row, options)
    draws = _finite(row.values(query.redrawn(n_draws, seed)))
    scores = LayerScores(criterion, _finite(row.values(query)), spread_over(draws), row.drop, _options(row, query))
    return ScoreDraws(scores, draws, _basis(criterion, row, query))


def _basis(criterion: str, row: Criterion, query: ScoreQuery) -> Basis:
    """Return the Basis of the prompts that count for at least one layer."""
    recording = query.recording
    if row.needs == "damage" and query.damage is not None:
        damage = query.damage
        rows = [place for place, name in enumerate(damage.domains) if query.target in (None, name)]
        return basis_of(damage.domains, Units.of(damage.domains, damage.groups, damage.ids), rows, compares=False)
    only = query.target if criterion == "target-aware" else query.domain if "domain" in row.takes else None
    measure, which = row.measure or "cosine", 0 if row.measure in ("hsic", "changed", "important_cosine") else None
    counts = np.asarray(recording.counts_in(measure, None, row.over or query.token_group, which=which).any(axis=1))
    rows = [place for place, name in enumerate(recording.domains) if only in (None, name) and counts[place]]
    return basis_of(recording.domains, Sampled(recording).units, rows, compares=row.needs == "domains")


def usable_criteria(recording: Recording, **options: Any) -> dict[str, str]:
    """Return every criterion with "" where it can score this recording's layers, else with the reason why not.

    `options` are arguments of `score_layers`; each criterion is tried.
    """
    return {criterion: _why_not(recording, criterion, dict(options)) for criterion in CRITERIA}


def _why_not(recording: Recording, criterion: str, options: dict[str, Any]) -> str:
    try:
        row = _row(criterion, options.pop("seed", 0))
        values = np.zeros(1) if row.values is None else _finite(row.values(_asked(recording, criterion, row, options)))
    except StrataError as error:
        return str(error)
    if np.isnan(values).all():
        return (
            f"Criterion {criterion!r} has no number for any layer: no prompt has what it needs. Record other prompts."
        )
    return ""


def _row(criterion: str, seed: int) -> Criterion:
    if criterion not in CRITERIA:
        raise MaskError(f"Unknown criterion: expected one of {list(CRITERIA)}, got {criterion!r}.")
    if seed < 0:
        raise MaskError(f"The seed must be a whole number of at least 0, got {seed!r}.")
    return CRITERIA[criterion]


def _read(damage: Sequence[Evaluation] | Damage | None, recording: Recording) -> Damage | None:
    return damage if damage is None or isinstance(damage, Damage) else read_damage(damage, recording.model)


def _asked(recording: Recording, criterion: str, row: Criterion, options: dict[str, Any]) -> ScoreQuery:
    """Return the checked query of these arguments of `score_layers`, `seed` left out."""
    query = ScoreQuery(recording, **options | {"damage": _read(options.get("damage"), recording)})
    return _checked(criterion, row, query)


def _checked(criterion: str, row: Criterion, query: ScoreQuery) -> ScoreQuery:
    """Return the query with its target filled in, or raise MaskError where the criterion cannot answer it."""
    _check_options(query)
    if row.measure and not query.recording.has(row.measure):
        maps = " with attention maps" if row.needs == "attention" else ""
        raise MaskError(
            f"Criterion {criterion!r} needs the measure {row.measure!r}, which this recording does not hold. Record again{maps}."
        )
    if row.needs == "damage" and query.damage is None:
        raise MaskError(
            f"Criterion {criterion!r} needs measured damage: expected evaluations of left-out layers, got none."
        )
    return _checked_domains(criterion, query, "target" in row.takes) if row.needs == "domains" else query


def _check_options(query: ScoreQuery) -> None:
    if not 0 <= query.weight <= 1:
        raise MaskError(f"The weight of the target must lie in [0, 1], got {query.weight!r}.")
    for name, value, known in (("share", query.share, SHARES), ("delta", query.delta, DELTAS)):
        if value not in known:
            raise MaskError(f"No such {name} was recorded: expected one of {list(known)}, got {value!r}.")


def _checked_domains(criterion: str, query: ScoreQuery, has_target: bool) -> ScoreQuery:
    names = query.recording.domain_names
    target = names[0] if query.target is None else query.target
    if has_target and target not in names:
        raise MaskError(f"No such target domain: expected one of {list(names)}, got {target!r}.")
    if criterion != "target-aware" and len(names) < 2:
        raise MaskError(
            f"Criterion {criterion!r} compares domains: expected at least two, got only {names[0]!r}. Add prompts of another."
        )
    other = query.other if criterion == "contrast" else None
    if other is not None and (other == target or other not in names):
        others = [name for name in names if name != target]
        raise MaskError(f"No such domain to compare {target!r} with: expected one of {others}, got {other!r}.")
    return replace(query, target=target if has_target else None, other=other)


def _options(row: Criterion, query: ScoreQuery) -> dict[str, Any]:
    """Return the arguments that the numbers depend on, as JSON values."""
    options: dict[str, Any] = {"token_group": query.token_group, "recording_prompts": query.recording.prompts}
    arguments = {name: getattr(query, name) for name in row.takes if name != "token_group"}
    options |= {name: value for name, value in arguments.items() if value is not None}
    if "token_group" not in row.takes:
        del options["token_group"]
    if row.needs == "damage" and query.damage is not None:
        missing = [int(layer) for layer in np.flatnonzero(~query.damage.measured)]
        options |= {
            "damage_prompts": query.damage.prompts,
            "not_measured": missing,
            "over_dense": query.damage.over_dense,
        }
    return options


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)
