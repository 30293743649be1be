"""The drill: a small run killed again and again, and compared with one left alone."""
