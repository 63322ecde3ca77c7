"""Edits: changes to a dense model, as a value and as a view of the model."""
