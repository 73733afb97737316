"""From a trial's config and prepared data to its metrics: knows neither Ray nor MLflow."""

from dmlcore.extras import require

require("train", __name__)

from dmlcore.training.checkpoint import EpochReport  # noqa: E402
from dmlcore.training.run import TrialResult, run_trial  # noqa: E402

__all__ = ["EpochReport", "TrialResult", "run_trial"]
