"""A probe that travels with an exported checkpoint: prompts, pictures and its own answers, to ask any server of it."""
