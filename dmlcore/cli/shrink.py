"""`dmlcore shrink`: a large study as its small twin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HEADER = """# Written by `dmlcore shrink {source}`: do not edit, change {source}/params.yaml and write it again.
# The study in small, so that every line of it runs in minutes. Its numbers mean nothing.
"""


def shrink(
    source: Annotated[Path, typer.Argument(help="Folder of the study to shrink: the one with params.yaml.")],
    into: Annotated[Path, typer.Option(help="Folder of the small twin; its params.yaml is replaced.")],
) -> None:
    """Write the small twin of a study: same data formats, backbones, losses and arms; all that costs time made small.

    Example: dmlcore shrink studies/paper --into studies/paper-small
    """
    from dmlcore.atomic import write_atomically

    write_atomically(into / "params.yaml", shrunk_text(source))


def shrunk_text(source: Path) -> str:
    """The params.yaml of the small twin of the study in the folder `source`."""
    import yaml

    from dmlcore.config import StudyParams, load_study, parse
    from dmlcore.tuning.shrink import shrink as shrunk

    load_study(source / "params.yaml")
    values = shrunk(yaml.safe_load((source / "params.yaml").read_text(encoding="utf-8")))
    parse(StudyParams, values, f"the small twin of {source}")
    body = yaml.safe_dump(values, sort_keys=False, width=110)
    return HEADER.format(source=source.as_posix()) + body
