"""The smoke config of a study: every cell of the large one, and nothing that costs time."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dmlcore.config.study import load_study
from dmlcore.sweep.grid import expand
from dmlcore.sweep.validate import check_cells
from tests.smoke_config import EPOCHS, smoke_config, smoke_params_text

ROOT = Path(__file__).resolve().parents[1]
PAPER, SMALL = Path("studies/paper"), Path("studies/paper-small")


def cells(study):
    return expand(load_study(ROOT / study / "params.yaml").sweep)


def test_the_committed_params_are_what_the_function_gives():
    assert smoke_params_text(ROOT / PAPER) == (ROOT / SMALL / "params.yaml").read_text(encoding="utf-8")


def test_the_paper_is_its_sixteen_comparisons_at_three_seeds():
    found = cells(PAPER)
    assert len(found) == 96
    keys = {tuple(str(cell.labels[name]) for name in ("dataset", "backbone", "loss")) for cell in found}
    assert len(keys) == 16
    check_cells(found)


def test_every_cell_is_in_the_smoke_config():
    def labels(study, suffix):
        return {
            (
                cell.labels["dataset"].removesuffix(suffix),
                *(cell.labels[name] for name in ("backbone", "loss", "variant")),
            )
            for cell in cells(study)
        }

    assert labels(SMALL, "-small") == labels(PAPER, "")


def test_the_smoke_config_takes_the_same_path_with_less_of_everything():
    large = {(c.labels["dataset"], c.labels["backbone"], c.labels["loss"]): c.config for c in cells(PAPER)}
    for cell in cells(SMALL):
        place = (cell.labels["dataset"].removesuffix("-small"), cell.labels["backbone"], cell.labels["loss"])
        config, full = cell.config, large[place]
        assert config.train.chunk_size < config.train.batch_size < full.train.batch_size
        assert config.train.epochs == EPOCHS
        assert config.train.final
        assert full.train.final
        assert config.train.schedule.name == "milestones"
        assert config.model.backbone.name == full.model.backbone.name
        assert config.model.backbone.weights is None
        assert config.input.size < full.input.size


def test_the_recipe_is_the_published_one():
    found = {(c.labels["dataset"], c.labels["backbone"]): c.config.train for c in cells(PAPER)}
    assert found["sop", "resnet50"].batch_size == 4000
    assert found["sop", "resnet50"].chunk_size == 200
    assert found["sop", "resnet50"].optimizer.learning_rate == 2.0e-4
    assert found["sop", "vit_b16"].optimizer.learning_rate == 5.0e-5
    assert found["inaturalist2018", "vit_b16"].schedule.milestones == (10, 40, 70)
    assert found["cub200", "vit_b16"].optimizer.learning_rate == 1.0e-5
    assert found["cars196", "resnet50"].epochs == 170
    assert found["cars196", "vit_b16"].epochs == 50


def test_a_network_without_a_small_one_is_refused():
    params = yaml.safe_load((ROOT / PAPER / "params.yaml").read_text())
    params["sweep"]["backbones"]["resnet50"]["model"]["backbone"]["name"] = "resnet101"
    with pytest.raises(ValueError, match="resnet101"):
        smoke_config(params)
