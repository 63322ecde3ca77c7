"""Ranking layers: criteria turn a Recording into LayerScores; each says which end is dropped first."""

from vlm_analysis.rank.criteria import CRITERIA, Criterion
from vlm_analysis.rank.damage import Damage, read_damage
from vlm_analysis.rank.scores import LayerScores
from vlm_analysis.rank.scoring import draw_scores, score_layers, usable_criteria

__all__ = [
    "CRITERIA",
    "Criterion",
    "Damage",
    "LayerScores",
    "draw_scores",
    "read_damage",
    "score_layers",
    "usable_criteria",
]
