"""Trained networks in the formats that other software runs."""
