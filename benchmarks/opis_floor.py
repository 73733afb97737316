"""Raw against corrected OPIS on classes of one law, for a growing number of images: writes docs/opis.png.

`python -m benchmarks.opis_floor` also prints the table of docs/opis.md.
"""

import argparse

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from dmlcore.metrics.evaluation import evaluate
from tests.metrics.samples import draw

IMAGES = (2, 3, 4, 5, 8, 12, 20, 30, 60)
CLASSES = 60
SPREADS = {
    "one law for all classes": 1.5,
    "spread 1.0 to 2.5 over the classes": np.linspace(1.0, 2.5, CLASSES),
}


def scores(images: int, spread: np.ndarray | float, draws: int) -> np.ndarray:
    """Raw and corrected OPIS of independent draws, [draws, 2]."""
    found = []
    for seed in range(draws):
        x, y = draw([images] * CLASSES, spread, np.random.default_rng(seed))
        metrics = evaluate(x, y, distance_range=(1.05, 1.25), seed=seed).metrics
        found.append((metrics["opis"], metrics["opis_corrected"]))
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--out", default="docs/opis.png")
    args = parser.parse_args()
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for axis, (name, spread) in zip(axes, SPREADS.items(), strict=True):
        table = np.array([scores(images, spread, args.draws) for images in IMAGES])
        print(name)
        for images, found in zip(IMAGES, table, strict=True):
            print(f"| {images} | {found[:, 0].mean():.4f} | {found[:, 1].mean():.4f} |")
        for column, label in enumerate(("opis", "opis_corrected")):
            error = table[:, :, column].std(axis=1, ddof=1)
            axis.errorbar(IMAGES, table[:, :, column].mean(axis=1), error, marker="o", capsize=3, label=label)
        axis.axhline(0, color="grey", linewidth=0.8)
        axis.set(title=name, xlabel="images a class", ylabel="score", xscale="log")
        axis.set_xticks(IMAGES, map(str, IMAGES))
        axis.minorticks_off()
        axis.legend()
    figure.suptitle(f"{CLASSES} classes, {args.draws} draws: mean and standard deviation of one draw")
    figure.savefig(args.out, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
