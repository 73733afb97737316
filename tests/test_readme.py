"""The README shows what results/ holds, and the paths and commands that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
import yaml

from dmlcore.config import DataParams, StudyParams, load_study, parse
from dmlcore.report.insert import END, START, insert_between_markers
from dmlcore.report.study import read_study
from dmlcore.report.tables import markdown_table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_is_that_of_the_committed_results():
    study = read_study(ROOT, load_study(ROOT / "params.yaml").aggregate)
    shown = README.split(START)[1].split(END)[0].strip()
    assert shown == markdown_table(study).strip(), "run `make readme`"


def test_the_table_of_base_losses_is_that_of_its_study():
    rows = pl.read_csv(ROOT / "studies" / "base_losses" / "results" / "comparisons.csv")
    for backbone in ("levit", "resnet10"):
        mine = rows.filter(pl.col("backbone") == backbone).sort("loss")
        numbers = " | ".join(f"{value:.3f}" for value in mine["test/recall_at_1/off/mean"])
        assert f"| {backbone} | {numbers} |" in README


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_a_linked_file_is_there(target):
    assert (ROOT / target).is_file()


def test_the_make_targets_it_names_are_there():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"`?make ([a-z]+)", README)) <= set(targets)


def yaml_blocks():
    return re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("block", yaml_blocks())
def test_a_yaml_block_fits_the_schema(block):
    values = yaml.safe_load(block)
    if "mine" in values:
        assert parse(DataParams, {"datasets": values}, "README").datasets["mine"].kind == "image_folder"
        return
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert parse(StudyParams, params | {"sweep": params["sweep"] | values}, "README").sweep.backbones


def test_insertion_keeps_the_rest_and_needs_its_markers(tmp_path):
    path = tmp_path / "a.md"
    path.write_text(f"head\n{START}\nold\n{END}\ntail\n")
    insert_between_markers(path, "new")
    assert path.read_text() == f"head\n{START}\nnew\n{END}\ntail\n"
    path.write_text("nothing")
    with pytest.raises(ValueError, match="must hold the line"):
        insert_between_markers(path, "new")
