"""`dmlcore records push` and `pull`: the finished trials of a study, and the store that a team shares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmlcore.cli.options import INCOMPLETE, Study
from dmlcore.cli.study import plan_of
from dmlcore.extras import require

if TYPE_CHECKING:
    from dmlcore.sweep.team_sync import TeamSync

Address = Annotated[
    str | None,
    typer.Option(help="Folder or fsspec address of the store. Default: `sweep.records` of params.yaml."),
]
Files = Annotated[
    bool | None,
    typer.Option(
        "--files/--no-files", help="Checkpoints and embeddings too. Default: `sweep.records_files`."
    ),
]

records = typer.Typer(
    callback=lambda: require("pipeline", "`dmlcore records`"),
    no_args_is_help=True,
    help="The finished trials that a team shares: fetched from its store, and left there.",
)


@records.command()
def push(study: Study = Path(), address: Address = None, files: Files = None) -> None:
    """Leave the records of a study's finished trials in the team's store, as far as it lacks them.

    A sweep with `sweep.records` does so itself as its trials end. Exits with 1 if the store does not answer, or while
    the sweep runs.

    Example: dmlcore records push --study . --address s3://bucket/records --files
    """
    with _synced(study, address, files) as sync:
        waiting = sync.leave_all()
        typer.echo(f"{len(sync.left)} records left at {sync.team}")
        if waiting or sync.fault:
            raise typer.Exit(INCOMPLETE)


@records.command()
def pull(study: Study = Path(), address: Address = None, files: Files = None) -> None:
    """Fetch the records that the team's store has of a study's trials, each checked against its key.

    With `--files` also checkpoints and embeddings, of trials that are recorded here too. Exits with 1 if the store does
    not answer or one of its records is damaged, or while the sweep runs.

    Example: dmlcore records pull --study . --address s3://bucket/records --files
    """
    from dmlcore.sweep.progress import host_of

    with _synced(study, address, files) as sync:
        plan = sync.taking(lambda: plan_of(study))
        for record in sync.taken:
            typer.echo(f"{record.trial_key} {record.name}: ran on {host_of(record)}")
        lacking = sync.fetch_files(plan) if sync.fault is None else []
        for line in lacking:
            typer.echo(line)
        typer.echo(
            f"{len(sync.taken)} records fetched from {sync.team}, {len(plan.missing)} trials are missing"
        )
        if sync.broken or sync.fault or lacking:
            raise typer.Exit(INCOMPLETE)


@contextmanager
def _synced(study: Path, address: str | None, files: bool | None) -> Iterator[TeamSync]:
    from dmlcore.config.study import load_study
    from dmlcore.records import RecordFolder
    from dmlcore.sweep.execution.guards import SweepBusyError, sweep_lock
    from dmlcore.sweep.team_store import TeamStore
    from dmlcore.sweep.team_sync import TeamSync

    sweep = load_study(study / "params.yaml").sweep
    team = TeamStore.of(sweep, study, address, files)
    if team is None:
        raise ValueError("the study shares no records: set `sweep.records` in params.yaml, or give --address")
    try:
        with sweep_lock(study / "state"):
            folder = RecordFolder(study / "state" / "records")
            yield TeamSync(team, folder, study / sweep.storage, lambda line: typer.echo(line, err=True))
    except SweepBusyError as error:
        typer.echo(f"dmlcore: {error}", err=True)
        raise typer.Exit(INCOMPLETE) from None


def store_status(study: Path) -> dict[str, Any] | None:
    """Return what `dmlcore status` says of the team's store; None: the study has none."""
    from dmlcore.config.study import load_study

    params = study / "params.yaml"  # a running sweep is shown where it is gone
    sweep = load_study(params).sweep if params.is_file() else None
    if sweep is None or sweep.records is None:
        return None
    from dmlcore.records import KEY, RecordFolder
    from dmlcore.sweep.team_store import StoreError, TeamStore  # imports torch, which takes seconds

    team = TeamStore.of(sweep, study)
    assert team is not None
    counts: dict[str, int | None] = {"trials": None, "of_those_here": None}
    try:
        there = {stem for name in team.names() if KEY.fullmatch(stem := name.removesuffix(".json"))}
    except StoreError as error:
        says = f"does not answer: {error}"
    else:
        here = there.intersection(RecordFolder(study / "state" / "records").keys())
        counts = {"trials": len(there), "of_those_here": len(here)}
        says = f"has {len(there)} finished trials, {len(here)} of them recorded here"
    return {"address": str(team), **counts, "says": says}
