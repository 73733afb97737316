"""Dry run: what a sweep would run and need, for `dmlcore plan`."""
