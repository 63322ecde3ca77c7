"""Selection: which layers to drop. Values and pure functions."""
