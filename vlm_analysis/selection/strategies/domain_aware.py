"""The preset "domain-aware, as in arXiv:2603.20275": every choice of that paper at once, and its own forms of CKA and Interlace.

What the paper says: all prompt tokens; a domain's score of a layer is the mean over its prompts of the mean cosine over tokens;
z-scores over the pruneable layers, which are all but the first and the last; floor(p · (L − 2)) of them go, those with the largest z,
for p of 10, 25 and 40 %; mixed is 0.7 · z of the others + 0.3 · z of the target. Its CKA compares consecutive layers on one pooled row a
task; its Interlace scores triplets by the mean of two cosines of pooled rows. Both differ from the published methods, which `linear-cka`
and `interlace` are.

What is ours: the others of several domains are their mean; the stream behind a layer is what enters the next one, so what DeepStack adds
counts with the layer before; ties go to the lower layer; layers that cannot be dropped at all, or that you keep, are passed over, without
a change of the number that goes; once its triplets run out, Interlace goes on with pairs by S_2, then with single layers by S_1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from vlm_analysis.edits.edit import Edit, PruneMask
from vlm_analysis.errors import MaskError, StrataError
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.progress import stop_if_asked
from vlm_analysis.recording.recording import Recording
from vlm_analysis.recording.tasks import pooled_rows
from vlm_analysis.selection.criteria.similarity import z_scores
from vlm_analysis.selection.strategies.many import RANDOM, Way
from vlm_analysis.selection.strategies.spans import triplets_first
from vlm_analysis.words import counted

DOMAIN_AWARE = "domain-aware"
PAPER = "arXiv:2603.20275"
TITLE = f"Domain-aware, as in {PAPER}"
SHARES = (0.1, 0.25, 0.4)
WEIGHT = 0.7  # of the others, in mixed
DRAWN = "random-draw"


@dataclass(frozen=True)
class Question:
    """What a reading is asked.

    Attributes:
        recording: what was measured.
        target: the domain whose answers should survive.
        weight: of the other domains, in mixed.
        candidates: the layers that may go, ascending.
        budget: how many of them go.
        seed: of a random draw.
    """

    recording: Recording
    target: str
    weight: float
    candidates: list[int]
    budget: int
    seed: int

    @property
    def pruneable(self) -> list[int]:
        """Return all layers but the first and the last, over which z-scores are taken."""
        return list(range(1, self.recording.n_layers - 1))

    def z(self, *domains: str) -> np.ndarray:
        """Return the (n_layers − 2,) z-scores over the pruneable layers of the mean over domains of the mean cosine."""
        means = [self.recording.layer_similarity(domain, "all")[1:-1] for domain in domains]
        return z_scores(np.mean(means, axis=0))

    @property
    def others(self) -> list[str]:
        return sorted(set(self.recording.domain_names) - {self.target})


@dataclass(frozen=True)
class Reading:
    """One ranking of the preset.

    Attributes:
        title: on screen and in the names of masks.
        formula: in the notation of this module.
        of_target: whether it depends on the target domain.
        choose: returns the layers in drop order.
        drawn: whether it is a seeded draw.
    """

    title: str
    formula: str
    of_target: bool
    choose: Callable[[Question], list[int]]
    drawn: bool = False


def _first(question: Question, values: np.ndarray) -> list[int]:
    """Return the candidates with the largest of (n_layers − 2,) values; those without a value are passed over."""
    value = dict(zip(question.pruneable, values, strict=True))
    scored = [layer for layer in question.candidates if not math.isnan(value[layer])]
    return sorted(scored, key=lambda layer: (-value[layer], layer))[: question.budget]


def _target(question: Question) -> list[int]:
    return _first(question, question.z(question.target))


def _others(question: Question) -> list[int]:
    return _first(question, question.z(*question.others))


def _mixed(question: Question) -> list[int]:
    own, others = question.z(question.target), question.z(*question.others)
    return _first(question, question.weight * others + (1 - question.weight) * own)


def _cka(question: Question) -> list[int]:
    return _first(question, pooled_cka(question.recording)[1:-1])


def _interlace(question: Question) -> list[int]:
    rows, inside = pooled_rows(question.recording), question.pruneable
    single, pair = _pooled_cosine(rows, 1), _pooled_cosine(rows, 2)
    triple = (single[:-1] + single[1:]) / 2
    starts = {3: _inside(triple, inside, 3), 2: _inside(pair, inside, 2)}
    return triplets_first(question.candidates, question.budget, single, starts)[0]


def _random(question: Question) -> list[int]:
    drawn = np.random.default_rng(question.seed).choice(question.candidates, question.budget, replace=False)
    return [int(layer) for layer in drawn]


READINGS: dict[str, Reading] = {
    "domain-aware-target": Reading("Target-aware", "z of the target", True, _target),
    "domain-aware-others": Reading("Others-aware", "z of the other domains", True, _others),
    "domain-aware-mixed": Reading("Mixed", "0.7 · z of the others + 0.3 · z of the target", True, _mixed),
    "domain-aware-cka": Reading(
        "CKA over tasks", "linear CKA of the pooled rows that enter and leave layer l; the highest goes", False, _cka
    ),
    "domain-aware-interlace": Reading(
        "Interlace over tasks",
        "triplets by (S_l + S_{l+1}) / 2, S_l the mean cosine over tasks of the pooled rows that enter and leave layer l; of a triplet's "
        "first two the one with the larger S goes",
        False,
        _interlace,
    ),
    DRAWN: Reading("Random", "a seeded draw of the pruneable layers", False, _random, drawn=True),
}
"""The rankings of the preset, by their names in comparisons."""


def count_dropped(n_layers: int, share: float | Fraction) -> int:
    """Return floor(share · (n_layers − 2)), exactly: 0.1 counts as one tenth.

    Raises:
        MaskError: a share outside [0, 1], or a model of fewer than three layers.
    """
    if isinstance(share, bool) or not isinstance(share, (int, float, Fraction)) or not 0 <= share <= 1:
        raise MaskError(
            f"The share of pruneable layers cannot be used: expected a number in [0, 1], got {share!r}. The paper takes 0.1, 0.25 and 0.4."
        )
    if n_layers < 3:
        raise MaskError(
            f"No layer is pruneable: expected a model of three layers at least, got {n_layers}. The first and the last stay."
        )
    return math.floor(Fraction(str(share)) * (n_layers - 2))


def pooled_cka(recording: Recording) -> np.ndarray:
    """Return the (n_layers,) float64 linear CKA of the pooled rows before and behind each layer, one row a task, in [0, 1].

    Rows are centred over tasks; NaN where they are all equal. The paper names the rows behind layer l X_l and drops layer l + 1 where
    CKA(X_l, X_{l+1}) is high; the number here stands at the layer that goes.

    Raises:
        RecordingError: as `pooled_rows`.
    """
    rows = pooled_rows(recording)
    centred = (rows - rows.mean(axis=0)).transpose(1, 0, 2)
    grams = (centred @ centred.transpose(0, 2, 1)).reshape(len(centred), -1)
    norms = np.linalg.norm(grams, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((grams[:-1] * grams[1:]).sum(axis=1) / (norms[:-1] * norms[1:]))


def _pooled_cosine(rows: np.ndarray, n: int) -> np.ndarray:
    """Return the (n_layers − n + 1,) mean over tasks of the cosine of the pooled rows before layer l and layer l + n."""
    with np.errstate(invalid="ignore", divide="ignore"):
        units = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray((units[:, :-n] * units[:, n:]).sum(axis=-1).mean(axis=0))


def _inside(values: np.ndarray, inside: Sequence[int], size: int) -> np.ndarray:
    """Return the values with NaN at each start of `size` layers that are not all pruneable."""
    starts = np.arange(len(values))
    return np.where((starts >= inside[0]) & (starts + size - 1 <= inside[-1]), values, np.nan)


def domain_aware_mask(
    recording: Recording,
    reading: str = "domain-aware-mixed",
    share: float | Fraction = 0.25,
    *,
    target: str | None = None,
    weight: float = WEIGHT,
    keep_deepstack: bool = False,
    keep: Collection[int] = (),
    seed: int = 0,
) -> Edit:
    """Return the mask of one reading of the preset; every choice is in its provenance.

    Args:
        recording: what was measured. The readings over tasks need one of prompts with three tasks or more.
        reading: a key of `READINGS`.
        share: of the pruneable layers, in [0, 1]; rounded down. The paper takes 0.1, 0.25 and 0.4.
        target: the domain whose answers should survive, the recording's first by default.
        weight: of the other domains in mixed, in [0, 1]; 0.7 in the paper.
        keep_deepstack: whether layers after which vision features are added stay too. The paper lets them go.
        keep: layers that stay too; those that the model cannot run without always do.
        seed: of a random draw.

    Raises:
        MaskError: an unknown reading or target, a share or weight out of range, one domain where two are needed, or too few layers that
            may go.
        RecordingError: the recording lacks the mean states of tasks.
    """
    question = _question(recording, reading, share, target, weight, keep_deepstack, keep, seed)
    row = READINGS[reading]
    chosen = row.choose(question) if question.budget else []
    if len(chosen) < question.budget:
        raise MaskError(
            f"Cannot drop {counted(question.budget, 'layer')}: only {len(chosen)} of those that may go have a score. Lower the share."
        )
    options: dict[str, Any] = {"target": question.target} if row.of_target else {"seed": seed} if row.drawn else {}
    options |= {"weight": float(weight)} if reading == "domain-aware-mixed" else {}
    provenance = {
        "strategy": reading,
        "preset": TITLE,
        "formula": row.formula,
        "budget": question.budget,
        "share": str(Fraction(str(share))),
        "pruneable": question.pruneable,
        "candidates": question.candidates,
        "keep_deepstack": keep_deepstack,
        "token_group": "all",
        "drop_order": chosen,
        "recording_prompts": recording.prompts,
        **options,
    }
    name = f"{method_of(reading, question.target)}, {question.budget}"
    return PruneMask(recording.n_layers, tuple(chosen), name=name, provenance=provenance)


def method_of(reading: str, target: str) -> str:
    """Return what masks of a reading are listed as, without their number of layers."""
    row = READINGS[reading]
    return RANDOM if row.drawn else f"{row.title}{f' ({target})' if row.of_target else ''}, {PAPER}"


def _question(
    recording: Recording,
    reading: str,
    share: float | Fraction,
    target: str | None,
    weight: float,
    keep_deepstack: bool,
    keep: Collection[int],
    seed: int,
) -> Question:
    names = recording.domain_names
    if reading not in READINGS:
        raise MaskError(f"Unknown reading of the preset: expected one of {list(READINGS)}, got {reading!r}.")
    if not 0 <= weight <= 1:
        raise MaskError(f"The weight of the other domains must lie in [0, 1], got {weight!r}.")
    if target is not None and target not in names:
        raise MaskError(f"No such target domain: expected one of {list(names)}, got {target!r}.")
    if reading in ("domain-aware-others", "domain-aware-mixed") and len(names) < 2:
        raise MaskError(
            f"{READINGS[reading].title} compares domains: expected at least two, got only {names[0]!r}. Add prompts of another."
        )
    model, budget = recording.model, count_dropped(recording.n_layers, share)
    stays = {*map(int, keep), *model.locked, *(deepstack_layers(model) if keep_deepstack else ())}
    candidates = [layer for layer in range(1, recording.n_layers - 1) if layer not in stays]
    if budget > len(candidates):
        raise MaskError(
            f"Cannot drop {counted(budget, 'layer')}: {len(candidates)} may go. Lower the share or keep fewer layers."
        )
    return Question(recording, names[0] if target is None else target, weight, candidates, budget, seed)


def deepstack_layers(model: ModelInfo) -> list[int]:
    """Return the layers after which DeepStack adds vision features, ascending."""
    return sorted(layer for layer, reason in model.protected.items() if "DeepStack" in reason)


def domain_aware_masks(
    recording: Recording,
    shares: Sequence[float | Fraction] = SHARES,
    *,
    targets: Collection[str] | None = None,
    keep_deepstack: bool = False,
    n_draws: int = 5,
    seed: int = 0,
) -> tuple[list[Way], dict[str, str]]:
    """Return the masks of every reading of the preset at these shares, and by method the reason where there is none.

    They are ways for `compare_masks`, as those of `many_masks`. Shares that come to the same number of layers count once, and none to 0.

    Args:
        recording, shares, keep_deepstack: as in `domain_aware_mask`.
        targets: the domains to be each the target; None for all.
        n_draws, seed: random draws at each share, with consecutive seeds.

    Raises:
        MaskError: a share out of range, or an unknown target.
        Cancelled: raised by `stop_if_asked`, before a mask is made.
    """
    ways: list[Way] = []
    refused: dict[str, str] = {}
    budgets = {count: share for share in reversed(shares) if (count := count_dropped(recording.n_layers, share))}
    for key, row in READINGS.items():
        for target in recording.domain_names if targets is None else targets:
            if not row.of_target and target != next(iter(targets or recording.domain_names)):
                continue
            method = method_of(key, target)
            for budget in sorted(budgets):
                for draw in range(n_draws if row.drawn else 1):
                    stop_if_asked()
                    asked: dict[str, Any] = {"target": target, "keep_deepstack": keep_deepstack, "seed": seed + draw}
                    try:
                        mask = domain_aware_mask(recording, key, budgets[budget], **asked)
                    except StrataError as error:
                        refused.setdefault(method, str(error))
                        continue
                    suffix = f", draw {draw + 1}" if row.drawn else ""
                    named = replace(mask, name=f"{method}, {counted(budget, 'layer')}{suffix}")
                    ways.append(Way(method, None, key, target if row.of_target else None, budget, draw, named))
    return ways, refused
