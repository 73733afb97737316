"""The `dmlcore` command. Each subcommand imports the heavy libraries that it needs, so that `--help` stays fast."""

from dmlcore.cli.app import app

__all__ = ["app"]
