"""Stages as SLURM jobs."""
