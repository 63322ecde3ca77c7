"""Prompts: images with questions, read safely from folders, tables and archives."""

from vlm_analysis.gone import old_names

__getattr__ = old_names(__name__)
