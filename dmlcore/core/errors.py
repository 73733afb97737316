"""Errors that more than one package raises, and what no message shows."""

import re

USER = re.compile(r"(?<=://)[^/?#\s'\"]*@")
SECRET = re.compile(r"(?i)([?&][\w.-]*(?:password|passwd|pwd|secret|token|key)[\w.-]*=)[^&\s'\"]+")


class DataError(ValueError):
    """Data breaks a rule; the message says what is wrong, the row or file, and the fix."""


def without_passwords(text: str) -> str:
    """Return a text in which no address has a user, a password, or a secret among its arguments."""
    return SECRET.sub(r"\1***", USER.sub("***@", text))
