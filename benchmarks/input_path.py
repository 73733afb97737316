"""Images a second of the input path against torchvision's ImageFolder + DataLoader and against decoding alone.

`python -m benchmarks.input_path` prints a table. The competitors take turns over the same JPEG files (short side 256,
quality 95; of the photographs in a folder, else generated ones), and each keeps the fastest of its turns: another
process on the machine can only add time. "decoding alone" is the same decoder on whole images, without crop or batch.
ImageFolder + DataLoader has the same transforms and comes in two forms: PIL images, and tensors decoded, cropped and
resized by torch.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode
from torchvision.transforms import v2

from dmlcore.config.trial import RandomCropConfig
from dmlcore.data.jpeg import JPEG_OPTIONS, JpegImages
from dmlcore.training.input_pipeline import InputPipeline

SIDE, SIZE, BATCH = 256, 224, 64
CROP = RandomCropConfig(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
Run = Callable[[], int]
TRANSFORMS = {
    "training": [v2.RandomResizedCrop(SIZE, CROP.scale, CROP.ratio), v2.RandomHorizontalFlip()],
    "evaluation": [v2.CenterCrop(SIZE)],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photographs", type=Path, help="folder of JPEG files, with all folders in it")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        images = store(arguments.photographs, arguments.images, Path(folder))
        print(f"{len(images)} images, {images.lengths.mean() / 1024:.0f} KiB each; {arguments.turns} turns")
        print(f"{'':48}{'images/s':>9}{'/ decoding alone':>18}")
        for workers in sorted({1, os.cpu_count() or 1}):
            for path in TRANSFORMS:
                rates = race(competitors(path, workers, images, Path(folder)), arguments.turns)
                print_rates(f"{path}, {workers} worker{'s' * (workers > 1)}", rates)


def print_rates(title: str, rates: dict[str, float]) -> None:
    for name, rate in rates.items():
        print(f"{title + ': ' + name:48}{rate:9.0f}{rate / rates['decoding alone']:18.2f}")
    theirs = max(rate for name, rate in rates.items() if name.startswith("DataLoader"))
    print(f"{title + ': dmlcore / the faster DataLoader':48}{rates['dmlcore'] / theirs:9.2f}", flush=True)


def race(runs: dict[str, Run], turns: int) -> dict[str, float]:
    """Images a second of each, at its fastest turn after one to warm up."""
    seconds = {name: [float("inf")] for name in runs}
    for turn in range(turns + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            count = run()
            if turn:
                seconds[name].append((time.perf_counter() - start) / count)
    return {name: 1 / min(each) for name, each in seconds.items()}


def competitors(path: str, workers: int, images: JpegImages, folder: Path) -> dict[str, Run]:
    """All make one pass over the images and return how many there were."""
    return {
        "decoding alone": lambda: decode(images, workers),
        "dmlcore": lambda: ours(path, images, workers),
        "DataLoader, PIL": loader_run(
            ImageFolder(folder, v2.Compose([*TRANSFORMS[path], v2.PILToTensor()])), workers
        ),
        "DataLoader, tensors": loader_run(
            ImageFolder(folder, v2.Compose(TRANSFORMS[path]), loader=read_tensor), workers
        ),
    }


def decode(images: JpegImages, workers: int) -> int:
    def part(first: int) -> int:
        return sum(images.read(i).shape[2] == 3 for i in range(first, len(images), workers))

    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(part, range(workers)))


def ours(path: str, images: JpegImages, workers: int) -> int:
    pipeline = InputPipeline(images, size=SIZE, random_crop=CROP, flip=True, workers=workers)
    if path == "evaluation":
        return sum(len(batch) for batch in pipeline.evaluation_batches(BATCH))
    generator = np.random.default_rng(0)
    order = generator.permutation(len(images))
    batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    return sum(len(batch) for batch in pipeline.training_batches(batches, generator))


def loader_run(dataset: ImageFolder, workers: int) -> Run:
    """One worker is the calling process itself; more are processes that live on between the turns."""
    processes = workers if workers > 1 else 0
    loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=processes, persistent_workers=processes > 0)
    return lambda: sum(len(batch) for batch, _ in loader)


def read_tensor(path: str) -> torch.Tensor:
    """[3, H, W], by the decoder that dmlcore uses."""
    file = torch.from_numpy(np.fromfile(path, np.uint8))
    return torch.ops.image.decode_jpeg(file, ImageReadMode.RGB.value, False)


def store(photographs: Path | None, count: int, folder: Path) -> JpegImages:
    """The same JPEG files as an ImageFolder of one class and in one array."""
    (folder / "class").mkdir()
    sources = sorted(photographs.rglob("*.jpg")) if photographs else []
    chosen = np.linspace(0, len(sources) - 1, min(count, len(sources))).astype(int)
    pictures = (photograph(sources[i]) for i in chosen) if sources else map(generated, range(count))
    for number, picture in enumerate(pictures):
        picture.save(folder / "class" / f"{number:06}.jpg", **JPEG_OPTIONS)
    files = [file.read_bytes() for file in sorted((folder / "class").iterdir())]
    lengths = np.array([len(file) for file in files])
    return JpegImages(np.frombuffer(b"".join(files), np.uint8), np.cumsum(lengths) - lengths, lengths)


def photograph(path: Path) -> Image.Image:
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file).convert("RGB")
    scale = SIDE / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def generated(seed: int) -> Image.Image:
    """Smooth colours with noise on them: about as many bytes as a photograph."""
    rng = np.random.default_rng(seed)
    size = ((341, 256), (256, 341), (256, 256))[seed % 3]
    small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
    smooth = np.asarray(small.resize(size, Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
