"""Submitting, watching and stopping runs, without torch."""
