"""Recovery: what a model with dropped layers gets back, by changes that are learnt on prompts."""
