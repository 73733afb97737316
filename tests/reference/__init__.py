"""Naive float64 twins of the losses and metrics: the oracles of the tests."""

from tests.reference import losses as losses
from tests.reference import metrics as metrics
