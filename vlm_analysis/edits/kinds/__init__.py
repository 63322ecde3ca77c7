"""Kinds of change, one per file; `table` lists them."""
