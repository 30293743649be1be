"""Submitting and watching runs, here or on SLURM; no torch."""
