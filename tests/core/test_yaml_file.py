"""A params file with what YAML 1.1 changes in silence, or with a bomb: one line that says where, and what to write."""

from __future__ import annotations

import pytest
import yaml

from dmlcore.config.base import ConfigError, read_yaml
from dmlcore.config.data import load_datasets
from dmlcore.config.study import load_study
from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.sources import read_source

ANCHORS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)
MERGES = "m0: &m0 {x: 1}\n" + "".join(
    f"m{level}: &m{level} {{<<: [{', '.join([f'*m{level - 1}'] * 10)}]}}\n" for level in range(1, 10)
)


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "params.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_yaml(tmp_path / "params.yaml")

    return read


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("losses: {yes: {}, on: {}}", "YAML reads 'yes' as bool; write it in quotes"),
        ("losses:\n  no: {}", "line 2, column 3: `losses`: a key must be a text, YAML reads 'no' as bool"),
        ("a: [{1: 2}]", "`a.0`: a key must be a text, YAML reads '1' as int"),
        ("2020-01-01: 1", "as timestamp"),
        ("~: 1", "as null"),
        ("? [1]\n: 2", "a sequence as seq"),
        ("sweep: 1\nsweep: 2", "key 'sweep' is given twice, first in line 1"),
        ("a:\n  b:\n    - c: 1\n      c: 2", "line 4, column 7: `a.b.0`: key 'c' is given twice"),
        ("a: {<<: {b: 1}, <<: {c: 2}}", "key '<<' is given twice"),
        ("a: 1e-4", "YAML reads 1e-4 as a text; write 1.0e-4"),
        ("a: [1.5E3]", "YAML reads 1.5E3 as a text; write 1.5e+3"),
        ("a: 1:30", "YAML reads 1:30 to another base"),
        ("a: 010", "YAML reads 010 to another base"),
        ("a: 2020-01-01", "YAML reads '2020-01-01' as timestamp; write a text in quotes"),
        ("a: 2020-01-01 10:00:00", "as timestamp"),
        ("a: !!set {b, c}", "as set"),
        ("a: !!binary aGk=", "as binary"),
        ("a: !!omap [b: 1]", "as omap"),
        ("a: !!python/name:os.system", "no `!!` tag"),
        ("a: =", "YAML reads '=' as value"),
        ("a: !!bool maybe", "does not fit its tag"),
        ("a: !!int ''", "does not fit its tag"),
        ("a: " + "9" * 5000, "at most 40 characters"),
        ("a: " + "[" * 20_000, "at most 64 levels"),
        ("a: " + "[" * 20_000 + "]" * 20_000, "at most 64 levels"),
        ("\n".join(" " * level + "a:" for level in range(400)), "at most 64 levels"),
        (ANCHORS, "`a4`: must have at most 100,000 values"),
        (MERGES, "must have at most 100,000 values"),
        ("a: &a [*a]", "an alias must not be inside what it repeats"),
        ("a: *b", "line 1, column 4: found undefined alias"),
        ("a: 1\n---\nb: 2", "a single document"),
        (b"a: caf\xe9", "must be UTF-8 text, got byte 0xe9 in line 1"),
        ("a: \x00", "not valid YAML"),
        (b"#" * 600_000, "at most 524,288 bytes"),
    ],
)
def test_what_changes_its_meaning_is_refused_in_one_line(read, text, says):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "params.yaml: " in str(caught.value)


@pytest.mark.parametrize("load", [load_study, load_datasets])
def test_every_params_file_is_read_so(tmp_path, load):
    (tmp_path / "params.yaml").write_text("datasets: {no: {}}\nsweep: {}")
    with pytest.raises(ConfigError, match="a key must be a text"):
        load(tmp_path / "params.yaml")


def test_a_key_given_twice_in_the_json_of_a_data_set_is_refused(tmp_path):
    (tmp_path / "source.json").write_text('{"expected": {"train": {"images": 1, "images": 2}}}')
    with pytest.raises(DataError, match="key 'images' is given twice"):
        read_source(tmp_path / "source.json")


def test_a_folder_in_place_of_the_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="Is a directory"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {b: [1, -2.5, 1.0e-4, .inf, 0x1F, true, ~, 'no', \"1e-4\"]}\nc: *a\nd: {<<: *a, e: x}\n",
        "\ufeff'yes': {on_: 0, 'on': 1}\r\n'1': 2020\r\n",
    ],
)
def test_the_rest_of_yaml_is_read_as_it_was(read, text):
    assert read(text) == yaml.safe_load(text)
