"""Naive float64 references of the losses and metrics: the oracles of the tests."""
