"""Claims of papers, tested on your comparison: what a paper says, its own numbers, yours, and whether your prompts can tell.

A claim about rankings is a paired difference: on each prompt what the masks of some rankings keep minus what those of others keep, mean
over masks of a budget, then over the budgets of a regime. It is summed over groups of prompts and tested by its sign as the gains of
regimes are; all tests of a table are corrected together (Holm). "Holds" and "does not hold" are verdicts of that test, at 10 %; else it
cannot be told. Regimes are tested by Cochran's Q, as in `verdicts`.

Budgets are shares of the pruneable layers, in the regimes that arXiv:2603.20275 reads off its curves: up to 15 %, up to 32 %, above. How
its sentences become differences is our choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd

from vlm_analysis.evaluation.distributions import critical_t
from vlm_analysis.evaluation.intervals import LEAST_GROUPS, SHARE, group_numbers, holm
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.certainty.against import cosine_against_damage
from vlm_analysis.selection.certainty.ranks import MOST_PROMPTS, POWER
from vlm_analysis.selection.compared.comparison import Comparison
from vlm_analysis.selection.compared.findings import kept_scores, telling
from vlm_analysis.selection.compared.published import READING_OF, published_retention
from vlm_analysis.selection.compared.verdicts import ALPHA, STAND_INS, Answers
from vlm_analysis.selection.criteria.damage import Damage
from vlm_analysis.selection.strategies.domain_aware import DRAWN, PAPER
from vlm_analysis.selection.strategies.many import PLAIN
from vlm_analysis.words import counted

HOLDS, FAILS, UNTOLD = "holds", "does not hold", "cannot be told"
CLAIMS = (
    *("claim", "paper", "says", "theirs", "against", "domain", "yours", "low", "high", "unit"),
    *("n_prompts", "n_groups", "p", "verdict", "would_tell"),
)
TARGET, OTHERS, MIXED, CKA, INTERLACE = (
    f"domain-aware-{name}" for name in ("target", "others", "mixed", "cka", "interlace")
)
AWARE, BASELINES = (TARGET, OTHERS, MIXED), (CKA, INTERLACE, DRAWN)
LOW, MIDDLE, HIGH, BEYOND = (0.0, 0.15), (0.15, 0.32), (0.32, 1.0), (0.15, 1.0)
COMPARE = "Compare the preset's masks on prompts with answers: Many masks, “Only the preset”."
MEASURE = (
    "Measure each layer's damage on the recorded prompts: Similarity, Explain, or strata sweep PROMPTS --leave-one-out."
)
SPREAD = "spread of retention, up to its noise"
_COSINE_PAPER, _RECOVERY_PAPER = "arXiv:2605.14075", "arXiv:2604.24380"


@dataclass(frozen=True)
class Claim:
    """What a paper says of rankings, as a difference of what two sets of them keep.

    Attributes:
        name: in one or two words.
        says: the claim, in our words.
        ahead, behind: rankings of the preset; the claim is that the first keep more. Both empty: that rankings differ at all.
        between: the shares of the pruneable layers, (above, up to).
        own: whether rankings for a target count on that target's prompts only.
        equal: whether the claim is that rankings do not differ.
        open_ended: whether published numbers at larger budgets that contradict it are named too; a claim of its own speaks of none.
    """

    name: str
    says: str
    ahead: tuple[str, ...]
    behind: tuple[str, ...]
    between: tuple[float, float]
    own: bool = False
    equal: bool = False
    open_ended: bool = False


RANKINGS = (
    Claim(
        "1 Domain-aware helps",
        "At low budgets (up to 15 %) a ranking for a domain keeps more of that domain than one for the others.",
        (TARGET,),
        (OTHERS,),
        LOW,
        own=True,
        open_ended=True,
    ),
    Claim(
        "2 Mixed is stable",
        "At low budgets (up to 15 %) mixed keeps at least what the two rankings that it mixes keep on average, in every domain.",
        (MIXED,),
        (TARGET, OTHERS),
        LOW,
    ),
    Claim("3 Ranking-sensitive", "Up to 15 % it matters by which ranking layers go.", (), (), LOW),
    Claim("3 Transition", "From 15 to 32 % rankings come to the same.", (), (), MIDDLE, equal=True),
    Claim(
        "3 Structure-dominated",
        "Above 32 % what keeps spacing (Interlace) keeps more than the domain-aware rankings.",
        (INTERLACE,),
        AWARE,
        HIGH,
    ),
    Claim(
        "4 Beats baselines",
        "Up to 15 % domain-aware rankings keep more than CKA, Interlace and random draws.",
        AWARE,
        BASELINES,
        LOW,
    ),
    Claim("4 At larger budgets too", "Above 15 % they keep as much as these, or more.", AWARE, BASELINES, BEYOND),
)


def claims(
    comparison: Comparison | None = None,
    recording: Recording | None = None,
    damage: Damage | None = None,
    *,
    metric: str | None = None,
) -> pd.DataFrame:
    """Return the claims of papers with your numbers and a verdict each: columns `CLAIMS`, one row a claim and domain.

    `theirs` is what the paper's own tables say for the claim and `against` what they say against it, with the model, also at larger budgets
    where no other claim speaks of those; `yours` with its 90 %
    interval `low`, `high` is in `unit`: a difference in retention (0.1 is ten points), or in nats; NaN where there is none. Of regimes it
    is the spread of rankings, and `high` what it stays below in 95 % of cases if they are equally good. `p` is
    as it is, `verdict` by those that are corrected for the number of tests: "holds", "does not hold" or "cannot be told". `would_tell`
    says what would tell where nothing does.

    Args:
        comparison: best of the preset (`domain_aware_masks`); else methods stand in as in `regimes`. None lists the claims.
        recording, damage: similarities and measured damage of the same model, for the claim on cosine.
        metric: whose retention; the `telling` score by default.

    Raises:
        StrataError: as `cosine_against_damage`.
    """
    metric = metric or (telling(comparison) if comparison else "")
    rows = [row for claim in RANKINGS for row in _of_rankings(claim, comparison, metric)]
    rows += [_of_cosine(recording, damage), _of_recovery()]
    frame = pd.DataFrame(rows)
    corrected, n_tests = holm(frame["p"].to_numpy(np.float64)), int(frame["p"].notna().sum())
    frame["verdict"] = [
        _verdict(p, row["yours"], bool(row["equal"])) for p, (_, row) in zip(corrected, frame.iterrows(), strict=True)
    ]
    frame["would_tell"] = [
        "" if row["verdict"] != UNTOLD else row["would_tell"] or _prompts_for(row, n_tests)
        for _, row in frame.iterrows()
    ]
    return frame[list(CLAIMS)]


def _verdict(p: float, value: float, equal: bool) -> str:
    if not p <= ALPHA:  # NaN too
        return UNTOLD
    if equal:
        return FAILS
    return HOLDS if value > 0 else FAILS


def _row(claim: Claim, **more: object) -> dict[str, object]:
    theirs, against = _published(claim)
    empty: dict[str, object] = {"domain": "", "yours": np.nan, "low": np.nan, "high": np.nan, "unit": "retention"}
    empty |= {"n_prompts": 0, "n_groups": 0, "p": np.nan, "would_tell": COMPARE, "equal": claim.equal}
    return {
        **empty,
        "claim": claim.name,
        "paper": PAPER,
        "says": claim.says,
        "theirs": theirs,
        "against": against,
        **more,
    }


def _of_rankings(claim: Claim, comparison: Comparison | None, metric: str) -> list[dict[str, object]]:
    """Return a row for each domain of a comparison, or one without numbers."""
    if comparison is None:
        return [_row(claim)]
    return [_row(claim, domain=domain, **_told(claim, comparison, domain, metric)) for domain in comparison.domains]


def _told(claim: Claim, comparison: Comparison, domain: str, metric: str) -> dict[str, object]:
    """Return the numbers of one claim on one domain, and what would tell where there are none."""
    rows = comparison.rows(domain, metric)
    answers = Answers(*kept_scores(comparison, domain, metric), comparison.groups[rows])
    n_prompts, n_groups, _, groups_answered = answers.counts
    told: dict[str, object] = {"n_prompts": n_prompts, "n_groups": n_groups}
    budgets = _budgets(comparison, claim.between)
    if not budgets:
        least, most = claim.between
        return told | {"would_tell": f"No mask drops {least:.0%} to {most:.0%} of the pruneable layers. {COMPARE}"}
    if groups_answered < LEAST_GROUPS:
        few = f"the dense model answers prompts in {counted(groups_answered, 'group')}"
        return told | {
            "would_tell": f"Prompts in {LEAST_GROUPS} groups at least that the dense model answers; here {few}."
        }
    numbers = (_differ if not claim.ahead else _gain)(claim, comparison, domain, answers, budgets)
    return told | ({"would_tell": COMPARE} if numbers is None else {"would_tell": "", **numbers})


def _budgets(comparison: Comparison, between: tuple[float, float]) -> list[int]:
    """Return the compared budgets whose share of the pruneable layers is above the first and up to the second."""
    n_pruneable = max(1, comparison.dense.model.n_layers - 2)
    least, most = between
    return [int(one) for one in sorted(comparison.ways["budget"].unique()) if least < one / n_pruneable <= most]


def _places(comparison: Comparison, reading: str, budget: int, target: str | None) -> list[int]:
    """Return the places of a reading's masks, or of the method's that stands in for it; a target's only where one is given."""
    ways = comparison.ways[comparison.ways["budget"] == budget]
    found = ways[ways["strategy"] == reading]
    if found.empty:
        standing = next((method for method, one in STAND_INS.items() if one == reading), reading)
        of_criterion = (ways["criterion"] == standing) & (ways["strategy"] == PLAIN)
        found = ways[of_criterion | ((ways["strategy"] == standing) & ways["criterion"].isna())]
    if target is not None and (found["target"] == target).any():
        found = found[found["target"] == target]
    return sorted(set(map(int, found["place"])))


