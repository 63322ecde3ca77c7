"""Prompts: images with questions, and every hostile way in which they can arrive."""
