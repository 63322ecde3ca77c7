"""Pocket-VL: the small vision-language model bundled with Strata, its drawn tasks and its training."""
