"""A params file that breaks the schema is refused before anything runs, with path, rule and value."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmlcore.config.base import ConfigError, canonical, parse
from dmlcore.config.data import load_datasets
from dmlcore.config.study import StudyParams, load_study
from dmlcore.config.trial import TrialConfig

ROOT = Path(__file__).resolve().parents[1]
TRIAL = {"dataset": "glyphs", "loss": {"name": "smooth_ap"}}


def test_the_committed_params_are_valid():
    assert load_study(ROOT / "params.yaml").sweep.study == "default"
    assert "glyphs" in load_datasets(ROOT / "data" / "params.yaml").datasets


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        ({"seed": -1}, "seed", "-1"),
        ({"seed": "0"}, "seed", "'0'"),
        ({"sed": 0}, "sed", "0"),
        ({"train": {"batch_size": 90}}, "train", "90"),
        ({"train": {"optimizer": {"learning_rate": "1e-3"}}}, "train.optimizer.learning_rate", "'1e-3'"),
        ({"evaluation": {"far_range": [0.1, 0.01]}}, "evaluation.far_range", "0.1"),
        ({"model": {"pooling": "max"}}, "model.pooling", "'max'"),
        ({"loss": {"name": "a b"}}, "loss.name", "'a b'"),
        ({"dataset": "../glyphs"}, "dataset", "'../glyphs'"),
    ],
)
def test_a_fault_names_its_path_and_value(change, path, value):
    with pytest.raises(ConfigError) as caught:
        parse(TrialConfig, TRIAL | change, "params.yaml")
    assert f"`{path}`" in str(caught.value)
    assert value in str(caught.value)


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ({"train": {"optimizer": {"learning_rate": "1e-4"}}}, "write 1.0e-4"),
        ({"train": {"optimizer": {"weight_decay": "2.5E3"}}}, "write 2.5e+3"),
        ({"seed": "7"}, "write it without quotes"),
        ({"dataset": False}, "write it in quotes"),
    ],
)
def test_a_value_of_another_type_is_told_how_to_be_written(change, fix):
    with pytest.raises(ConfigError) as caught:
        parse(TrialConfig, TRIAL | change, "params.yaml")
    assert str(caught.value).endswith(fix)


def test_every_fault_is_listed():
    with pytest.raises(ConfigError, match="2 fault") as caught:
        parse(TrialConfig, TRIAL | {"seed": -1, "threads": 0}, "params.yaml")
    assert "`seed`" in str(caught.value)
    assert "`threads`" in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "- 1", ""])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"params\.yaml"):
        load_study(path)


def test_a_missing_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="no such params file"):
        load_study(tmp_path / "params.yaml")


def test_canonical_leaves_none_out_and_survives_a_round_trip():
    config = parse(TrialConfig, TRIAL, "t")
    values = canonical(config)
    assert "weights" not in values["model"]["backbone"]
    assert parse(TrialConfig, values, "t") == config


def test_config_is_frozen():
    config = parse(TrialConfig, TRIAL, "t")
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1


def test_every_field_of_a_study_is_reachable_by_a_wrong_key():
    with pytest.raises(ConfigError, match="Extra inputs"):
        parse(
            StudyParams, {"sweep": {"study": "a", "datasets": [], "backbones": {}, "losses": {}, "x": 1}}, "t"
        )
