"""A driver to kill: runs a study's sweep whose first trial waits at a gate. Arguments: folders of study and data."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.faults.sabotage import DetachedGate, Fault
from tests.faults.study import Study, study_config

if __name__ == "__main__":
    folder, prepared = (Path(argument) for argument in sys.argv[1:])
    study = Study(folder, prepared, study_config())
    study.run({study.trials[0].key: (Fault(3, DetachedGate(folder / "gate")),)})
