"""Searches: which values are tried next, and which trials go on, told by stored results alone."""
