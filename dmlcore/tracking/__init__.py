"""Trackers: views of the trial records that can be rebuilt from them at any time."""

from dmlcore.tracking.background import BackgroundTracker
from dmlcore.tracking.mlflow import MlflowTracker, TrackingError

__all__ = ["BackgroundTracker", "MlflowTracker", "TrackingError"]