def _mean(
    claim: Claim, comparison: Comparison, domain: str, kept: np.ndarray, readings: Sequence[str], budget: int
) -> np.ndarray | None:
    """Return what readings keep of each prompt, mean over each one's masks, then over those that were compared; None without any."""
    places = [_places(comparison, one, budget, domain if claim.own else None) for one in readings]
    means = [kept[its].mean(axis=0) for its in places if its]
    return np.mean(means, axis=0) if means else None


def _gain(
    claim: Claim, comparison: Comparison, domain: str, answers: Answers, budgets: Sequence[int]
) -> dict[str, object] | None:
    differences = []
    for budget in budgets:
        ahead, behind = (
            _mean(claim, comparison, domain, answers.kept, side, budget) for side in (claim.ahead, claim.behind)
        )
        if ahead is not None and behind is not None:
            differences.append(ahead - behind)
    if not differences:
        return None
    yours, low, high, p = answers.paired(np.mean(differences, axis=0))
    return {"yours": yours, "low": low, "high": high, "p": p}


def _differ(
    claim: Claim, comparison: Comparison, domain: str, answers: Answers, budgets: Sequence[int]
) -> dict[str, object] | None:
    """Return the largest spread of the rankings' masks over its noise, tested over the budgets (Bonferroni)."""
    found = []
    for budget in budgets:
        single = sorted({place for one in (*AWARE, CKA, INTERLACE) for place in _places(comparison, one, budget, None)})
        drawn = sorted({*_places(comparison, DRAWN, budget, None)} - set(single))
        n_methods = len(single) + bool(drawn)
        _, spread, noise, p = answers.spread(n_methods, np.array(single, int), np.array(drawn, int))
        if np.isfinite(p):
            found.append((p, spread, noise))
    if not found:
        return None
    p, spread, noise = min(found)
    more = "More prompts: a spread below its noise does not show that rankings are alike."
    return {
        "yours": spread,
        "high": noise,
        "unit": SPREAD,
        "p": min(1.0, p * len(found)),
        "would_tell": more,
    }


