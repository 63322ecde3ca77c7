"""Evaluations: what an edit did to the answers, and what it saves. Values; `run` measures them."""

from vlm_analysis.gone import old_names

__getattr__ = old_names(__name__)
