"""`dmlcore plan` and `dmlcore check`: a sweep against its records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dmlcore.cli.errors import FOUND
from dmlcore.cli.options import Study, prepared_folder

if TYPE_CHECKING:
    from dmlcore.tuning.plan import Plan


def plan(study: Study = Path()) -> None:
    """Say what a sweep would run, why, and what it would need, without running it.

    Each cell is cached (done), new, stale (recorded before another input changed: which is named) or failed.

    Example: dmlcore plan --study .
    """
    from dmlcore.config import load_study
    from dmlcore.tuning.preview import preview

    study = study.resolve()
    sweep = load_study(study / "params.yaml").sweep
    for line in preview(plan_of(study), sweep, study / sweep.storage):
        typer.echo(line)


def check(study: Study = Path()) -> None:
    """List the failed and missing trials of a study; exit with 1 if there are any, or a search is not at its end.

    Example: dmlcore check --study .
    """
    found = plan_of(study)
    for trial in found.missing:
        record = found.records.get(trial.key)
        reason = (
            f"FAILED {trial.key} {trial.name}: {record.error}"
            if record
            else f"MISSING {trial.key} {trial.name}"
        )
        typer.echo(reason)
    typer.echo(f"{len(found.trials) - len(found.missing)} of {len(found.trials)} trials are finished")
    if found.to_ask:
        typer.echo(f"{found.to_ask} settings are still to be tried by the search")
    for name in found.fruitless:
        typer.echo(f"FAILED search of [{name}]: none of its settings gave a value to choose by")
    if found.missing or found.to_ask or found.fruitless:
        typer.echo("`dvc repro` runs the others again")
        raise typer.Exit(FOUND)


def plan_of(study: Path) -> Plan:
    """The sweep of `study` against its records."""
    from dmlcore.config import load_study
    from dmlcore.tuning.plan import make_plan

    study = study.resolve()
    sweep = load_study(study / "params.yaml").sweep
    return make_plan(sweep, study=study, prepared=prepared_folder(study))
