"""Do Skip-It's conditions predict? Its curves and bands beside the measured damage of skipping there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd

from vlm_analysis import words
from vlm_analysis.errors import MaskError
from vlm_analysis.evaluation.intervals import LEAST_GROUPS, SHARE, group_numbers, tailed_bands
from vlm_analysis.evaluation.scan import DENSE, EARLY_EXIT, FROZEN, LATE_ENTRY, VisionScan
from vlm_analysis.recording.answerprobe import AnswerProbe
from vlm_analysis.recording.measures import DELTAS
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.certainty.against import DEGREES
from vlm_analysis.selection.certainty.agreement import kendall_tau
from vlm_analysis.selection.criteria.bands import SkipBands
from vlm_analysis.selection.criteria.redundancy import GAINS, check_same_model, gain_values

N_DRAWS = 1000
CONDITIONS = {
    "geometric": "Geometric change",
    "proximal": "Share of changed tokens",
    "functional": "Change of the probe's accuracy",
    "informational": "Change of the probe's log loss",
    "visual_attention": "Visual attention ratio",
}


@dataclass(frozen=True, eq=False)
class ConditionsCheck:
    """How Skip-It's conditions rank layers, beside the measured damage of freezing vision tokens in each alone.

    Attributes:
        damage: (n_layers,) mean KL(dense ‖ edited) in nats of the answers with vision tokens frozen in that layer; NaN where not scanned.
        table: by condition its `title`, Kendall's `tau` with the damage, the ends `low` and `high` of its 90 % interval over draws of
            prompts, `n_layers`, those that have both numbers, and `chance`, the tau that 5 % of all orders of so many layers exceed.
        bands: of late entry and early exit, where thresholds select one: its `layers` in words, mean KL with interval, exact match of the
            edited and of the dense model.
        sentences: all of it in words.
    """

    damage: np.ndarray
    table: pd.DataFrame
    bands: pd.DataFrame
    sentences: tuple[str, ...]


def conditions_against_damage(
    recording: Recording,
    scan: VisionScan,
    probe: AnswerProbe | None = None,
    *,
    bands: SkipBands | None = None,
    domain: str | None = None,
    delta: float = 0.1,
    seed: int = 0,
) -> ConditionsCheck:
    """Return whether Skip-It's conditions tell where skipping does harm.

    The conditions are those of vision tokens; the two of the probe count by their size, as a layer that makes answers harder to read is
    not redundant either. An interval is the middle 90 % of 1,000 draws of groups of prompts, in which curves and damage change together
    where they are of the same prompts; it is widened to the tau itself where draws, which add noise, lower it. Layers are not drawn: how
    far chance gets with so few of them stands beside (the normal approximation of Kendall's).

    Args:
        recording, scan, probe: of one model, best on the same prompts. Without a probe its two conditions are left out.
        bands: what thresholds select (`skip_bands`), to set it beside the damage of its late entry and early exit.
        domain: whose prompts; None for all.
        delta: smallest 1 − cosine at which a token counts as changed, one of `DELTAS`.
        seed: of the draws.

    Raises:
        MaskError: parts of different models, or an unknown delta.
        EvaluationError, RecordingError: an unknown domain.
    """
    check_same_model(recording, probe)
    if scan.model.fingerprint != recording.model.fingerprint or delta not in DELTAS:
        raise MaskError(
            f"Conditions and damage cannot be compared: expected a scan of {recording.model.name} and a delta of {list(DELTAS)}, got a "
            f"scan of {scan.model.name} and {delta!r}. Scan the recorded model."
        )
    scan.table(domain)  # refuses an unknown domain
    unit_of = _units(recording, probe)
    curves = _curves(recording, probe, domain, delta)
    damage = _damage(scan, domain, FROZEN)
    names = [*damage.index, *(name for curve in curves.values() for name in curve.index)]
    draws = _Draws([unit_of.get(name, name) for name in names], names, seed)
    table = _table(curves, damage, draws)
    found = _bands(scan, domain, bands, unit_of)
    means = damage.mean(axis=0).to_numpy(float)
    return ConditionsCheck(means, table, found, (*_sentences(table), *_band_words(found, bands)))


class _Draws:
    """Draws of groups of prompts with replacement: how often each prompt is in each draw."""

    def __init__(self, units: list[str], ids: list[str], seed: int) -> None:
        names = sorted(set(units))
        self.n_units = len(names)
        place = {name: number for number, name in enumerate(names)}
        self._unit = {one: place[unit] for one, unit in zip(ids, units, strict=True)}
        rng = np.random.default_rng(seed)
        self._counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), N_DRAWS).astype(float)

    def means(self, values: pd.DataFrame) -> np.ndarray:
        """Return the (n_draws, n_layers) means of (n_prompts, n_layers) values; NaN counts for nothing."""
        counts = self._counts[:, [self._unit[one] for one in values.index]]
        numbers = values.to_numpy(float)
        there = ~np.isnan(numbers)
        with np.errstate(invalid="ignore"):
            return counts @ np.where(there, numbers, 0.0) / (counts @ there)


def _units(recording: Recording, probe: AnswerProbe | None) -> dict[str, str]:
    """Return the group of each prompt that shares one, by id."""
    if recording.groups:
        return dict(zip(recording.prompt_ids, recording.groups, strict=True))
    return {} if probe is None else dict(zip(probe.ids, probe.groups, strict=True))


def _curves(
    recording: Recording, probe: AnswerProbe | None, domain: str | None, delta: float
) -> dict[str, pd.DataFrame]:
    """Return (n_prompts, n_layers) values by condition, rows named by the prompts' ids."""
    ids = [one for one, name in zip(recording.prompt_ids, recording.domains, strict=True) if domain in (None, name)]
    which = DELTAS.index(delta)
    found = {
        "geometric": 1.0 - recording.prompt_values("cosine", domain, "vision"),
        "proximal": recording.prompt_values("changed", domain, "vision", which=which),
    }
    curves = {name: pd.DataFrame(values, index=ids) for name, values in found.items()}
    if probe is not None:
        names = [probe.ids[row] for row in probe.rows(domain)]
        curves |= {name: pd.DataFrame(gain_values(probe, name, domain), index=names) for name in GAINS}
    if recording.has("visual_attention"):
        curves["visual_attention"] = pd.DataFrame(recording.prompt_values("visual_attention", domain), index=ids)
    return {name: curves[name] for name in CONDITIONS if name in curves}


def _damage(scan: VisionScan, domain: str | None, way: str) -> pd.DataFrame:
    rows = scan.by_prompt[scan.by_prompt["way"] == way]
    rows = rows if domain is None else rows[rows["domain"] == domain]
    values = rows.pivot(index="id", columns="layer", values="kl_to_dense").astype(float)
    return values.reindex(columns=range(scan.model.n_layers))


def _table(curves: dict[str, pd.DataFrame], damage: pd.DataFrame, draws: _Draws) -> pd.DataFrame:
    rows = {}
    harm, harms = damage.mean(axis=0, skipna=False).to_numpy(float), draws.means(damage)
    for name, values in curves.items():
        curve, drawn = values.mean(axis=0).to_numpy(float), draws.means(values)
        if name in GAINS:
            curve, drawn = np.abs(curve), np.abs(drawn)
        n_layers = int((np.isfinite(curve) & np.isfinite(harm)).sum())
        taus = [kendall_tau(one, other) for one, other in zip(drawn, harms, strict=True)]
        known = np.array([tau for tau in taus if np.isfinite(tau)])
        ends = [np.nan, np.nan]
        if draws.n_units >= LEAST_GROUPS and len(known):
            ends = np.quantile(known, [(1 - SHARE) / 2, (1 + SHARE) / 2]).tolist()
        tau = kendall_tau(curve, harm)
        low, high = np.minimum(ends[0], tau), np.maximum(ends[1], tau)
        told = {"title": CONDITIONS[name], "tau": tau, "low": low, "high": high}
        rows[name] = told | {"n_layers": n_layers, "chance": _chance(n_layers)}
    return pd.DataFrame.from_dict(rows, orient="index")


def _chance(n_layers: int) -> float:
    """Return the tau that 5 % of all orders exceed, by the normal approximation; NaN below two layers."""
    if n_layers < 2:
        return np.nan
    return NormalDist().inv_cdf(0.95) * np.sqrt(2 * (2 * n_layers + 5) / (9 * n_layers * (n_layers - 1)))


def _bands(scan: VisionScan, domain: str | None, bands: SkipBands | None, unit_of: dict[str, str]) -> pd.DataFrame:
    columns = ["layers", "kl_to_dense", "low", "high", "exact_match", "dense_exact_match"]
    if bands is None:
        return pd.DataFrame(columns=columns)
    table, rows = scan.table(domain), {}
    for way, layers, place in (
        (LATE_ENTRY, bands.late_entry, len(bands.late_entry)),
        (EARLY_EXIT, bands.early_exit, (bands.early_exit or (0,))[0]),
    ):
        if not layers or (way, place) not in table.index:
            continue
        values = scan.by_prompt[(scan.by_prompt["way"] == way) & (scan.by_prompt["layer"] == place)]
        values = values if domain is None else values[values["domain"] == domain]
        numbers = group_numbers([unit_of.get(one, one) for one in values["id"]], len(values))
        low, high = tailed_bands(values[["kl_to_dense"]].to_numpy(float).T, numbers)[:, 0]
        rows[way] = {
            "layers": words.layers(layers),
            "kl_to_dense": table["kl_to_dense"][way, place],
            "low": low,
            "high": high,
            "exact_match": table["exact_match"][way, place],
            "dense_exact_match": table["exact_match"][DENSE, -1],
        }
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _sentences(table: pd.DataFrame) -> list[str]:
    found = [_tau_words(row) for _, row in table.iterrows()]
    sure = [str(row["title"]) for _, row in table.iterrows() if row["low"] > 0 and row["tau"] > row["chance"]]
    if sure:
        found.append(
            f"What tells more than chance where freezing vision tokens does harm: {words.joined(_lowered(sure))}."
        )
    else:
        found.append("None of the conditions tells more than chance where freezing vision tokens does harm.")
    return found


def _tau_words(row: pd.Series) -> str:
    over = words.counted(int(row["n_layers"]), "layer")
    if np.isnan(row["tau"]):
        return f"{row['title']} and measured damage cannot be compared over {over}: one of them is the same for all, or missing."
    how = next(said for least, said in DEGREES if row["tau"] > least)
    ends = "" if np.isnan(row["low"]) else f", 90 % interval {row['low']:.2f} to {row['high']:.2f}"
    return (
        f"{row['title']} and measured damage {how} over {over}: Kendall tau {row['tau']:.2f}{ends}; chance reaches {row['chance']:.2f} in "
        "one of twenty orders."
    )


def _band_words(found: pd.DataFrame, bands: SkipBands | None) -> list[str]:
    said = []
    for way, row in found.iterrows():
        ends = "" if np.isnan(row["low"]) else f" (90 % interval {row['low']:.3g} to {row['high']:.3g})"
        said.append(
            f"The band of {way}, {row['layers']}, was measured: KL {row['kl_to_dense']:.3g} nats{ends}, exact match "
            f"{row['exact_match']:.1%} where the dense model has {row['dense_exact_match']:.1%}."
        )
    if bands is not None and found.empty:
        said.append("The thresholds select no late entry and no early exit that was scanned.")
    return said


def _lowered(titles: Iterable[str]) -> list[str]:
    return [title[0].lower() + title[1:] for title in titles]
