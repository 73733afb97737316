import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from noise_images import noise_catalogue

from dmlcore.config import PreprocessConfig
from dmlcore.data.errors import DataError
from dmlcore.data.prepare import data_hash, prepare


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_images_give_the_same_bytes_in_any_order(prepared, noise):
    folder = prepared(noise).folder
    first = contents(folder)
    prepared(replace(noise, items=noise.items[::-1]))
    assert contents(folder) == first
    assert set(first) == {"manifest.parquet", "images.bin", "dataset.json"}


def test_rows_name_the_image_that_lies_at_their_place(prepared, noise):
    dataset = prepared(noise)
    pixels = (dataset.folder / "images.bin").read_bytes()
    sources = {item.source: item for item in noise.items}
    for row in dataset.manifest.iter_rows(named=True):
        stored = pixels[row["offset"] : row["offset"] + row["length"]]
        assert stored == noise.read(sources[row["source"]]).tobytes()


def test_the_data_hash_covers_manifest_and_pixels(prepared, noise):
    dataset = prepared(noise)
    images = dataset.folder / "images.bin"
    assert dataset.data_hash == data_hash(dataset.manifest, images)
    renamed = dataset.manifest.with_columns(class_name=dataset.manifest["class_name"] + "!")
    assert data_hash(renamed, images) != dataset.data_hash
    images.write_bytes(images.read_bytes()[:-1] + b"!")
    assert data_hash(dataset.manifest, images) != dataset.data_hash


def test_the_summary_counts_and_carries_the_baseline(prepared, noise):
    summary = prepared(noise).summary
    assert summary["counts"]["all"] == {"classes": 16, "images": len(noise.items)}
    assert summary["raw_pixels"] == {"test/images": summary["counts"]["test"]["images"]}
    assert (
        summary["protocol"]
        == "no class in two splits; rule hashed, seed 0; 6 / 2 / 8 classes train / validation / test"
    )
    found = {key: summary["duplicates"][key] for key in ("across_classes", "across_splits", "within_a_class")}
    assert found == {"across_classes": 0, "across_splits": 0, "within_a_class": 0}
    assert summary["unreadable"] == {"images": 0, "first": []}
    assert (summary["schema_version"], summary["encoding"]) == (2, "raw")


def test_an_undefined_metric_is_null(noise, tmp_path):
    prepare(
        "mine", noise, PreprocessConfig(), tmp_path / "out", lambda test: {"test/opis_corrected": math.nan}
    )
    assert json.loads((tmp_path / "out/dataset.json").read_text())["raw_pixels"] == {
        "test/opis_corrected": None
    }


def test_duplicates_are_counted_where_they_are_not_refused(prepared, noise):
    black = replace(noise, read=lambda item: np.zeros((8, 8, 3), np.uint8))
    summary = prepared(black, PreprocessConfig(on_duplicates="report")).summary
    assert summary["duplicates"]["across_classes"] == len(noise.items)


def test_a_refused_data_set_leaves_what_was_there(prepared, noise, tmp_path):
    before = contents(prepared(noise).folder)
    with pytest.raises(DataError, match="identical images under two classes"):
        prepared(replace(noise, read=lambda item: np.zeros((8, 8, 3), np.uint8)))
    assert contents(tmp_path / "prepared") == before
    assert [path.name for path in tmp_path.iterdir()] == ["prepared"]


@pytest.mark.parametrize(
    "pixels", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8, 3))]
)
def test_pixels_of_another_kind_are_refused(prepared, noise, pixels):
    with pytest.raises(DataError, match=r"'class \d+/0.png': pixels must be uint8 \[H, W, 3\]"):
        prepared(replace(noise, read=lambda item: pixels))


def test_no_images_are_refused(prepared):
    with pytest.raises(DataError, match="no images"):
        prepared(noise_catalogue({}))


SLOW_WRITER = """
import sys, time
from pathlib import Path
from dataclasses import replace
sys.path.insert(0, {tests!r})
from noise_images import noise_catalogue
from dmlcore.config import PreprocessConfig
from dmlcore.data.prepare import prepare
noise = noise_catalogue({{str(n): 3 for n in range(16)}})
def read(item):
    print("reading", flush=True)
    time.sleep(0.2)
    return noise.read(item)
prepare("mine", replace(noise, read=read), PreprocessConfig(), Path({folder!r}), lambda test: {{}})
"""


def test_killed_half_way_leaves_nothing_half_written(tmp_path):
    folder = tmp_path / "prepared"
    program = SLOW_WRITER.format(tests=str(Path(__file__).parent), folder=str(folder))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    assert not folder.exists()
    prepare(
        "mine", noise_catalogue({str(n): 3 for n in range(16)}), PreprocessConfig(), folder, lambda test: {}
    )
    assert json.loads((folder / "dataset.json").read_text())["counts"]["all"]["images"] == 48
    assert [path.name for path in tmp_path.iterdir()] == ["prepared"]
