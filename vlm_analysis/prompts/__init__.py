"""Prompts: images with questions, and every hostile way in which they can arrive."""

from vlm_analysis.gone import old_names

__getattr__ = old_names(__name__)
