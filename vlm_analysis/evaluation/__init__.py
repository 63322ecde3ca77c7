"""Evaluations: what an edit did to the answers, and what it saves. Values; `run` measures them."""
