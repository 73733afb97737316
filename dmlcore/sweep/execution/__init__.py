"""Execution of one trial in a worker process: its lock, its limits, its record."""
