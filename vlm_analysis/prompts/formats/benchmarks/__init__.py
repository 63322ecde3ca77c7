"""Tables of benchmarks: one file each, which says what its columns stand for."""
