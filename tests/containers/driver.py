"""In the head's container: a study of eight trials through RAY_ADDRESS, with gates for faults, and its check.

`python -m tests.containers.driver prepare`, `run NAME`, `check NAME ATTEMPTS`, where ATTEMPTS is JSON: a trial's
place in the plan -> how often it must have been begun.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.faults.sabotage import Fault, Gate
from tests.faults.study import Study, study_config
from tests.memory_tracker import MemoryTracker
from tests.small import small_dataset

FOLDER = Path("state") / "containers"
"""Of these studies, in the checkout."""
TRIALS = 8
BESIDE_EACH_OTHER = ("first", "second")
"""Gates of two trials that run at the same time."""
BEFORE_AND_AFTER = ("before", "after")
"""Gates of one trial, at two of its epochs."""


@dataclass(frozen=True)
class NodeGate(Gate):
    """A gate that also says in which container its worker is."""

    def __call__(self) -> None:
        self.path.with_suffix(".node").write_text(platform.node())
        super().__call__()

    def node(self) -> str:
        """The name of the container's host; waits for a worker."""
        self.pid()
        return self.path.with_suffix(".node").read_text()


def gates(folder: Path, names: tuple[str, ...]) -> list[NodeGate]:
    return [NodeGate(folder / name) for name in names]


def study_named(name: str) -> Study:
    folder = FOLDER.resolve()
    config = study_config(study=name, seeds=list(range(TRIALS // 2)))
    return Study(folder / name, folder / "prepared", config, os.environ["MLFLOW_TRACKING_URI"])


def faults(study: Study) -> dict[str, tuple[Fault, ...]]:
    """By trial key; the study `worker` has gates of two trials, the others two gates of their first."""
    trials = study.trials
    if study.config.study == "worker":
        pair = gates(study.folders.study, BESIDE_EACH_OTHER)
        return {trial.key: (Fault(3, gate),) for trial, gate in zip(trials, pair, strict=False)}
    before, after = gates(study.folders.study, BEFORE_AND_AFTER)
    return {trials[0].key: (Fault(2, before), Fault(3, after))}


def main(command: str, name: str = "reference", attempts: str = "{}") -> None:
    study = study_named(name)
    if command == "prepare":
        small_dataset(study.folders.prepared / "small")
        study.run_here(MemoryTracker())
    elif command == "run":
        study.run(faults(study))
    else:
        trials = study.trials
        assert len(trials) == TRIALS
        begun = {trials[int(place)].key: count for place, count in json.loads(attempts).items()}
        study.check(study_named("reference"), attempts=begun)


if __name__ == "__main__":
    main(*sys.argv[1:])
