"""Every data set and every package of weights that the project knows states its licence and source."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import dmlcore
from dmlcore.config.data import KINDS, load_datasets
from dmlcore.datasets.acquire.acquire import LOCAL
from dmlcore.datasets.acquire.sources import read_source
from dmlcore.models.weights import PACKAGES

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "data" / "sources"
PAGE = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", LOCAL)
def test_a_local_data_set_has_its_licence_and_source(kind):
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{kind}` |")]
    assert len(rows) == 1
    assert all(len(cell.strip()) > 2 for cell in rows[0].strip("|").split("|"))


@pytest.mark.parametrize("name", [path.stem for path in SOURCES.glob("*.json") if path.stem not in LOCAL])
def test_a_published_data_set_has_its_licence_and_source(name):
    source = read_source(SOURCES / f"{name}.json")
    assert all(len(text) > 2 for text in (source.description, source.licence, source.origin))
    assert "read" in source.licence_read


def test_every_kind_is_local_or_published():
    datasets = load_datasets(ROOT / "data/params.yaml").datasets.values()
    published = {dataset.kind for dataset in datasets if (ROOT / "data" / dataset.source).parent == SOURCES}
    assert set(KINDS) == published | set(LOCAL)


def test_every_row_says_whether_the_licence_was_read():
    rows = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ")]
    known = [row[-1].strip() for row in rows if row[-1].strip() not in ("known from", "---", "you")]
    assert len(known) == len(LOCAL) - 1 + 5
    assert all("read" in text for text in known)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_of_weights_has_its_licence(name):
    assert f"| `package:{name}`" in PAGE


def test_the_citation_names_the_version_and_licence_of_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert citation["version"] == dmlcore.__version__
    assert f'license = "{citation["license"]}"' in project
