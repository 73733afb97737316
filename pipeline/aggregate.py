"""Stage `aggregate`: results/trials.parquet and datasets.json of a study -> its tables and plots in results/."""

import sys
from pathlib import Path

from dmlcore.config import load_study
from dmlcore.report.outputs import write_results
from dmlcore.report.study import read_study


def main(folder: Path) -> None:
    study = read_study(folder, load_study(folder / "params.yaml").aggregate)
    write_results(study, folder / "results")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
