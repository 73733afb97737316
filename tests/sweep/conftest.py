"""The small data sets of tests/datasets, for the tests of the raw pixels."""

from tests.datasets.conftest import prepared  # noqa: F401
