"""Strategies: from scores, spans or nothing to a mask."""
