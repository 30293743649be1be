"""The machine under us: files, locks, processes and the terminal; no domain word, no torch."""
