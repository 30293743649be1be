"""A launched run: its record, its queue entries, its table."""
