"""A sweep to operate from outside: trials that wait at gates, one that dies. Arguments: folders of study and data."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from dmlcore.sweep.execution.guards import SweepHaltedError
from tests.faults.sabotage import Fault, Gate
from tests.faults.study import Study, study_config

HALTED = 130


def die() -> None:
    """Write to both streams as a library in C does, past Python's buffers, and be killed."""
    print("the last words")
    os.write(2, b"a warning\x1b[2J\n")
    os.kill(os.getpid(), signal.SIGKILL)


def operated(folder: Path, prepared: Path) -> Study:
    return Study(folder, prepared, study_config(seeds=[0, 1, 2], attempts=1))


def gate(folder: Path, name: str) -> Gate:
    return Gate(folder / name)


if __name__ == "__main__":
    folder, prepared = (Path(argument) for argument in sys.argv[1:])
    study = operated(folder, prepared)
    first, dying, third = (trial.key for trial in study.trials[:3])
    faults = {
        first: (Fault(2, gate(folder, "first")),),
        dying: (Fault(1, die, always=True),),
        third: (Fault(1, gate(folder, "third")),),
    }
    try:
        study.run(faults)
    except SweepHaltedError as halt:
        print(halt)
        sys.exit(HALTED)
