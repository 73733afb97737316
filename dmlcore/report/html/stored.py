"""What the page looks into: the stored test embeddings of two trials that differ in the regulariser, and their images.

Shapes: N test images, D width, C classes with a positive pair.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmlcore.analysis.embedding import embeddings_path, far_range, stored_tensors
from dmlcore.analysis.study import BASELINE, Cell, Study

if TYPE_CHECKING:
    from dmlcore.data.dataset import Split
    from dmlcore.metrics.evaluation import Evaluation


Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_IMAGES = 20_000
"""Test images beyond which the page leaves this out: all pairs of 60,000 images take minutes on one core."""

THRESHOLDS = "config/evaluation.num_thresholds"

CLASSES_PER_END = 6
THUMBNAIL_PIXELS = 64
"""Longest side of a thumbnail; a photograph then has about 2 kB."""


@dataclass(frozen=True)
class VariantEmbeddings:
    """The embeddings of one of the two trials, and how one threshold serves each class in them."""

    variant: str
    embeddings: Floats
    """[N, D], L2-normalised."""
    class_labels: Integers
    """[C], ascending."""
    utility: Floats
    """[C], mean over the calibration range of the test negatives."""
    frr: Floats
    """[C], share of the class's positive pairs rejected where the pooled FAR is 0.01."""
    far: Floats
    """[C], share of its negative pairs accepted there."""


@dataclass(frozen=True)
class PairedEmbeddings:
    """The baseline and a variant of one cell, at one seed, on the same images."""

    cell: Cell
    seed: int
    labels: Integers
    """[N]."""
    index: Integers
    """[N], row of the manifest."""
    is_query: NDArray[np.bool_] | None
    """[N], where queries search a gallery; None where every image does both."""
    groups: Integers | None
    """[N], where two images of one class and one group are no pair; None: the data set has no groups."""
    baseline: VariantEmbeddings
    variant: VariantEmbeddings

    @property
    def text(self) -> str:
        return f"{self.cell.title}, seed {self.seed}"


class _StoredPair(NamedTuple):
    cell: Cell
    variant: str
    seed: int
    baseline_key: str
    variant_key: str


def paired_embeddings(study: Study) -> PairedEmbeddings | str:
    """Read the pair of the most accurate variant, at the first seed whose two files are on this machine.

    Most accurate: the highest mean of `aggregate.accuracy` among the variants that have a stored pair.

    Returns:
        The pair, or a sentence that says why there is none.
    """
    found = [
        pair for cell in study.cells for name in cell.variants if (pair := _stored_pair(study, cell, name))
    ]
    if study.storage is None or not study.storage.is_dir():
        return "Left out: the stored embeddings of the trials are not on this machine; the sweep stage writes them."
    if not found:
        return "Left out: no seed has the stored test embeddings of both the baseline and a variant."
    accuracy = [pair.cell.mean(pair.variant, study.config.accuracy) for pair in found]
    best = found[int(np.argmax([-np.inf if mean is None else mean for mean in accuracy]))]
    baseline, variant = (stored_tensors(study, key) for key in (best.baseline_key, best.variant_key))
    if baseline is None or variant is None:
        return (
            f"Left out: the stored test embeddings of seed {best.seed} do not have the checksums of their records, or "
            "the records are not on this machine; `dmlcore check --deep` says which."
        )
    if len(variant["labels"]) > MAX_IMAGES:
        return f"Left out: all pairs of {len(variant['labels']):,} test images take minutes; at most {MAX_IMAGES:,}."
    if not np.array_equal(baseline["index"], variant["index"]):
        return f"Left out: the stored embeddings of the two trials of seed {best.seed} are not of the same images."
    labels, index = (np.asarray(variant[name], np.int64) for name in ("labels", "index"))
    is_query = np.asarray(variant["is_query"], bool) if "is_query" in variant else None
    groups = np.asarray(variant["groups"], np.int64) if "groups" in variant else None
    protocol = {"is_query": is_query, "groups": groups}
    both = (
        _evaluated(name, tensors["embeddings"], labels, protocol, best.cell.variants[name].row(0, named=True))
        for name, tensors in ((BASELINE, baseline), (best.variant, variant))
    )
    return PairedEmbeddings(best.cell, best.seed, labels, index, is_query, groups, *both)


