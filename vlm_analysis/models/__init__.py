"""Models: the files of a checkpoint, its memory, loading, decoder layers, inputs and decoding."""

from vlm_analysis.gone import old_names

__getattr__ = old_names(__name__)
