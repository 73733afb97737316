"""One distance threshold from validation embeddings, and whom it fails on test. Knows metrics only."""

from dmlcore.calibration.card import calibration_card, class_rows
from dmlcore.calibration.intervals import Drift, Rate, drift
from dmlcore.calibration.rates import SplitRates, measure_rates
from dmlcore.calibration.run import Calibration, calibrate
from dmlcore.calibration.threshold import Target, Threshold, find_threshold

__all__ = [
    "Calibration",
    "Drift",
    "Rate",
    "SplitRates",
    "Target",
    "Threshold",
    "calibrate",
    "calibration_card",
    "class_rows",
    "drift",
    "find_threshold",
    "measure_rates",
]