def _prompts_for(row: pd.Series, n_tests: int) -> str:
    """Return how many prompts of the same mix would tell a gap as measured in 80 % of cases, by the normal approximation."""
    gap, n_groups = abs(float(row["yours"])), int(row["n_groups"])
    reach = (float(row["high"]) - float(row["low"])) / 2
    if not (gap > 1e-9 and math.isfinite(reach)):
        return "No number of such prompts: both sides keep the same. Compare on harder prompts or at other budgets."
    error = reach / critical_t(SHARE, max(1, n_groups - 1))
    needed = NormalDist().inv_cdf(1 - ALPHA / max(1, n_tests) / 2) + NormalDist().inv_cdf(POWER)
    prompts = math.ceil(int(row["n_prompts"]) * (needed * error / gap) ** 2)
    if prompts > MOST_PROMPTS:
        return "No reasonable number of such prompts: both sides keep all but the same."
    return f"About {max(prompts, int(row['n_prompts']) + 1):,} prompts of this domain, if the gap is as measured (80 % power)."


def _published(claim: Claim) -> tuple[str, str]:
    """Return what the tables of arXiv:2603.20275 say for a claim and against it, in points of retention."""
    table = published_retention()
    least, most = claim.between
    table = table[(table["share"] > least) & ((table["share"] <= most) | claim.open_ended)]
    method_of = {reading: method for method, reading in READING_OF.items()}
    ours: list[str] = []
    others: list[str] = []
    beyond: list[str] = []
    for (model, group, share), cells in table.groupby(["model", "group", "share"], sort=False):
        kept = cells.set_index("method")["retention"] * 100
        where = f"{str(model).removesuffix('-Instruct')}, {group}, {share:.0%}"
        if not claim.ahead:
            ours.append(f"{where}: {kept.min():.1f} to {kept.max():.1f} %")
            continue
        sides = [[method_of[one] for one in side] for side in (claim.ahead, claim.behind)]
        if claim.own and group == "general":  # the target of the paper's rankings is math
            sides = sides[::-1]
        ahead, behind = (float(kept[side].mean()) for side in sides)
        line = f"{ahead:.1f} against {behind:.1f} %"
        if float(cells["share"].iloc[0]) <= most:
            (ours if ahead >= behind else others).append(f"{where}: {line}")
        elif ahead < behind:
            beyond.append(f"{where}, a larger budget: {line}")
    if claim.equal:
        ours, others = [], ours
    return "; ".join(ours), "; ".join([*others, *beyond])


