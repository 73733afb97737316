"""Errors that more than one package raises."""


class DataError(ValueError):
    """Data that breaks a rule; the message says what, the rule, the row or file, and what to do."""
