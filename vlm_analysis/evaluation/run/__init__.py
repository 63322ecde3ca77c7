"""Running models: scores of one edit or of many, responses, latency and cost."""
