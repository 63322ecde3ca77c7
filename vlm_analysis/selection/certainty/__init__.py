"""Certainty: how far a ranking or a mask can be trusted."""
