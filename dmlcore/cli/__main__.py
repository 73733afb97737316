"""`python -m dmlcore.cli`."""

from dmlcore.cli import app

app()
