"""Contests: the best edit of each kind at one budget, side by side."""
