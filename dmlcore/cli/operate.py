"""The subcommands for a running sweep, from another shell and without Ray: status, logs, drain, cancel."""

from __future__ import annotations

import getpass
import json
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmlcore.cli.options import Study

if TYPE_CHECKING:
    from dmlcore.sweep.control import Control, LiveTrial, SweepStatus
    from dmlcore.sweep.ray.shared_storage import SharedStorage


def status(
    study: Study = Path(),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; times are seconds, or seconds since 1970.")
    ] = False,
) -> None:
    """Print what the sweep of a study is doing: running trials, queue, failures with their reason.

    Needs no Ray and disturbs nothing. Where no sweep runs, counts the records; of a team's store always. State is one
    of `running`; `killed`: its driver ended without a farewell, `dvc repro` resumes; `starting`: the lock is held and
    nothing is known yet; `idle`.

    Example: dmlcore status --study .
    """
    from dmlcore.cli.records import store_status
    from dmlcore.sweep.control import Control, printable

    control = Control(study / "state")
    found, shared = control.read(), store_status(study)
    if control.is_running(found):
        state = "running"
    elif found is not None:
        state = "killed"
    else:
        state = "starting" if control.is_locked() else "idle"
    if as_json:
        values = _values(study, found if state == "running" else None)
        typer.echo(json.dumps({"state": state, **values, "store": shared}))
        return
    lines = _live_lines(found) if found and state == "running" else _idle_lines(study, state, found)
    for line in [*lines, *([f"{shared['address']}: {shared['says']}"] if shared else [])]:
        typer.echo(printable(line))


def _values(study: Path, found: SweepStatus | None) -> dict[str, Any]:
    """Return what `--json` prints besides the state."""
    if found is None:
        counts, failures = _recorded(study)
        return counts | {"failures": failures}
    now = time.time()
    left = {trial.key: trial.seconds_left(now) for trial in found.running}
    values = found.model_dump()
    for trial in values["running"]:
        trial |= {"seconds": max(0.0, now - trial["started"]), "seconds_left": left[trial["key"]]}
    return values


def _live_lines(found: SweepStatus) -> list[str]:
    from dmlcore.sweep.progress import duration

    now = time.time()
    counts = f"{found.finished} finished, {found.failed} failed, {found.stopped} stopped"
    lines = [
        f"running for {duration(max(0.0, now - found.started))}, process {found.pid} on {found.host}",
        f"{counts}, {len(found.running)} running, {found.queued} queued, of {found.total}",
    ]
    lines += [f"no further trial starts: {found.halted}"] if found.halted else []
    lines += [f"RUNNING {trial.key} {trial.name}: {_progress(trial, now)}" for trial in found.running]
    lines += [f"QUEUED {trial.key} {trial.name}" for trial in found.next]
    hidden = found.queued - len(found.next)
    lines += [f"QUEUED {hidden} more"] if found.next and hidden > 0 else []
    return lines + [f"FAILED {trial.key} {trial.name}: {trial.reason}" for trial in found.failures]


def _progress(trial: LiveTrial, now: float) -> str:
    from dmlcore.sweep.progress import duration

    parts = [f"epoch {trial.epoch}/{trial.epochs}", f"{duration(max(0.0, now - trial.started))} so far"]
    left = trial.seconds_left(now)
    parts += [] if left is None else [f"about {duration(left)} left"]
    return ", ".join([*parts, f"on {trial.node}" if trial.node else "no report yet"])


def _idle_lines(study: Path, state: str, found: SweepStatus | None) -> list[str]:
    says = "no sweep runs" if state == "idle" else "a sweep starts, or `dmlcore sync` runs: its lock is held"
    if found is not None:
        says = f"no sweep runs: its process {found.pid} on {found.host} was killed, `dvc repro` resumes it"
    counts, failures = _recorded(study)
    recorded = ", ".join(f"{count} {name}" for name, count in counts.items())
    lines = [says, f"records: {recorded}"]
    return lines + [f"FAILED {each['key']} {each['name']}: {each['reason']}" for each in failures]


def _recorded(study: Path) -> tuple[dict[str, int], list[dict[str, str]]]:
    """Count the readable records by status, and say why the failed ones failed."""
    from dmlcore.records import RecordFolder

    records = RecordFolder(study / "state" / "records").all()
    counts = {
        name: sum(record.status == name for record in records) for name in ("finished", "failed", "stopped")
    }
    failures = [
        {"key": r.trial_key, "name": r.name, "reason": (r.error or "no reason").strip().split("\n")[0]}
        for r in records
        if r.status == "failed"
    ]
    return counts, failures


