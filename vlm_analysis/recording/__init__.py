"""Recordings: what each decoder layer does to its input, prompt by prompt."""

from vlm_analysis.gone import old_names

__getattr__ = old_names(__name__)
