"""From a trial's config and prepared data to its metrics: knows neither Ray nor MLflow."""

from dmlcore.training.run import EpochReport, TrialResult, run_trial

__all__ = ["EpochReport", "TrialResult", "run_trial"]