def logs(
    trial: Annotated[
        str, typer.Argument(help="Key of a trial, or its beginning; `dmlcore status` prints it.")
    ],
    study: Study = Path(),
    lines: Annotated[int, typer.Option(min=1, help="Print that many lines, the last ones.")] = 50,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on printing what comes until the trial has ended.")
    ] = False,
) -> None:
    """Print what a trial wrote: its epochs, stdout, stderr, warnings, and the traceback of its failure.

    All attempts are in one file of at most 1 MiB, state/logs/KEY.log; of more, the older half was cut. It holds what a
    killed process had written, too.

    Example: dmlcore logs 0123abcd --study . --follow
    """
    key = _with_output(study, trial)
    content = _output(study, key)
    for line in content.decode(errors="replace").splitlines()[-lines:]:
        _echo(line)
    while follow and _runs(study, key):
        time.sleep(1.0)
        before, content = content, _output(study, key)
        # shorter: it was cut meanwhile, and what is new cannot be told from what was printed
        for line in content[len(before) :].decode(errors="replace").splitlines():
            _echo(line)


def _echo(line: str) -> None:
    from dmlcore.sweep.control import printable

    typer.echo(printable(line.expandtabs()))


def _with_output(study: Path, beginning: str) -> str:
    """Return the key of the one trial with output that begins so."""
    from dmlcore.sweep.control import choose

    here = [path.stem for path in (study / "state" / "logs").glob("*.log")]
    storage = _storage(study)
    there = [name.removesuffix(".log") for name in storage.names("logs")] if storage else []
    return choose(beginning, [*here, *there], "trial with output, it has none before it starts")


def _storage(study: Path) -> SharedStorage | None:
    """Return the storage through which nodes send output while they run; None: they share this disk."""
    from dmlcore.config.study import load_study
    from dmlcore.sweep.ray.shared_storage import SharedStorage

    params = study / "params.yaml"
    if not params.is_file():  # output can be read where it is gone
        return None
    cluster = load_study(params).sweep.cluster
    return SharedStorage(cluster.storage) if cluster.storage else None


def _output(study: Path, key: str) -> bytes:
    """Return the kept output of a trial, whole lines; a running trial's on a node is newer than what was fetched."""
    from dmlcore.sweep.execution.trial_log import LIMIT_BYTES, log_file

    storage = _storage(study)
    content = storage.read(f"logs/{key}.log") if storage else None
    if content is None:
        content = log_file(study / "state", key).read_bytes()
    content = content[-2 * LIMIT_BYTES :]
    return content[: content.rfind(b"\n") + 1]


def _runs(study: Path, key: str) -> bool:
    _, found = _running(study)
    return found is not None and key in {trial.key for trial in found.running}


def drain(study: Study = Path()) -> None:
    """Let the running trials of a sweep end, and start no other; the stage then ends as interrupted.

    `dvc repro` resumes it. Exits with 2 if no sweep runs.

    Example: dmlcore drain --study .
    """
    control, found = _running(study)
    if found is None:
        raise _none_runs(study)
    control.request_drain(_who())
    running = len(found.running)
    typer.echo(f"asked: no further trial starts, the sweep ends after the {running} that run")


def cancel(
    trials: Annotated[
        list[str], typer.Argument(help="Keys of running or queued trials, or their beginnings.")
    ],
    study: Study = Path(),
) -> None:
    """Stop trials of the running sweep for good: a running one at its next epoch, a queued one does not start.

    Its record says who cancelled it, and it is not run again until `dmlcore retry` asks. Nobody is asked if one of the
    keys is wrong.

    Example: dmlcore cancel 0123abcd 4567cdef --study .
    """
    from dmlcore.sweep.control import choose

    control, found = _running(study)
    if found is None:
        raise _none_runs(study)
    known = control.known(found)
    keys = [choose(beginning, known, "trial that runs or waits") for beginning in trials]
    running = {trial.key for trial in found.running}
    for key in keys:
        control.request_cancel(key, _who())
        when = "stops at its next epoch" if key in running else "does not start"
        _echo(f"asked: {key} {known[key]} {when}")


def _running(study: Path) -> tuple[Control, SweepStatus | None]:
    """Return the status of the sweep that runs; None: none does."""
    from dmlcore.sweep.control import Control

    control = Control(study / "state")
    found = control.read()
    return control, found if control.is_running(found) else None


def _none_runs(study: Path) -> ValueError:
    return ValueError(f"no sweep of {study} runs, so there is nothing to ask")


def _who() -> str:
    return f"{getpass.getuser()} on {platform.node()}"
