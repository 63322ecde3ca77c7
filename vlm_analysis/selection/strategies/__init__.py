"""Strategies: make a mask from scores, spans or neither."""
