"""Reading finished runs and rendering their report, without torch."""
