"""Hours of the study `paper` on 1, 8 and 64 GPUs, calculated from the rates of benchmarks/GPU.md: nothing is run.

    python -m benchmarks.paper_scale

Upper bounds but for one thing: that several GPUs divide a trial without loss, which nobody has measured here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from dmlcore.config.study import load_study
from dmlcore.config.trial import TrialConfig
from dmlcore.sweep.grid import expand

ROOT = Path(__file__).resolve().parents[1]
IMAGES = {
    "cub200": (5_864, 5_924),
    "cars196": (8_054, 8_131),
    "sop": (59_551, 60_502),
    "inaturalist2018": (325_846, 136_093),
}
"""Published images of training (our training and validation) and of test, as in Brown et al., Smooth-AP, ECCV 2020."""
VALIDATION = 0.125
"""Share of the training classes, data/params.yaml."""
REPLAY = 4 / 3
"""Forward twice and backward, the cost of two forward passes: gradient replay against an ordinary step."""
EVALUATED = 136_093
SECTIONS = {"resnet50": "images/s, resnet50", "vit_b16": "images/s, vit_base"}
GPUS = (1, 8, 64)


def figure(section: str, row: str) -> float:
    """Return a figure of benchmarks/GPU.md."""
    text = (ROOT / "benchmarks" / "GPU.md").read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    found = re.search(rf"^\| {re.escape(row)} \| ([0-9.,]+)", text, re.MULTILINE)
    assert found is not None, f"benchmarks/GPU.md has no row {row!r} in {section!r}"
    return float(found[1].replace(",", ""))


def trial_hours(config: TrialConfig, backbone: str, rate_row: str) -> float:
    """Return the hours of a trial on one GPU, if validation chooses its last epoch."""
    images, test = IMAGES[config.dataset]
    held_out = VALIDATION * images
    trained = (
        config.train.epochs * (images - held_out + images) * (REPLAY if config.train.chunk_size else 1.0)
    )
    # An embedded image is counted as a trained one, which takes longer; the untrained network is embedded as well.
    embedded = (config.train.epochs + 2) * held_out + 3 * test
    seconds = (trained + embedded) / figure(SECTIONS[backbone], rate_row)
    # A sweep is quadratic in the images.
    sweep = figure("evaluate", "iNaturalist, 136,093 x 128, 2,452 classes") / EVALUATED**2
    seconds += sweep * (4 * test**2 + (config.train.epochs + 2) * held_out**2)
    return seconds / 3600


def rows() -> Iterator[str]:
    """Yield the lines of the table."""
    cells = expand(load_study(ROOT / "studies" / "paper" / "params.yaml").sweep)
    trials: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for cell in cells:
        backbone = str(cell.labels["backbone"])
        hours = [
            trial_hours(cell.config, backbone, row)
            for row in ("Trainer, JPEG files, nvJPEG", "Trainer, JPEG files, 16 threads")
        ]
        trials[cell.config.dataset, backbone].append((hours[0], hours[1]))
    yield "| a trial | 1 GPU | 8 GPUs of a node | 1 GPU, 16 CPU threads decode | bottleneck |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for (dataset, backbone), ((gpu, cpu), *_) in trials.items():
        last = "GPU; where the CPU decodes, that"
        yield f"| {dataset}, {backbone} | {gpu:.2f} h | {gpu / 8:.2f} h | {cpu:.2f} h | {last} |"
    yield ""
    yield f"| the study, {len(cells)} trials | 1 GPU | 8 GPUs | 64 GPUs | bottleneck |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for number, name in enumerate(("nvJPEG decodes", "16 CPU threads for each GPU decode")):
        found = [hours[number] for alike in trials.values() for hours in alike]
        # Trials run side by side; the longest, on the 8 GPUs of a node, bounds them all.
        spans = [max(sum(found) / gpus, max(found) / min(gpus, 8)) for gpus in GPUS]
        yield f"| {name} | {' | '.join(f'{span:.1f} h' for span in spans)} | {('GPU', 'decoding')[number]} |"


def main() -> None:
    """Print the table."""
    print(*rows(), sep="\n")


if __name__ == "__main__":
    main()
