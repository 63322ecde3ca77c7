"""Width: which MLP neurons and attention groups of a model can go (µCRASP, arXiv:2605.25842)."""
