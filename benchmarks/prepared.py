"""A prepared data set against a folder of files under DVC, and preparing it against its decoder and encoder alone.

`python -m benchmarks.prepared` prints two tables: seconds of `dvc add`, `status` and `checkout`, for the same
20,000 images in one file and as files; images per second on one thread and on all cores.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from dmlcore.config.data import PreprocessConfig
from dmlcore.data.jpeg import JPEG_OPTIONS
from dmlcore.datasets.prepare.build import prepare
from dmlcore.datasets.prepare.catalogue import Catalogue, Item
from dmlcore.datasets.prepare.encoding import all_cores, encoder, ordered_map
from dmlcore.datasets.prepare.image_decoding import pillow_for_threads
from dmlcore.datasets.prepare.journal import Journal

SMALL, PHOTOGRAPH = (48, 48), (500, 375)
CLASSES = 100


def jpeg(seed: int, size: tuple[int, int]) -> bytes:
    """A JPEG of coarse coloured patches with some noise."""
    random = np.random.default_rng(seed)
    patches = Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    noisy = np.asarray(patches).astype(int) + random.integers(-9, 10, (size[1], size[0], 1))
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def photographs(count: int, size: tuple[int, int]) -> Catalogue:
    """That many JPEGs in 100 classes."""
    items = [
        Item(f"{i % CLASSES:03}", "all", f"{i % CLASSES:03}/{i:06}.jpg", split_text=str(i % CLASSES))
        for i in range(count)
    ]
    files = {item: jpeg(number, size) for number, item in enumerate(items)}
    return Catalogue(tuple(items), files.__getitem__, 3, "patches", "none")


# ------------------------------------------------------------------------------------------------- DVC


def dvc_table(count: int) -> list[tuple[str, float, float]]:
    """`dvc` command, seconds for the prepared data set, seconds for the folder."""
    catalogue = photographs(count, SMALL)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        config = PreprocessConfig(encoding="jpeg", image_size=SMALL[0])
        prepare("prepared", catalogue, config, root / "prepared")
        for item in catalogue.items:
            path = root / "files" / item.source
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(catalogue.read(item)))
        dvc(root, "init", "--no-scm", "--quiet")
        prepared, files = dvc_seconds(root, "prepared"), dvc_seconds(root, "files")
    return [(command, prepared[command], files[command]) for command in prepared]


def dvc_seconds(root: Path, name: str) -> dict[str, float]:
    """Seconds of the commands on `root/name`; the checkout starts from nothing."""
    seconds = {
        "add": dvc(root, "add", name, "--quiet"),
        "status": dvc(root, "status", f"{name}.dvc", "--quiet"),
    }
    shutil.rmtree(root / name)
    return seconds | {"checkout": dvc(root, "checkout", f"{name}.dvc", "--quiet")}


def dvc(root: Path, *arguments: str) -> float:
    """Seconds of one command."""
    environment = os.environ | {"DVC_NO_ANALYTICS": "true", "DVC_SITE_CACHE_DIR": str(root / ".site")}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, env=environment, check=True)
    return time.perf_counter() - start


# --------------------------------------------------------------------------------------------- preparing


def preparing_table(count: int, repeats: int) -> list[tuple[str, float]]:
    """What is timed, images a second: the median of the repeats, taken in turn."""
    catalogue = photographs(count, PHOTOGRAPH)
    config = PreprocessConfig(encoding="jpeg", image_size=256)
    whats: dict[str, Callable[[], None]] = {
        "decode, resize, encode alone": lambda: alone(catalogue, config),
        "prepare, 1 thread": lambda: prepare_images(catalogue, config, 1),
        f"prepare, {all_cores()} threads": lambda: prepare_images(catalogue, config, all_cores()),
    }
    rates: dict[str, list[float]] = {what: [] for what in whats}
    for _ in range(repeats):
        for what, run in whats.items():
            start = time.perf_counter()
            run()
            rates[what].append(count / (time.perf_counter() - start))
    return [(what, statistics.median(rate)) for what, rate in rates.items()]


def alone(catalogue: Catalogue, config: PreprocessConfig) -> None:
    """A plain loop over Pillow."""
    for item in catalogue.items:
        with Image.open(io.BytesIO(bytes(catalogue.read(item)))) as image:
            scale = config.image_size / min(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            small = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        small.save(io.BytesIO(), **JPEG_OPTIONS)


def prepare_images(catalogue: Catalogue, config: PreprocessConfig, workers: int) -> None:
    """What preprocessing does with each image, its file and journal included."""
    with tempfile.TemporaryDirectory() as folder, pillow_for_threads():
        journal = Journal(Path(folder), "images.bin", "benchmark")
        for _ in journal.append(ordered_map(encoder(catalogue, config), catalogue.items, workers)):
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000, help="images under DVC")
    parser.add_argument("--images", type=int, default=1000, help="images prepared")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(f"{args.images:,} photographs of {PHOTOGRAPH[0]} x {PHOTOGRAPH[1]} to short side 256")
    print(f"{'':32}{'images/s':>9}{'ratio':>7}")
    table = preparing_table(args.images, args.repeats)
    for what, rate in table:
        print(f"{what:32}{rate:9.0f}{rate / table[0][1]:7.2f}")
    print(
        f"\n{args.files:,} images under DVC, seconds\n{'':12}{'prepared':>9}{'files':>8}{'ratio':>7}",
        flush=True,
    )
    for command, prepared, files in dvc_table(args.files):
        print(f"dvc {command:8}{prepared:9.1f}{files:8.1f}{files / prepared:7.1f}", flush=True)


if __name__ == "__main__":
    main()
