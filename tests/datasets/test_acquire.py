import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.acquire import acquire
from dmlcore.datasets.importers.inaturalist2018 import load_catalogue as inaturalist2018_catalogue
from tests.datasets.published import encode, images, imported, pixels, write_archive, write_source, write_tar

REPOSITORY = Path(__file__).parents[2]
COUNTS = {"train": {"classes": 1, "images": 2}, "test": {"classes": 1, "images": 2}}
PATHS = [f"train_val2018/Aves/{species}/{number}.jpg" for species in (1, 2) for number in (1, 2)]
LISTS = {
    "Inaturalist_train_set1.txt": "\n".join(PATHS[:2]).encode(),
    "Inaturalist_test_set1.txt": "\n".join(PATHS[2:]).encode(),
}


def build(folder, files, **lists):
    content = {"train_val2018.tar.gz": files} | LISTS | lists
    return imported(folder, "inaturalist2018", inaturalist2018_catalogue, content, expected=COUNTS)


def test_the_same_archives_give_the_same_bytes(tmp_path):
    build(tmp_path, images(PATHS))
    first = (tmp_path / "raw/images.tar").read_bytes()
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == ["images.tar", "source.json"]
    os.utime(tmp_path / "archives/train_val2018.tar.gz", (1, 1))
    acquire(tmp_path / "source.json", tmp_path / "raw", str(tmp_path / "archives"))
    assert (tmp_path / "raw/images.tar").read_bytes() == first


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(Image.new("L", (9, 7), 99), id="grey"),
        pytest.param(Image.new("RGB", (9, 7), (99, 99, 99)).quantize(), id="palette"),
        pytest.param(Image.new("CMYK", (9, 7), (0, 0, 0, 156)), id="cmyk"),
    ],
)
def test_other_colour_modes_come_out_as_rgb(tmp_path, image):
    data = encode(image, "PNG" if image.mode == "P" else "JPEG")
    catalogue = build(tmp_path, images(PATHS) | {PATHS[0]: data})
    found = pixels(catalogue, catalogue.items[0])
    assert found.shape == (8, 8, 3)
    assert np.abs(found.astype(int) - 99).max() <= 2


def test_a_broken_image_is_named(tmp_path):
    catalogue = build(tmp_path, images(PATHS) | {PATHS[3]: b"no image"})
    with pytest.raises(DataError, match=r"'train_val2018/Aves/2/2.jpg': unreadable image"):
        pixels(catalogue, catalogue.items[3])


def truncated(folder):
    path = folder / "archives/train_val2018.tar.gz"
    path.write_bytes(path.read_bytes()[:-100])


def verified_but_truncated(folder):
    truncated(folder)
    write_source(folder / "source.json", "inaturalist2018", folder / "archives")


def with_a_way_out(folder):
    write_tar(folder / "archives/train_val2018.tar.gz", images([*PATHS, "../../escaped.jpg"]))
    write_source(folder / "source.json", "inaturalist2018", folder / "archives")


def without_a_list(folder):
    (folder / "archives/Inaturalist_test_set1.txt").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "train_val2018.tar.gz: must have .* bytes, got"),
        (verified_but_truncated, "train_val2018.tar.gz, member .* damaged or truncated"),
        (with_a_way_out, r"member '../../escaped.jpg': a name must be text in one line and lead into"),
        (without_a_list, r"1 archive\(s\) are missing(?s:.*)Inaturalist_test_set1.txt: "),
    ],
)
def test_a_bad_archive_leaves_nothing_half_made_and_the_old_folder_whole(tmp_path, damage, message):
    build(tmp_path, images(PATHS))
    before = everything_but_archives(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        acquire(tmp_path / "source.json", tmp_path / "raw", str(tmp_path / "archives"))
    assert everything_but_archives(tmp_path) == before
    shutil.rmtree(tmp_path / "raw")
    with pytest.raises(DataError, match=message):
        acquire(tmp_path / "source.json", tmp_path / "raw", str(tmp_path / "archives"))
    assert not everything_but_archives(tmp_path)


def everything_but_archives(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "archives"]
    return {path.relative_to(folder): path.read_bytes() for path in files if path.name != "source.json"}


def test_two_archives_with_one_name_are_refused(tmp_path):
    first = {"file": "train_val2018.tar.gz", "unpacked_bytes": 10**6, "members": 10}
    lists = [{"file": name, "unpacked_bytes": 10**6, "members": 1} for name in LISTS]
    content = {"train_val2018.tar.gz": images(PATHS) | LISTS} | LISTS
    source = {"archives": [first, *lists], "expected": COUNTS}
    with pytest.raises(
        DataError, match=r"Inaturalist_train_set1.txt.*another archive of the data set has it too"
    ):
        imported(tmp_path, "inaturalist2018", inaturalist2018_catalogue, content, **source)


def stage(folder):
    """The real stage `download@birds` in a checkout of its own, in the background."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(REPOSITORY / "pipeline/download.py"), "birds"]
    return subprocess.Popen(command, cwd=folder / "data", env=environment, stderr=subprocess.PIPE, text=True)


def test_a_killed_stage_leaves_nothing_half_made_and_the_next_one_completes(tmp_path):
    data = tmp_path / "data"
    random = np.random.default_rng(0)
    noise = [random.bytes(30_000) for _ in range(100)]
    files = {f"train_val2018/Aves/{number}/a.jpg": noise[number % 100] for number in range(2_000)}
    write_archive(data / "archives/train_val2018.tar.gz", files)
    for name, text in LISTS.items():
        write_archive(data / "archives" / name, text)
    write_source(data / "sources/birds.json", "inaturalist2018", data / "archives", expected=COUNTS)
    birds = {"kind": "inaturalist2018", "source": "sources/birds.json"}
    (data / "params.yaml").write_text(yaml.safe_dump({"datasets": {"birds": birds}}))

    process = stage(tmp_path)
    half_made = data / "raw/.birds.partial/images.tar"
    wait_until(lambda: half_made.is_file() and half_made.stat().st_size > 1_000_000, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (data / "raw/birds").exists()

    process = stage(tmp_path)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert [path.name for path in (data / "raw").iterdir()] == ["birds"]
    acquire(data / "sources/birds.json", tmp_path / "undisturbed", str(data / "archives"))
    pairs = [
        (data / "raw/birds" / name, tmp_path / "undisturbed" / name) for name in ("images.tar", "source.json")
    ]
    for one, other in pairs:
        assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