def _of_cosine(recording: Recording | None, damage: Damage | None) -> dict[str, object]:
    """Return the claim on cosine: the worst of the third of layers that cosine drops first does more harm than the mean of the others."""
    claim: dict[str, object] = {
        "claim": "5 Cosine misleads",
        "paper": _COSINE_PAPER,
        "says": "A layer that cosine calls redundant can be crucial: among the third that cosine drops first, one does more harm than the "
        "other layers on average.",
        "theirs": "Argued on language models. No table of it is kept here.",
        "against": "",
        "domain": "",
        "yours": np.nan,
        "low": np.nan,
        "high": np.nan,
        "unit": "nats of KL",
        "n_prompts": 0,
        "n_groups": 0,
        "p": np.nan,
        "would_tell": MEASURE,
        "equal": False,
    }
    return claim | _harm(recording, damage) if recording is not None and damage is not None else claim


def _harm(recording: Recording, damage: Damage) -> dict[str, object]:
    frame = cosine_against_damage(recording, damage)
    free = range(1, recording.n_layers - 1)
    ranked = frame[frame["layer"].isin(free) & frame["rank_gap"].notna()].sort_values("block_influence", kind="stable")
    first = [int(layer) for layer in ranked["layer"][: len(ranked) // 3]]
    rest = [int(layer) for layer in ranked["layer"] if int(layer) not in first]
    if not first or not rest:
        return {}
    values = damage.values["kl_to_dense"]
    worst = max(first, key=lambda layer: float(values[:, layer].mean()))
    gap = values[:, worst] - values[:, rest].mean(axis=1)
    ones = np.ones(len(gap))
    answers = Answers(ones[None], ones, group_numbers(damage.groups, len(gap)))
    if answers.counts[1] < LEAST_GROUPS:
        return {"would_tell": f"Measured damage of prompts in {LEAST_GROUPS} groups at least."}
    yours, low, high, p = answers.paired(gap)
    numbers = {"yours": yours, "low": low, "high": high, "p": min(1.0, p * len(first))}
    counts = {"n_prompts": answers.counts[0], "n_groups": answers.counts[1]}
    return {**numbers, **counts, "domain": f"layer {worst}", "would_tell": ""}


def _of_recovery() -> dict[str, object]:
    return {
        "claim": "6 Recovery brings depth back",
        "paper": _RECOVERY_PAPER,
        "says": "A short tuning with distilled hidden states brings a model without 15 % of its layers back to 98 % of its scores.",
        "theirs": "Three VLMs of 3B to 7B: 98.1 % at 15 %, 96.4 % at 30 %. Without recovery 15 % of layers cost 10 to 28 % of the score.",
        "against": "",
        "domain": "",
        "yours": np.nan,
        "low": np.nan,
        "high": np.nan,
        "unit": "retention",
        "n_prompts": 0,
        "n_groups": 0,
        "p": np.nan,
        "would_tell": "Nothing was recovered. Tune the pruned and the dense model alike, and evaluate both on these prompts.",
        "equal": False,
    }