def _stored_pair(study: Study, cell: Cell, variant: str) -> _StoredPair | None:
    if variant == BASELINE or BASELINE not in cell.variants:
        return None
    keys, others = (
        dict(cell.finished[name].select("seed", "trial_key").iter_rows()) for name in (BASELINE, variant)
    )
    for seed in sorted(keys.keys() & others.keys()):
        if embeddings_path(study, keys[seed]) and embeddings_path(study, others[seed]):
            return _StoredPair(cell, variant, seed, keys[seed], others[seed])
    return None


def _evaluated(
    variant: str, embeddings: Any, labels: Integers, protocol: dict[str, Any], trial: dict[str, Any]
) -> VariantEmbeddings:
    # imported here: `dmlcore.metrics.evaluation.evaluate` loads torch, and a page without stored embeddings needs none
    from dmlcore.metrics.evaluation import evaluate

    found = evaluate(
        embeddings,
        labels,
        far_range=far_range(trial),
        num_thresholds=trial.get(THRESHOLDS) or 101,
        **protocol,
    )
    points = np.asarray(embeddings, np.float64)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    classes = np.asarray(found.class_labels, np.int64)
    return VariantEmbeddings(variant, unit, classes, _mean_utility(found), found.frr, found.far)


def _mean_utility(found: Evaluation) -> Floats:
    """Average over the calibration range by the trapezoid rule, as OPIS does."""
    width = found.thresholds[-1] - found.thresholds[0]
    if width <= 0:
        return np.asarray(found.utility[:, 0])
    return np.asarray(np.trapezoid(found.utility, found.thresholds, axis=1) / width)


def extreme_classes(pair: PairedEmbeddings) -> list[tuple[str, int]]:
    """Find the classes with the lowest and the highest mean utility in the variant.

    Returns:
        (`worst` or `best`, label), the worst first; of equals the one with the lower label.
    """
    order = np.argsort(pair.variant.utility, kind="stable")
    count = min(CLASSES_PER_END, len(order) // 2)
    labels = pair.variant.class_labels[np.r_[order[:count], order[len(order) - count :]]].tolist()
    return list(zip(["worst"] * count + ["best"] * count, labels, strict=True))


@dataclass(frozen=True)
class DatasetImages:
    """Class names and thumbnails of the test images, where the prepared data set is on this machine."""

    class_names: dict[int, str]
    """Row of the manifest -> class name."""
    split: Split | None
    missing: str | None
    """Why there are none."""

    def class_name(self, pair: PairedEmbeddings, position: int) -> str:
        return self.class_names.get(int(pair.index[position]), f"class {pair.labels[position]}")

    def thumbnail(self, row: int) -> str | None:
        """Encode the image at a row of the manifest as a data address; None without the data set."""
        if self.split is None:
            return None
        return data_address(self.split.images.read(row - int(self.split.index[0])))


def dataset_images(study: Study, pair: PairedEmbeddings) -> DatasetImages:
    """Open the prepared images of the pair's data set; without them the page shows labels and says why."""
    dataset = pair.cell.dataset
    folder = None if study.prepared is None else study.prepared / dataset
    if folder is None or not (folder / "dataset.json").is_file():
        return DatasetImages({}, None, "No images: the prepared data set is not on this machine.")
    # imported here: decoding JPEG files needs torch, a page without images does not
    from dmlcore.data.dataset import PreparedDataset

    data = PreparedDataset.open(folder)
    if data.data_hash != study.datasets[dataset].get("data_hash"):
        # the rows of another preparation would show wrong images under right numbers
        return DatasetImages(
            {}, None, "No images: the prepared data set is not the one that the trials were trained on."
        )
    rows = pair.index.tolist()
    names = dict(zip(rows, data.manifest[rows]["class_name"].to_list(), strict=True))
    return DatasetImages(names, data.split("test"), None)


def data_address(pixels: NDArray[np.uint8]) -> str:
    """Encode [H, W, C] pixels as a `data:image/...` thumbnail: grey as PNG, colour as JPEG."""
    grey = pixels.shape[2] == 1
    image = Image.fromarray(np.array(pixels[:, :, 0] if grey else pixels))
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer, kind = io.BytesIO(), "png" if grey else "jpeg"
    image.save(buffer, kind, **({} if grey else {"quality": 80}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
