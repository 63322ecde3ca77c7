"""Cosine against damage: where the cheap score and the measured damage disagree, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.certainty.agreement import kendall_tau
from vlm_analysis.selection.criteria.damage import Damage, read_damage
from vlm_analysis.selection.criteria.scoring import score_layers
from vlm_analysis.words import counted, layers, sentence

if TYPE_CHECKING:
    from vlm_analysis.evaluation.evaluation import Evaluation

CRUCIAL = "cosine calls it redundant, damage ranks it among the worst to lose"
SPARE = "cosine calls it important, damage ranks it among the first that can go"
OUTLIER_SHARE = 1 / 3  # of the ranked layers: a gap in rank that makes an outlier; our choice
OUTLIER_LEAST = 2  # ranks, however few layers there are
DEGREES = (
    (0.6, "agree"),
    (0.2, "agree in part"),
    (-0.2, "hardly agree"),
    (-2.0, "contradict each other"),
)  # tau above; ours
DAMAGE_NAMES = {"damage_kl": "KL to the dense model", "damage_nll": "answer NLL"}


def cosine_against_damage(
    recording: Recording,
    damage: Sequence[Evaluation] | Damage,
    token_group: str = "all",
    target: str | None = None,
    *,
    by: Literal["damage_kl", "damage_nll"] = "damage_kl",
) -> pd.DataFrame:
    """Return one row a layer, for a scatter of block influence against measured damage.

    Columns: `layer`; `block_influence` (1 − mean cosine); `damage_kl` and `damage_nll` in nats; the spread of
    each over draws of the prompts (`block_influence_spread` and so on); `cosine_rank` and `damage_rank`, 0
    for the layer that goes first, ties share their mean, NaN where one of the two is missing; `rank_gap`, damage rank minus
    cosine rank; `outlier`, whether the gap is at least a third of the ranked layers and 2 (our choice); `direction`, what an
    outlier means, else "".

    Args:
        recording: the similarities.
        damage: leave-one-out Evaluations, or the Damage that `read_damage` returned.
        token_group: whose cosines.
        target: the domain whose cosines and damage count; None for all prompts.
        by: which damage is ranked.

    Raises:
        StrataError: as `score_layers`.
    """
    read = damage if isinstance(damage, Damage) else read_damage(damage, recording.model)
    by_column = {
        "block_influence": score_layers(recording, "block-influence", domain=target, token_group=token_group),
        "damage_kl": score_layers(recording, "damage-kl", target=target, damage=read),
        "damage_nll": score_layers(recording, "damage-nll", target=target, damage=read),
    }
    frame = pd.DataFrame({"layer": np.arange(recording.n_layers)})
    for name, scores in by_column.items():
        frame[name], frame[f"{name}_spread"] = scores.values, scores.spread
    both = frame[["block_influence", by]].notna().all(axis=1)
    frame["cosine_rank"] = frame["block_influence"].where(both).rank() - 1
    frame["damage_rank"] = frame[by].where(both).rank() - 1
    frame["rank_gap"] = frame["damage_rank"] - frame["cosine_rank"]
    frame["outlier"] = frame["rank_gap"].abs() >= max(OUTLIER_LEAST, OUTLIER_SHARE * int(both.sum()))
    direction = np.where(frame["rank_gap"] > 0, CRUCIAL, SPARE)
    frame["direction"] = np.where(frame["outlier"], direction, "")
    frame.attrs["by"] = by
    return frame


def misleading_words(frame: pd.DataFrame, most: int = 3) -> list[str]:
    """Return sentences on where cosine would mislead, from the frame that `cosine_against_damage` returned."""
    by = frame.attrs.get("by", "damage_kl")
    ranked = frame[frame["rank_gap"].notna()]
    if len(ranked) < 2:
        return [
            "Too few layers have both a cosine and a measured damage to compare them: measure the damage of more layers."
        ]
    tau = kendall_tau(ranked["block_influence"].to_numpy(), ranked[by].to_numpy())
    sentences = [_overall(tau, len(ranked), DAMAGE_NAMES[by])]
    worst = ranked[ranked["outlier"]].sort_values("rank_gap", key=lambda gaps: -gaps.abs(), kind="stable")
    sentences += [_outlier(row, len(ranked), by) for _, row in worst.head(most).iterrows()]
    if len(worst) > most:
        sentences.append(f"Outliers too: {layers(int(layer) for layer in worst['layer'][most:])}.")
    if worst.empty:
        sentences.append(
            "No layer's two ranks lie a third of the layers apart: cosine misleads about none of them by far."
        )
    missing = sorted(set(frame["layer"]) - set(ranked["layer"]))
    if missing:
        what = (
            "lacks one of the two numbers and stands" if len(missing) == 1 else "lack one of the two numbers and stand"
        )
        sentences.append(f"{sentence(layers(missing))} {what} apart.")
    return sentences


def _overall(tau: float, number: int, damage: str) -> str:
    if np.isnan(tau):
        return f"Cosine and damage cannot be compared over {counted(number, 'layer')}: one of them is the same for all."
    how = next(words for least, words in DEGREES if tau > least)
    return f"Over {counted(number, 'layer')} cosine and measured damage ({damage}) {how}: Kendall tau {tau:.2f}, where 1 is the same order."


def _outlier(row: pd.Series, number: int, by: str) -> str:
    less = f"{row['damage_rank']:g} of the {counted(number, 'layer')} do less harm"
    what = (
        f"cosine drops it early, though {less}"
        if row["direction"] == CRUCIAL
        else f"cosine keeps it, though only {less}"
    )
    return (
        f"Layer {int(row['layer'])}: {row['direction']}. It goes {_position(row['cosine_rank'])} by cosine "
        f"(1 − cosine {row['block_influence']:.3g}) and {_position(row['damage_rank'])} by damage ({row[by]:.3g} nats): {what}."
    )


def _position(rank: float) -> str:
    return f"in place {rank + 1:g}"
