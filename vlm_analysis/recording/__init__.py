"""Recordings: what each decoder layer does to its input, prompt by prompt."""
