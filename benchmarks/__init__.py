"""One script per claim of speed; each prints a table."""
