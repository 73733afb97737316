"""A sweep of one trial that waits at a gate, to be run by two processes at once. Arguments: study, data, store."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.faults.sabotage import Fault, Gate
from tests.faults.study import Study, study_config


def shared_study(folder: Path, prepared: Path, address: str) -> Study:
    config = study_config(seeds=[0], regularizers=[[]], records=address, records_files=True)
    return Study(folder, prepared, config)


if __name__ == "__main__":
    folder, prepared = (Path(argument) for argument in sys.argv[1:3])
    study = shared_study(folder, prepared, sys.argv[3])
    study.run({study.trials[0].key: (Fault(2, Gate(folder / "gate")),)})
