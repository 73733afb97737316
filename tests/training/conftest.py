"""The small data sets of tests/datasets, for the tests of what reads them."""

from tests.datasets.conftest import fonts, glyphs, glyphs_config, noise, prepared  # noqa: F401
