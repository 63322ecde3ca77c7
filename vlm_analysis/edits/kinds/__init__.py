"""Kinds of change, one a file; `table` is the table of them."""
