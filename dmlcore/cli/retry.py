"""`dmlcore retry`: failed and cancelled trials run again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmlcore.cli.options import INCOMPLETE, Study

if TYPE_CHECKING:
    from dmlcore.records import TrialRecord


def retry(
    trials: Annotated[
        list[str] | None, typer.Argument(help="Keys of failed or cancelled trials, or their beginnings.")
    ] = None,
    study: Study = Path(),
    all_failed: Annotated[bool, typer.Option("--all-failed", help="Every failed trial.")] = False,
) -> None:
    """Set the records of failed or cancelled trials aside, so that the next `dvc repro` runs them again.

    A record is renamed to KEY.json.retried in state/records. A trial resumes from its checkpoint, if it has one. Exits
    with 1 while the sweep runs.

    Example: dmlcore retry 0123abcd --study .
    """
    from dmlcore.records import RecordFolder
    from dmlcore.sweep.execution.guards import SweepBusyError, sweep_lock

    if bool(trials) == all_failed:
        raise ValueError("give keys of trials, or --all-failed, and not both")
    folder = RecordFolder(study / "state" / "records")
    if not folder.folder.is_dir():
        raise ValueError(f"{folder.folder} does not exist, so no trial has failed")
    try:
        with sweep_lock(study / "state"):
            for record in _to_retry(folder.all(), trials or []):
                _set_aside(folder.path(record.trial_key))
                typer.echo(f"{record.trial_key} {record.name}: the next `dvc repro` runs it again")
    except SweepBusyError as error:
        typer.echo(f"dmlcore: {error}", err=True)
        raise typer.Exit(INCOMPLETE) from None


def _to_retry(records: list[TrialRecord], beginnings: list[str]) -> list[TrialRecord]:
    """Return the failed trials, or those that are named; all before the first is touched."""
    from dmlcore.sweep.control import choose
    from dmlcore.sweep.plan import CANCELLED

    if not beginnings:
        return [record for record in records if record.status == "failed"]
    found = {r.trial_key: r for r in records if r.status == "failed" or r.error_type == CANCELLED}
    keys = dict.fromkeys(choose(beginning, found, "failed or cancelled trial") for beginning in beginnings)
    return [found[key] for key in keys]


def _set_aside(path: Path) -> None:
    number = 1
    target = path.with_name(f"{path.name}.retried")
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.retried{number}")
    path.rename(target)
