"""Criteria: one score a layer."""
