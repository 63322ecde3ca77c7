"""Ranking layers: criteria turn a Recording into LayerScores; each says which end is dropped first."""

from vlm_analysis.rank.criteria import CRITERIA, Criterion, score_layers
from vlm_analysis.rank.scores import LayerScores

__all__ = ["CRITERIA", "Criterion", "LayerScores", "score_layers"]
