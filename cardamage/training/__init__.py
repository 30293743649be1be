"""Losses, optimisers and checkpoints: what the training loop is made of."""
