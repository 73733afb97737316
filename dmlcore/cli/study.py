"""The subcommands of a study: plan, check, summary, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmlcore.cli.options import INCOMPLETE, Study, prepared_folder
from dmlcore.core.errors import without_passwords

if TYPE_CHECKING:
    from dmlcore.sweep.plan import Plan


def plan(study: Study = Path()) -> None:
    """Print what a sweep would run, why, and the time, memory and disk that it needs; runs nothing.

    Each trial is cached (done), new, stale (recorded before another input changed, which is named) or failed. With
    `sweep.records` it says how many of the trials the team's store has.

    Example: dmlcore plan --study .
    """
    from dmlcore.config.study import load_study
    from dmlcore.sweep.dry_run.preview import preview

    sweep, found = load_study(study / "params.yaml").sweep, plan_of(study)
    for line in preview(found, sweep, study / sweep.storage):
        typer.echo(line)
    if sweep.records is not None:
        from dmlcore.sweep.team_store import TeamStore
        from dmlcore.sweep.team_sync import shared_lines

        for line in shared_lines(TeamStore.of(sweep, study), found):
            typer.echo(line)


def check(
    study: Study = Path(),
    deep: Annotated[
        bool, typer.Option("--deep", help="Verify every stored file and data set by its checksum, too.")
    ] = False,
) -> None:
    """List the failed and missing trials of a study, and those whose record was damaged or changed.

    Exits with 1 if there are any, or if a search is not complete. Changes nothing.

    Example: dmlcore check --study . --deep
    """
    from dmlcore.sweep.plan import CANCELLED
    from dmlcore.sweep.progress import duration

    found = plan_of(study)
    damaged = _deep_check(study, found) if deep else 0
    for trial in found.missing:
        record, fault = found.records.get(trial.key), found.faults.get(trial.key)
        state, error = ("FAILED", f": {record.error}") if record else ("MISSING", "")
        if fault is not None:
            state, error = "DAMAGED", f": {fault}"
        typer.echo(f"{state} {trial.key} {trial.name}{error}")
    for waiting in found.waiting:
        typer.echo(f"{'FAILED' if waiting.failed else 'MISSING'} {waiting.name}: {waiting.reason}")
    for record in found.records.values():
        if record.error_type == CANCELLED:
            typer.echo(f"CANCELLED {record.trial_key} {record.name}: {record.error}; `dmlcore retry` runs it")
    for fault in found.foreign_faults:
        typer.echo(f"not of this sweep, left as it is: {fault}")
    total = len(found.trials) + len(found.waiting)
    finished = f"{len(found.trials) - len(found.missing)} of {total} trials are finished"
    keys = {trial.key for trial in found.trials}
    spent = sum(record.seconds for key, record in found.records.items() if key in keys)
    typer.echo(f"{finished} ({duration(spent)} of trials)" if spent else finished)
    if found.remaining_trials:
        typer.echo(f"{found.remaining_trials} settings are still to be tried by the search")
    for name in found.searches_without_result:
        typer.echo(f"FAILED search of [{name}]: no trial reported the selection metric")
    if not found.is_complete:
        typer.echo("`dvc repro` runs them")
    if damaged or not found.is_complete:
        raise typer.Exit(INCOMPLETE)


def _deep_check(study: Path, found: Plan) -> int:
    """Print what is gone or damaged, and return how much."""
    from dmlcore.config.study import load_study
    from dmlcore.sweep.deep_check import deep_faults

    storage = study / load_study(study / "params.yaml").sweep.storage
    faults = 0
    for fault in deep_faults(found, storage=storage, prepared=prepared_folder(study)):
        faults += 1
        typer.echo(fault)
    typer.echo(f"{faults} stored files or data sets are gone or damaged")
    if faults:
        typer.echo(
            "files that a team shares come with `dmlcore records pull --files`; else remove state/records/KEY.json of "
            "a trial whose files are needed, and `dvc repro` runs it again"
        )
    return faults


def plan_of(study: Path) -> Plan:
    """Return the sweep of `study` compared with its records."""
    from dmlcore.config.study import load_study
    from dmlcore.sweep.planning import make_plan

    sweep = load_study(study / "params.yaml").sweep
    return make_plan(sweep, study=study, prepared=prepared_folder(study))


def summary(
    study: Study = Path(),
    into: Annotated[
        Path | None,
        typer.Option(help="Write the table as Markdown between the results markers of this file."),
    ] = None,
) -> None:
    """Print the trade-off table of a study, and the paths of its plot, results and MLflow store.

    Example: dmlcore summary --study . --into README.md
    """
    from dmlcore.analysis.results import read_study
    from dmlcore.config.study import load_study
    from dmlcore.report.text.tables import markdown_table, print_summary
    from dmlcore.tracking.store import store_uri

    params = load_study(study / "params.yaml")
    found = read_study(study, params.aggregate)
    if into is not None:
        insert_between_markers(into, markdown_table(found), params.sweep.study)
    else:
        results = study / "results"
        plot, table = results / "tradeoff.png", results / "comparisons.csv"
        print_summary(
            found,
            # a study without the stage aggregate has neither
            plot=plot if plot.is_file() else None,
            results=table if table.is_file() else results / "trials.parquet",
            mlflow=without_passwords(store_uri(study / "state")),
        )


def overview(
    studies: Annotated[list[Path], typer.Argument(help="Folders of studies, each with its results.")],
    into: Annotated[
        Path | None,
        typer.Option(
            help="Write the table as Markdown between the lines `<!-- results overview -->` of this file."
        ),
    ] = None,
) -> None:
    """Count what several studies decide: thresholds more or less even, accuracy, and OPIS at equal accuracy.

    Example: dmlcore overview . studies/public studies/photos
    """
    from dmlcore.analysis.overview import overview as tallies_of
    from dmlcore.analysis.results import read_study
    from dmlcore.analysis.tuned_settings import displayed_study
    from dmlcore.config.study import load_study
    from dmlcore.report.text.overview import markdown_overview, print_overview

    found = {}
    for folder in studies:
        params = load_study(folder / "params.yaml")
        if (name := params.sweep.study) in found:
            raise ValueError(f"studies must have a name each, got {name} twice, the second in {folder}")
        found[name] = displayed_study(read_study(folder, params.aggregate))
    tallies = tallies_of(found)
    if into is None:
        print_overview(tallies)
    else:
        insert_between_markers(into, markdown_overview(tallies), "overview")


def export(
    study: Study = Path(),
    into: Annotated[
        Path, typer.Option(help="Folder to write to; files of an earlier export are replaced.")
    ] = Path("export"),
) -> None:
    """Write a study's comparisons as CSV, parquet, Markdown and LaTeX (booktabs), its figures as PNG and PDF.

    Example: dmlcore export --study . --into paper/tables
    """
    from dmlcore.analysis.results import read_study
    from dmlcore.config.study import load_study
    from dmlcore.report.text.exports import write_exports

    for path in write_exports(read_study(study, load_study(study / "params.yaml").aggregate), into):
        typer.echo(path)


def markers(name: str | None = None) -> tuple[str, str]:
    """Return the lines that enclose a table of results: of any study, or of the study of that name."""
    label = "results" if name is None else f"results {name}"
    return f"<!-- {label} -->", f"<!-- /{label} -->"


def insert_between_markers(path: Path, content: str, name: str | None = None) -> None:
    """Replace what is between the markers of a Markdown file; the rest stays as it is.

    Args:
        path: the file.
        content: what to put there.
        name: of the study; its own markers are used if the file has them, else those of any study.

    Raises:
        ValueError: the file does not hold each marker once, in order.
    """
    from dmlcore.core.io import write_atomically

    text = path.read_text(encoding="utf-8")
    start, end = markers(name) if markers(name)[0] in text else markers()
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(f"{path} must hold the line {start} once and {end} once after it; add them")
    head, rest = text.split(start)
    tail = rest.split(end)[1]
    write_atomically(path, f"{head}{start}\n{content.strip()}\n{end}{tail}")
