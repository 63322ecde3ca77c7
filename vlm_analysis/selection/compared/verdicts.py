"""Verdicts on budgets: where the choice of a ranking matters, where spacing helps or hurts, and where the prompts cannot tell.

The regimes are those that arXiv:2603.20275 reads off its curves. How they are computed is our choice:

    family   the methods that are compared: by default the readings of the domain-aware preset (`FAMILY`); else criteria with the strategy
             "first k", and strategies without scores
    spread   standard deviation of the retention of the family's different masks at a budget; the mean of random draws counts as one
    noise    what the spread stays below in 95 % of cases if the masks are equally good: Cochran's Q (Biometrika 37, 1950) over groups
    gain     mean over the family's criteria of the retention with no two neighbours dropped minus that with "first k", where these
             are different masks, with its 90 % interval by Student's t over groups

A budget is *ranking-sensitive* where the spread is more than noise, *structure-dominated* where the gain is above 0, *spacing hurts* where
it is below, the larger of gain and spread deciding where both hold, and *converging* where neither does: there these prompts cannot tell
rankings apart. Two tests stand behind each verdict; all tests of a table are corrected for their number (`holm`), so that with a chance of
at most `ALPHA` any of its claims is false. The intervals of gains are not corrected: each holds for itself.

Masks that several methods choose count once; where all choose one, the gain decides. There is no verdict with fewer than two methods, nor
where the prompts that the dense model answers are in fewer than `LEAST_GROUPS` groups.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.distributions import chi_quantile, chi_tail
from vlm_analysis.evaluation.intervals import LEAST_GROUPS, count_groups, group_sums, holm, ratio_bands
from vlm_analysis.selection.compared.comparison import Comparison
from vlm_analysis.selection.compared.findings import kept_scores, telling
from vlm_analysis.selection.compared.recovered import is_recovered
from vlm_analysis.selection.compared.skipping import is_skipping
from vlm_analysis.selection.criteria.criteria import CRITERIA
from vlm_analysis.selection.strategies.domain_aware import DRAWN, PAPER, READINGS
from vlm_analysis.selection.strategies.many import PLAIN, SPACED
from vlm_analysis.selection.strategies.strategies import STRATEGIES
from vlm_analysis.words import counted, in_groups, joined

SENSITIVE, CONVERGING = "ranking-sensitive", "converging"
STRUCTURE, HURTS = "structure-dominated", "spacing hurts"
FAMILY = tuple(READINGS)
STAND_INS = {
    "target-aware": "domain-aware-target",
    "others-aware": "domain-aware-others",
    "mixed-others": "domain-aware-mixed",
    "linear-cka": "domain-aware-cka",
    "interlace": "domain-aware-interlace",
}
"""Methods that stand for a reading of the preset in a comparison without it, as those of version 0.1 are."""
REGIMES = (
    *("domain", "n_prompts", "n_groups", "n_answered", "groups_answered", "budget", "n_masks"),
    *("spread", "noise", "gain", "gain_low", "gain_high", "p_spread", "p_gain", "regime"),
)
ALPHA = 0.1
ROUNDING = 1e-12


def members_of(comparison: Comparison) -> tuple[str, ...]:
    """Return what a family can be chosen from: criteria that have plain masks, and strategies that need no scores."""
    ways = comparison.ways[~is_recovered(comparison.ways) & ~is_skipping(comparison.ways)]
    plain = ways[ways["strategy"] == PLAIN]["criterion"].dropna()
    others = [one for one in ways["strategy"] if one not in STRATEGIES or STRATEGIES[one].needs != "scores"]
    return tuple(dict.fromkeys([*map(str, plain), *others]))


def family_of(comparison: Comparison, family: Collection[str] | None = None) -> tuple[str, ...]:
    """Return the members of a family that the comparison has: of `FAMILY` by default, of all methods where it has fewer than two.

    By default methods stand in for readings of the preset that were not compared (`STAND_INS`).

    Raises:
        EvaluationError: it lacks one that is asked for.
    """
    known = members_of(comparison)
    if family is None:
        usual = tuple(name for name in known if name in FAMILY or STAND_INS.get(name, name) in set(FAMILY) - set(known))
        return usual if len(usual) > 1 else known
    lacking = [name for name in family if name not in known]
    if isinstance(family, str) or lacking:
        raise EvaluationError(
            f"The regimes cannot be told: expected a family of some of {', '.join(known)}, got {str(family)[:200]}. Name others."
        )
    return tuple(name for name in known if name in family)


def regimes(comparison: Comparison, metric: str | None = None, family: Collection[str] | None = None) -> pd.DataFrame:
    """Return columns `REGIMES`, one row a domain and budget; NaN where something cannot be computed, "" where there is no verdict.

    `n_prompts` in `n_groups` are those of the domain that the metric was asked of, `n_answered` in `groups_answered` those of them with a
    dense score above 0; `n_masks` is the number of different masks of the family. `p_spread` and `p_gain` are as they are, the verdict is
    by those that are corrected for the number of tests.

    Args:
        metric: by default the `telling` score.
        family: the methods that are compared, of `members_of(comparison)`; see `family_of` for the default.

    Raises:
        EvaluationError: the comparison lacks a member of the family.
    """
    ways, metric = comparison.ways[~is_skipping(comparison.ways)], metric or telling(comparison)
    members = family_of(comparison, family)
    rows = []
    for domain in comparison.domains:
        told = Answers(*kept_scores(comparison, domain, metric), comparison.groups[comparison.rows(domain, metric)])
        for budget in sorted(ways["budget"].unique()):
            here = ways[ways["budget"] == budget]
            n_masks, *spread = told.spread(*_places(here, members))
            gain = told.gain(*_pairs(here[here["criterion"].isin(members)], int(budget)))
            rows.append((domain, *told.counts, int(budget), n_masks, *spread[:2], *gain[:3], spread[2], gain[3], ""))
    frame = pd.DataFrame(rows, columns=list(REGIMES))
    return _with_verdicts(frame)


class Answers:
    """The answers of edits to the prompts of one domain.

    Args:
        kept, base: (n_masks, n_prompts) and (n_prompts,) scores of the masks and of the dense model.
        numbers: (n_prompts,) the group of each prompt.
    """

    def __init__(self, kept: np.ndarray, base: np.ndarray, numbers: np.ndarray) -> None:
        self.kept, self.base, self.numbers, self.total = kept, base, numbers, float(base.sum())

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Return the number of prompts and of their groups, and of those that the dense model answers and theirs."""
        answered = self.base > 0
        return (len(self.base), count_groups(self.numbers), int(answered.sum()), count_groups(self.numbers[answered]))

    def spread(self, n_methods: int, single: np.ndarray, drawn: np.ndarray) -> tuple[int, float, float, float]:
        """Return the number of different masks, and spread, noise and p-value of theirs: Cochran's Q, over groups."""
        values, n_masks = self.kept[single], len(single) + len(drawn)
        if len(drawn):
            values = np.concatenate([values, self.kept[drawn].mean(axis=0, keepdims=True)])
        if n_methods < 2 or not self.total > 0 or not np.isfinite(values).all():
            return n_masks, np.nan, np.nan, np.nan
        if len(values) < 2:  # all methods choose one mask
            return n_masks, 0.0, 0.0, np.nan
        spread = float((values.sum(axis=1) / self.total).std())
        within = group_sums(values, self.numbers).var(axis=0, ddof=1).sum() / self.total**2 / len(values)
        df = len(values) - 1
        if not within > ROUNDING**2:
            return n_masks, spread, 0.0, 1.0
        noise = float(np.sqrt(chi_quantile(0.95, df) * within))
        return n_masks, spread, noise, chi_tail(spread**2 / within, df)

    def gain(self, plain: np.ndarray, spaced: np.ndarray) -> tuple[float, float, float, float]:
        """Return the mean gain of spaced masks with its interval, and the p-value that their signs alone make it."""
        if not len(plain) or not self.total > 0:
            return np.nan, np.nan, np.nan, np.nan
        differences = (self.kept[spaced] - self.kept[plain]).mean(axis=0)
        if (plain == spaced).all():
            return float(differences.sum() / self.total), np.nan, np.nan, np.nan
        return self.paired(differences)

    def paired(self, differences: np.ndarray) -> tuple[float, float, float, float]:
        """Return (n_prompts,) differences of scores as a share of the dense ones, with its interval, and the p-value as in `gain`."""
        gain = float(differences.sum() / self.total)
        low, high = ratio_bands(differences[None], self.base, self.numbers)[:, 0]
        sums = group_sums(differences[None], self.numbers)[0]
        square = float((sums**2).sum())
        p = chi_tail(float(sums.sum()) ** 2 / square, 1) if square > ROUNDING else 1.0
        return gain, float(low), float(high), p


