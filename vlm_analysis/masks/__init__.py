"""Prune masks: which layers are dropped, the strategies, searches and budgets that make one, and its file."""

from vlm_analysis.masks.beam import beam
from vlm_analysis.masks.budgets import Share
from vlm_analysis.masks.evolve import evolve
from vlm_analysis.masks.files import mask_from_json, mask_to_json, open_mask, plain, save_mask
from vlm_analysis.masks.greedy import GreedyStep, greedy, greedy_steps
from vlm_analysis.masks.make import make_mask, random_masks
from vlm_analysis.masks.many import Way, many_masks
from vlm_analysis.masks.mask import MOST_LAYERS, PruneMask
from vlm_analysis.masks.objective import SCORES, Objective
from vlm_analysis.masks.pairs import valid_pairs
from vlm_analysis.masks.search import most_tried
from vlm_analysis.masks.stability import MaskStability, mask_stability, mask_words
from vlm_analysis.masks.strategies import STRATEGIES, Strategy

__all__ = [
    "MOST_LAYERS",
    "SCORES",
    "STRATEGIES",
    "GreedyStep",
    "MaskStability",
    "Objective",
    "PruneMask",
    "Share",
    "Strategy",
    "Way",
    "beam",
    "evolve",
    "greedy",
    "greedy_steps",
    "make_mask",
    "many_masks",
    "mask_from_json",
    "mask_stability",
    "mask_to_json",
    "mask_words",
    "most_tried",
    "open_mask",
    "plain",
    "random_masks",
    "save_mask",
    "valid_pairs",
]
