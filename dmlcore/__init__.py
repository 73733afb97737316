"""Threshold-consistent deep metric learning: losses, metrics, and the study that compares them."""
