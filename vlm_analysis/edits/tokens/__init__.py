"""Layers that run on a part of the tokens."""
