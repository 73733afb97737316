"""The small data sets of tests/datasets, for the tests of their reader too."""

from tests.datasets.conftest import fonts, glyphs, glyphs_config, noise, prepared  # noqa: F401