def _places(here: pd.DataFrame, members: Sequence[str]) -> tuple[int, np.ndarray, np.ndarray]:
    """Return the number of the family's methods at a budget, and the places of their different masks: single ones, and drawn ones."""
    plain = here[(here["strategy"] == PLAIN) & here["criterion"].isin(members)]["place"]
    bare = here[here["strategy"].isin([one for one in members if one != DRAWN]) & here["criterion"].isna()]["place"]
    single = sorted({*plain, *bare})
    drawn = set(here[here["strategy"] == DRAWN]["place"]) if DRAWN in members else set()
    n_methods = len(plain) + len(bare) + bool(drawn)
    return n_methods, np.array(single, int), np.array(sorted(drawn - set(single)), int)


def _pairs(ways: pd.DataFrame, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the different pairs of masks, plain and with no two neighbours, of one criterion and target each."""
    here = ways[(ways["budget"] == budget) & ways["strategy"].isin((PLAIN, SPACED))]
    table: dict[tuple[str, str | None], dict[str, int]] = {}
    for criterion, target, strategy, index in here[["criterion", "target", "strategy", "place"]].itertuples(
        index=False
    ):
        whose = target if isinstance(target, str) else None  # pandas makes None a NaN
        table.setdefault((str(criterion), whose), {})[strategy] = int(index)
    both = sorted({(pair[PLAIN], pair[SPACED]) for pair in table.values() if len(pair) == 2})
    return np.array([plain for plain, _ in both], int), np.array([spaced for _, spaced in both], int)


def _with_verdicts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the regime of each row, by the p-values of all of its tests together."""
    tells = (frame["groups_answered"] >= LEAST_GROUPS) & frame["spread"].notna()
    p = np.where(tells.to_numpy()[:, None], frame[["p_spread", "p_gain"]].to_numpy(np.float64), np.nan)
    with np.errstate(invalid="ignore"):
        real = (holm(p.reshape(-1)) <= ALPHA).reshape(p.shape)
    verdicts = [
        _regime(spread, gain, *found) if told else ""
        for told, spread, gain, found in zip(tells, frame["spread"], frame["gain"], real, strict=True)
    ]
    return frame.assign(regime=verdicts)


def _regime(spread: float, gain: float, is_sensitive: bool, is_gain: bool) -> str:
    if is_gain and not (is_sensitive and spread >= abs(gain)):
        return STRUCTURE if gain > 0 else HURTS
    return SENSITIVE if is_sensitive else CONVERGING


def count_tests(frame: pd.DataFrame) -> int:
    """Return how many tests stand behind the verdicts of a table of regimes."""
    return int(frame[frame["regime"] != ""][["p_spread", "p_gain"]].notna().to_numpy().sum())


def member_title(name: str) -> str:
    """Return the title of a member of a family: a criterion, a strategy or a reading of the preset."""
    if row := CRITERIA.get(name) or STRATEGIES.get(name):
        return row.title
    return f"{READINGS[name].title} ({PAPER})" if name in READINGS else name


def family_words(frame: pd.DataFrame, family: Sequence[str]) -> str:
    """Return in words which methods the verdicts are about, how many they are and what they are corrected for."""
    told = frame[frame["regime"] != ""]
    if told.empty:
        return ""
    fewest, most = int(told["n_masks"].min()), int(told["n_masks"].max())
    masks = f"{fewest} to {most} different masks" if fewest < most else counted(most, "different mask")
    return (
        f"Compared: {joined(member_title(name) for name in family)}; {masks} a budget. {counted(len(told), 'verdict')}, corrected (Holm) "
        f"for their {counted(count_tests(frame), 'test')}: the chance that any claim here is false is at most {ALPHA:.0%}."
    )


def regime_words(frame: pd.DataFrame) -> list[str]:
    """Return one sentence a domain: the verdict on each stretch of budgets, or that too few prompts are answered for one."""
    sentences = []
    for domain, rows in frame.groupby("domain", sort=False):
        counts = [int(rows[name].iloc[0]) for name in ("n_prompts", "n_groups", "n_answered", "groups_answered")]
        parts = _stretches(rows[rows["regime"] != ""])
        if counts[3] < LEAST_GROUPS:
            parts = f"too few prompts that the dense model answers ({in_groups(*counts[2:])}); no verdict"
        if parts:
            sentences.append(f"{domain} ({in_groups(*counts[:2])}): {parts}.")
    return sentences


def _stretches(rows: pd.DataFrame) -> str:
    stretches: list[tuple[str, list[int]]] = []
    for budget, regime in zip(rows["budget"], rows["regime"], strict=True):
        if stretches and stretches[-1][0] == regime:
            stretches[-1][1].append(int(budget))
        else:
            stretches.append((regime, [int(budget)]))
    return ", ".join(f"{_stretch(budgets)} {regime}" for regime, budgets in stretches)


def _stretch(budgets: Sequence[int]) -> str:
    word = "layer" if list(budgets) == [1] else "layers"
    return f"{budgets[0]} {word}" if len(budgets) == 1 else f"{budgets[0]} to {counted(budgets[-1], 'layer')}"
