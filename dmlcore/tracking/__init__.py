"""Trackers: views of the trial records that can be rebuilt from them at any time."""

from dmlcore.tracking.aside import TrackerProcess
from dmlcore.tracking.memory import MemoryTracker
from dmlcore.tracking.mlflow import MlflowTracker, TrackingError

__all__ = ["MemoryTracker", "MlflowTracker", "TrackerProcess", "TrackingError"]
