"""Models: what lies in a checkpoint, whether it fits, loading it, and where it hides its decoder layers."""

from vlm_analysis.gone import old_names

__getattr__ = old_names(__name__)
