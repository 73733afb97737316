"""Hours of the study `paper` on 1, 8 and 64 GPUs, calculated from the rates of benchmarks/GPU.md: nothing is run.

    python -m benchmarks.paper_scale

Upper bounds but for one thing: that several GPUs divide a trial without loss, which nobody has measured here.
`dmlcore plan` prints the same of any study whose data sets are prepared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from dmlcore.config.study import load_study
from dmlcore.config.trial import TrialConfig
from dmlcore.sweep.dry_run.disk import ImageCounts
from dmlcore.sweep.dry_run.gpu_forecast import GPUS, MEASURED_THREADS, NODE, trial_cost
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


def trial_hours(config: TrialConfig, decoder: str | None) -> float:
    """Return the hours of a trial on one GPU, if validation chooses its last epoch."""
    images, test = IMAGES[config.dataset]
    counts = ImageCounts((1 - VALIDATION) * images, VALIDATION * images, test)
    train = config.train.model_copy(update={"decoder": decoder})
    config = config.model_copy(update={"train": train, "threads": MEASURED_THREADS})
    return trial_cost(config, counts).seconds / 3600


def rows() -> Iterator[str]:
    """Yield the lines of the table."""
    cells = expand(load_study(ROOT / "studies" / "paper" / "params.yaml").sweep)
    trials: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for cell in cells:
        hours = trial_hours(cell.config, "gpu"), trial_hours(cell.config, None)
        trials[cell.config.dataset, str(cell.labels["backbone"])].append(hours)
    yield "| a trial | 1 GPU | 8 GPUs of a node | 1 GPU, 16 CPU threads decode | bottleneck |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for (dataset, backbone), ((gpu, cpu), *_) in trials.items():
        last = "GPU; where the CPU decodes, that"
        yield f"| {dataset}, {backbone} | {gpu:.2f} h | {gpu / NODE:.2f} h | {cpu:.2f} h | {last} |"
    yield ""
    yield f"| the study, {len(cells)} trials | 1 GPU | 8 GPUs | 64 GPUs | bottleneck |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for number, name in enumerate(("nvJPEG decodes", "16 CPU threads for each GPU decode")):
        found = [hours[number] for alike in trials.values() for hours in alike]
        # Trials run side by side; the longest, on the GPUs of a node, bounds them all.
        spans = [max(sum(found) / gpus, max(found) / min(gpus, NODE)) for gpus in GPUS]
        yield f"| {name} | {' | '.join(f'{span:.1f} h' for span in spans)} | {('GPU', 'decoding')[number]} |"


def main() -> None:
    """Print the table."""
    print(*rows(), sep="\n")


if __name__ == "__main__":
    main()
