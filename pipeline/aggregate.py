"""Run stage `aggregate`: results/trials.parquet and datasets.json of a study -> its tables and plots in results/.

The verdict is shown with the study's experiment in MLflow too, where it has one.
"""

import importlib
import sys
from pathlib import Path

from dmlcore.analysis.results import read_study
from dmlcore.config.base import ConfigError
from dmlcore.config.study import load_study
from dmlcore.core.errors import one_line
from dmlcore.report.outputs import write_results
from dmlcore.report.text.tables import markdown_verdict

ROOT = Path(__file__).resolve().parents[1]


def main(folder: Path) -> None:
    params = load_study(folder / "params.yaml")
    try:
        study = read_study(folder, params.aggregate, params.sweep.storage, ROOT / "data" / "prepared")
    except ValueError as error:  # of the results; one that is raised later is a defect, with its traceback
        sys.exit(f"aggregate: {error}")
    write_results(study, folder / "results")
    # Not an import statement: no output depends on the trackers, whose code would all be dependencies of the stage.
    tracking = importlib.import_module("dmlcore.tracking")
    tracker = tracking.tracker_class(params.sweep.tracker).for_study(
        params.sweep.study, folder / "state", None
    )
    tracker.describe(markdown_verdict(study))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
    except (ConfigError, OSError) as error:
        sys.exit(f"aggregate: {one_line(error, Path.cwd())}")
