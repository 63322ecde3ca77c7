"""What stands between Strata and files that it did not write: bounds, checks, and a process for programs of others."""
