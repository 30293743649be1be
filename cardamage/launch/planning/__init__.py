"""What would run, and what would be refused."""
