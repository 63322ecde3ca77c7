"""Comparisons: many masks on the same prompts, and what they tell."""
