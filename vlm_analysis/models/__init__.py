"""Models: what lies in a checkpoint, whether it fits, loading it, and where it hides its decoder layers."""
