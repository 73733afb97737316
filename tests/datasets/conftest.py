"""Small data sets to break, and the real one, prepared once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dmlcore.config.data import DatasetConfig, PreprocessConfig, load_datasets
from dmlcore.data.dataset import PreparedDataset
from dmlcore.datasets.acquire.acquire import acquire_fonts
from dmlcore.datasets.importers.glyphs import load_catalogue as glyph_catalogue
from dmlcore.datasets.prepare.build import prepare
from dmlcore.datasets.prepare.catalogue import Catalogue
from tests.datasets.noise_images import noise_catalogue

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def noise() -> Catalogue:
    return noise_catalogue({f"class {number}": 3 + number % 3 for number in range(16)})


@pytest.fixture(scope="session")
def glyphs_config() -> DatasetConfig:
    return load_datasets(REPOSITORY / "data/params.yaml").datasets["glyphs-large"]


@pytest.fixture(scope="session")
def fonts(tmp_path_factory: pytest.TempPathFactory, glyphs_config: DatasetConfig) -> Path:
    folder = tmp_path_factory.mktemp("glyphs") / "raw"
    acquire_fonts(REPOSITORY / "data" / glyphs_config.source, folder)
    return folder


@pytest.fixture(scope="session")
def glyphs(
    tmp_path_factory: pytest.TempPathFactory, fonts: Path, glyphs_config: DatasetConfig
) -> PreparedDataset:
    folder = tmp_path_factory.mktemp("glyphs") / "prepared"
    config = glyphs_config.preprocess
    prepare("glyphs", glyph_catalogue(fonts, config), config, folder)
    return PreparedDataset.open(folder)


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., PreparedDataset]:
    """Prepares a catalogue under tmp_path and opens it."""

    def build(catalogue: Catalogue, config: PreprocessConfig | None = None) -> PreparedDataset:
        config = config or PreprocessConfig()
        prepare("mine", catalogue, config, tmp_path / "prepared")
        return PreparedDataset.open(tmp_path / "prepared")

    return build
