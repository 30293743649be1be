"""A run directory: its paths, stages, checkpoints, tables and provenance."""
