"""Export: checkpoints with their proof, masks in other formats, model cards, stories and reports."""

from vlm_analysis.gone import old_names

__getattr__ = old_names(__name__)
