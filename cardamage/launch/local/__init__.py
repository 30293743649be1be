"""Stages as processes of this machine."""
