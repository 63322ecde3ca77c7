"""Ranking layers: criteria turn a Recording into LayerScores; each says which end is dropped first.

How a page uses it (masks are made in `vlm_analysis.masks`):

    reasons = usable_criteria(recording, damage=damage)          # every key of CRITERIA: "" or why it cannot be used
    scores = score_layers(recording, "worst-case", token_group="vision")
    CRITERIA["worst-case"].formula, .source, .needs, .takes      # what to write beside it, and which controls to draw
    reasons = valid_pairs(recording, damage=damage)              # (criterion or None, strategy): "" or why not
    mask = make_mask(scores, "minimum-gap", 4, gap=1, protected=model.protected, locked=model.locked)
    mask = make_mask(None, "interlace", Share(0.2, of="parameters"), recording=recording, costs=parameters_by_layer)

    sure = rank_stability(recording, "worst-case", protected=model.protected)
    stability_words(sure, budget=4)                              # "Layers 4 and 7 cannot be told apart with your 12 prompts…"
    mask_words(mask_stability(recording, None, "angular-block", 4))

    agreement(recording, criteria_items(recording))              # Kendall's tau-b as a frame; domain_items, group_items too
    frame = cosine_against_damage(recording, damage)             # scatter block_influence against damage_kl; outlier, direction
    misleading_words(frame)
    skip_bands(recording, epsilon=0.05, delta=0.05, eta=0.1, tau=0.2)

`damage` is a list of Evaluations, one for each left-out layer and, if there is one, of the dense model; `read_damage` checks it
once for many calls.
"""

from vlm_analysis.rank.against import cosine_against_damage, misleading_words
from vlm_analysis.rank.agreement import agreement, criteria_items, domain_items, group_items, kendall_tau
from vlm_analysis.rank.bands import SkipBands, skip_bands
from vlm_analysis.rank.criteria import CRITERIA, Criterion
from vlm_analysis.rank.damage import Damage, read_damage
from vlm_analysis.rank.scores import LayerScores
from vlm_analysis.rank.scoring import ScoreDraws, draw_scores, score_layers, usable_criteria
from vlm_analysis.rank.stability import RankStability, Unsure, rank_stability, stability_words

__all__ = [
    "CRITERIA",
    "Criterion",
    "Damage",
    "LayerScores",
    "RankStability",
    "ScoreDraws",
    "SkipBands",
    "Unsure",
    "agreement",
    "cosine_against_damage",
    "criteria_items",
    "domain_items",
    "draw_scores",
    "group_items",
    "kendall_tau",
    "misleading_words",
    "rank_stability",
    "read_damage",
    "score_layers",
    "skip_bands",
    "stability_words",
    "usable_criteria",
]
