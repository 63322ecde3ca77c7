"""Searches over masks, on what was measured."""
