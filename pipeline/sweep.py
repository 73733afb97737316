"""Stage `sweep`: run the trials of a study that have no record; write results/trials.parquet and datasets.json.

`python pipeline/sweep.py [STUDY] --dry-run` prints what it would run and need, and runs nothing.
"""

import io
import sys
from pathlib import Path

from dmlcore.config.base import ConfigError
from dmlcore.config.study import load_study
from dmlcore.core.errors import DataError, one_line
from dmlcore.records import RecordError
from dmlcore.sweep.dry_run.preview import preview
from dmlcore.sweep.execution.guards import SweepBusyError, SweepHaltedError, keep_state
from dmlcore.sweep.file_store import ClusterError
from dmlcore.sweep.planning import make_plan
from dmlcore.sweep.run import SweepFolders, run_sweep
from dmlcore.sweep.team_store import TeamStore
from dmlcore.sweep.team_sync import shared_lines
from dmlcore.tracking import tracker_class

ROOT = Path(__file__).resolve().parents[1]


def main(study: Path, dry_run: bool = False) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # so that a log file shows progress as it happens
    keep_state(study, ROOT)
    sweep = load_study(study / "params.yaml").sweep
    folders = SweepFolders(study, ROOT / "data" / "prepared")
    if dry_run:
        plan = make_plan(sweep, study=study, prepared=folders.prepared)
        print(*preview(plan, sweep, study / sweep.storage), sep="\n")
        print(*shared_lines(TeamStore.of(sweep, study), plan), sep="\n", end="")
        return 0
    tracker = tracker_class(sweep.tracker).for_study(sweep.study, folders.state, ROOT)
    try:
        with tracker.running(folders.state) as running:
            plan = run_sweep(sweep, folders, running)
    except KeyboardInterrupt:
        print("\nsweep: interrupted; every finished trial is kept. Resume with: dvc repro")
        return 130
    except SweepHaltedError as halt:
        print(f"\nsweep: halted: {halt}. Resume with: dvc repro")
        return 130
    for name in tracker.log_models(plan.records.values(), study, folders.prepared):
        print(f"sweep: model of {name} logged, the best of its data set on validation")
    for trial in plan.missing:
        reason = plan.records[trial.key].error if trial.key in plan.records else "no record"
        print(f"sweep: FAILED {trial.name} [{trial.key}]: {reason}", file=sys.stderr)
    for waiting in plan.waiting:
        print(f"sweep: FAILED {waiting.name}: {waiting.reason}", file=sys.stderr)
    for name in plan.searches_without_result:
        print(f"sweep: FAILED search of [{name}]: no trial reported the selection metric", file=sys.stderr)
    return 0 if plan.is_complete else 1


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--dry-run"]
    try:
        sys.exit(main(Path(arguments[0] if arguments else ".").resolve(), "--dry-run" in sys.argv))
    except (ClusterError, ConfigError, DataError, OSError, RecordError, SweepBusyError) as error:
        sys.exit(f"sweep: {one_line(error, Path.cwd())}")
