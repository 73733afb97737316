"""The `dmlcore` command, one subcommand a file; heavy libraries are imported by the subcommand that needs them."""

from dmlcore.cli.app import app

__all__ = ["app"]
