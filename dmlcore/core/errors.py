"""Errors that more than one package raises."""


class DataError(ValueError):
    """Data breaks a rule; the message says what is wrong, the row or file, and the fix."""
