import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.prepare.build import csv_blocks, data_hash, fingerprint
from dmlcore.datasets.prepare.classes import ordered_rows
from dmlcore.datasets.prepare.journal import BATCH
from tests.datasets.noise_images import noise_catalogue
from tests.datasets.photo_files import photo_catalogue


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


def test_class_texts_are_part_of_the_data(prepared, noise):
    plain = prepared(noise)
    with pytest.raises(DataError, match=r"class_texts.json: no such file"):
        plain.class_texts()
    texts = {item.class_name: f"{item.class_name} in words" for item in noise.items}
    told = prepared(replace(noise, class_texts=texts))
    assert told.class_texts() == texts
    assert told.data_hash != plain.data_hash


def test_the_summary_counts(prepared, noise):
    summary = prepared(noise).summary
    assert summary["counts"]["all"] == {"classes": 16, "images": len(noise.items)}
    assert (
        summary["protocol"]
        == "no class in two splits; rule hashed, seed 0; 6 / 2 / 8 classes train / validation / test"
    )
    found = {key: summary["duplicates"][key] for key in ("across_classes", "across_splits", "within_a_class")}
    assert found == {"across_classes": 0, "across_splits": 0, "within_a_class": 0}
    assert summary["unreadable"] == {"images": 0, "first": []}
    assert (summary["schema_version"], summary["encoding"]) == (2, "raw")


def test_duplicates_are_counted_where_they_are_not_refused(prepared, noise):
    black = replace(noise, read=lambda item: np.zeros((8, 8, 3), np.uint8))
    summary = prepared(black, PreprocessConfig(on_duplicates="report")).summary
    assert summary["duplicates"]["across_classes"] == len(noise.items)


def test_a_refused_data_set_leaves_what_was_there(prepared, noise, tmp_path):
    before = contents(prepared(noise).folder)
    with pytest.raises(DataError, match="identical images in two classes"):
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


def breaking(catalogue, count):
    """The catalogue with that many damaged files."""
    broken = set(catalogue.items[:: len(catalogue.items) // count][:count])
    return replace(
        catalogue, read=lambda item: b"no image" if item in broken else catalogue.read(item)
    ), sorted(item.source for item in broken)


def test_a_broken_image_is_refused_by_name(prepared, tmp_path):
    catalogue, (name,) = breaking(photo_catalogue(), 1)
    with pytest.raises(DataError, match=rf"'{name}': unreadable image.*`max_broken_share` 0.0 allows 0"):
        prepared(catalogue)
    assert list(tmp_path.iterdir()) == []


def test_broken_images_up_to_the_share_are_left_out_and_named(prepared):
    whole = photo_catalogue()
    catalogue, names = breaking(whole, 3)
    dataset = prepared(catalogue, PreprocessConfig(max_broken_share=0.05))  # 3 of 64 are 0.047
    assert dataset.manifest.height == len(whole.items) - 3
    assert not set(dataset.manifest["source"]) & set(names)
    unreadable = dataset.summary["unreadable"]
    assert unreadable["images"] == 3
    assert sorted(line.split("'")[1] for line in unreadable["first"]) == names
    without = [item for item in whole.items if item.source not in names]
    assert prepared(replace(whole, items=tuple(without))).data_hash == dataset.data_hash


def test_broken_images_above_the_share_are_refused(prepared):
    catalogue, _ = breaking(photo_catalogue(), 4)
    with pytest.raises(DataError, match=r"unreadable image 4 of 64 images, `max_broken_share` 0.05 allows 3"):
        prepared(catalogue, PreprocessConfig(max_broken_share=0.05))


def test_copies_across_splits_and_classes_are_counted_and_named(prepared):
    whole = photo_catalogue()
    first = {item.class_name: item for item in reversed(whole.items)}
    copied = replace(
        whole,
        read=lambda item: whole.read(first[item.class_name] if item.source[:2] > "03" else whole.items[0]),
    )
    summary = prepared(copied, PreprocessConfig(on_duplicates="report")).summary["duplicates"]
    assert summary["across_classes"] == 16  # 4 classes of 4 images
    assert summary["near_identical"]["across_classes"] == 6 * 16  # pairs of 4 classes, 4 x 4 images each
    splits = prepared(copied, PreprocessConfig(on_duplicates="report")).manifest.filter(
        pl.col("class_name") < "class 04"
    )
    counts = splits["split"].value_counts()["count"]
    assert summary["across_splits"] == (16 if len(counts) > 1 else 0)
    assert summary["near_identical"]["across_splits"] == (16**2 - (counts**2).sum()) // 2
    assert len(summary["near_identical"]["first"]) == 96
    assert summary["near_identical"]["first"][0].endswith(": 0 bits")


WRITER = """
import os, sys, time
from pathlib import Path
from dataclasses import replace
sys.path.insert(0, {root!r})
from tests.datasets.noise_images import noise_catalogue
from tests.datasets.photo_files import photo_catalogue
from dmlcore.config.data import PreprocessConfig
from dmlcore.datasets.prepare.build import prepare
noise = noise_catalogue({{f"{{n:02}}": 100 for n in range(16)}})
log = os.open({log!r}, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
def read(item):
    os.write(log, (item.source + "\\n").encode())
    time.sleep(0.003)
    return noise.read(item)
prepare("mine", replace(noise, read=read), PreprocessConfig(), Path({folder!r}))
"""


def start_writer(folder, log):
    program = WRITER.format(root=str(Path(__file__).parents[2]), folder=str(folder), log=str(log))
    return subprocess.Popen([sys.executable, "-c", program])


def kill_after(process, journal, rows):
    """Kill -9 once the journal holds that many rows."""
    deadline = time.monotonic() + 60
    while not journal.is_file() or journal.read_bytes().count(b"\n") <= rows:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)


def test_a_killed_run_is_resumed(tmp_path):
    folder, partial = tmp_path / "killed", tmp_path / ".killed.partial"
    kill_after(start_writer(folder, tmp_path / "first"), partial / "journal.csv", 2 * BATCH)
    kept = (partial / "journal.csv").read_bytes().count(b"\n") - 1
    assert not folder.exists()
    assert 2 * BATCH <= kept < 1600
    with (partial / "images.bin").open("ab") as file:
        file.write(b"half an image")
    with (partial / "journal.csv").open("ab") as file:
        file.write(b"0123,8,8,1")

    assert start_writer(folder, tmp_path / "second").wait(timeout=60) == 0
    assert len((tmp_path / "second").read_text().splitlines()) == 1600 - kept
    assert start_writer(tmp_path / "whole", tmp_path / "third").wait(timeout=60) == 0
    assert contents(folder) == contents(tmp_path / "whole")
    assert not partial.exists()


def test_unfinished_work_of_other_settings_or_files_is_discarded(tmp_path, noise):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "images.tar").write_bytes(b"1")
    rows = ordered_rows(noise, PreprocessConfig())
    first = fingerprint(rows, PreprocessConfig(), raw)
    assert fingerprint(rows, PreprocessConfig(max_broken_share=0.5), raw) == first
    assert fingerprint(rows, PreprocessConfig(image_size=16), raw) != first
    assert fingerprint(rows[::-1], PreprocessConfig(), raw) != first
    (raw / "images.tar").write_bytes(b"12")
    assert fingerprint(rows, PreprocessConfig(), raw) != first


def test_the_hash_of_many_rows_is_that_of_one_text(tmp_path):
    table = pl.DataFrame({"number": range(200_000)}).with_columns(text=pl.format('a,"{}', "number"))
    assert b"".join(csv_blocks(table)) == table.write_csv().encode()
