"""Packed datasets: made, read and loaded in an exact order."""
