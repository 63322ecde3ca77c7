"""Searches over masks by measured damage."""
