"""Evaluations: the effect of an edit on the answers, and its savings. Values; `run` measures them."""

from vlm_analysis.gone import old_names

__getattr__ = old_names(__name__)
