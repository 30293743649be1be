"""What a person writes: experiment, sweep and study files, read without torch."""
