"""From a trial's config and prepared data to its metrics: knows neither Ray nor MLflow."""

from dmlcore.training.checkpoint import EpochReport
from dmlcore.training.run import TrialResult, run_trial

__all__ = ["EpochReport", "TrialResult", "run_trial"]
