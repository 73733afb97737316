"""evaluate(): every retrieval, verification and consistency metric of a set of embeddings, exactly, over all pairs.

Shapes: N images, D width, C classes with a positive pair, T thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.metrics.class_scores import build_grid, check_collapse, score_classes
from dmlcore.metrics.inputs import Array, Pairs, Settings, build_pairs
from dmlcore.metrics.pairwise.order_statistics import HIGH_BINS, LOW_BITS
from dmlcore.metrics.pairwise.sweep import Sweep
from dmlcore.metrics.pairwise.tiles import one_thread
from dmlcore.metrics.pairwise.torch_sweep import TorchSweep
from dmlcore.metrics.retrieval import ranks_of_all, retrieval_metrics
from dmlcore.metrics.verification import operating_points

Floats = NDArray[np.float64]
FEW_IMAGES = 1024
"""Up to so many rows and columns plain torch takes 0.1 s, as the compiled loops do, which take 0.7 s to load and 7 s
to compile."""
FEW_IMAGES_MEMORY = 2**27


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluate().

    `metrics`: flat dict, name -> number. `thresholds [T]`: distances. `utility [C, T]`: U_i(d) of each class with a
    positive pair, ids in `class_labels [C]`, ascending. `frr [C]`, `far [C]`: share of the class's positive pairs
    rejected, and of its negative pairs accepted, at the one distance where the pooled FAR is 0.01.
    """

    metrics: dict[str, float]
    thresholds: Floats
    utility: Floats
    class_labels: NDArray[np.generic]
    frr: Floats
    far: Floats


def evaluate(
    embeddings: Array,
    labels: Array,
    *,
    ks: Sequence[int] = (1, 2, 4, 8),
    far_range: tuple[float, float] = (0.01, 0.1),
    num_thresholds: int = 101,
    epsilon: float = 0.1,
    distance_range: tuple[float, float] | None = None,
    is_query: Array | None = None,
    groups: Array | None = None,
    ignore_label: int | str | None = None,
    bootstrap: int = 0,
    memory_bytes: int | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    share: bool = False,
) -> Evaluation:
    """Evaluate embeddings on all their pairs: exact, in bounded memory, the same numbers for every memory bound.

    Args:
        embeddings: [N, D] floating point, of numpy, torch or a DataFrame; L2-normalised here, then float32.
        labels: [N] integers of any size, or texts.
        ks: the k of recall_at_k.
        far_range: pooled false-accept rates whose distances bound the calibration range of OPIS.
        num_thresholds: T equally spaced distances of that range, both ends included.
        epsilon: share of the classes at either end that epsilon_opis compares.
        distance_range: (smallest, largest) distance, instead of far_range (a range carried over from validation).
        is_query: [N] bool; queries then search the others, the gallery, and a pair is one query with one gallery image.
        groups: [N] integers or texts: camera, sequence or encounter. Two images of one class and one group are no pair,
            in any metric; two of one group and different classes are one.
        ignore_label: images with this label (junk) are left out before anything else.
        bootstrap: number of class resamples behind opis_low/high and opis_raw_low/high (95 %); 0 leaves them out.
        memory_bytes: bound on the working memory in addition to the input, default 2^30.
        device: where the products run, default the CPU.
        seed: of the bootstrap.
        share: each process of torch.distributed counts a share of the pairs, on its `device`; all must call it alike.

    Returns:
        Evaluation. A class with one image (or all images in one group) has no positive pair: it is used as negatives
        only and counted in `num_singleton_classes`; its query is left out, and counted with all others that have no
        positive in the gallery in `num_queries_without_positive`. Classes with fewer than 4 images (2 queries and 2
        gallery images), or so many groups, are left out of opis_corrected and counted in
        `num_classes_too_small_for_correction`; with fewer than 2 classes left it is NaN. opis_floor = opis -
        opis_corrected. `num_images_under_two_labels`: images identical to one of another class, which no threshold can
        tell apart. With `groups`: `num_groups`, and `num_queries_positive_in_own_group_only` of those without positive.
        With `ignore_label`: `num_images_ignored`.

    No number depends on the order of the rows: the halves of a class behind opis_corrected are chosen by the content of
    its images. opis_corrected_error is the standard error that the choice leaves within classes: 0 where every division
    of each is taken. Which divisions of two classes meet in a split is not in it: it moves opis_corrected by O(1/C).

    Ties: identical rows are at distance exactly 0. A negative at the same similarity as a positive ranks above it, and
    "distance <= d" accepts both. Distances are d = sqrt(2 - 2 s) of float32 similarities s, never above 1.

    Raises:
        ValueError: NaN or infinite embeddings, shapes that do not fit, fewer than 2 classes, no positive pair, collapse
        (all embeddings alike, or the distance at the larger FAR within float32 noise of 0), arguments out of range.

    Reference: OPIS: Zhang et al., ICLR 2024, arXiv 2307.04047; MAP@R: Musgrave et al. 2020, arXiv 2003.08505.
    """
    memory = 2**30 if memory_bytes is None else memory_bytes
    settings = Settings(
        tuple(ks), far_range, num_thresholds, epsilon, distance_range, bootstrap, memory, seed
    )
    threads = torch.get_num_threads()
    with torch.inference_mode(), one_thread():
        on = find_device(device or "cpu")
        pairs = build_pairs(embeddings, labels, is_query, on, groups=groups, ignore_label=ignore_label)
        return evaluate_pairs(pairs, choose_sweep(pairs, settings, threads, share), settings)


def find_device(name: str | torch.device) -> torch.device:
    """Return a device once it has held a number.

    Raises:
        ValueError: an unknown name, or a device that this machine has not.
    """
    try:
        found = torch.device(name)  # refuses an unknown name, the next line a device that is not there
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = f"{error}".split("\n")[0][:200]
        raise ValueError(
            f"device must be one of this machine, cpu or cuda:0, got {str(name)!r:.40}: {reason}"
        ) from None
    return found


def choose_sweep(pairs: Pairs, settings: Settings, threads: int, share: bool = False) -> Sweep:
    """Choose compiled loops on the CPU, torch operations on other devices and over processes: the same counts.

    Few images on the CPU are counted in torch operations, too, tile by tile the same products: the same numbers.
    """
    memory = settings.memory_bytes // 4 * 3
    on_cpu, images = pairs.rows.device.type == "cpu", max(len(pairs.row_class), len(pairs.col_class))
    compiled_grid = on_cpu and settings.memory_bytes >= FEW_IMAGES_MEMORY
    if share or not on_cpu or (images <= FEW_IMAGES and compiled_grid):
        return TorchSweep(pairs, memory, share, compiled_grid)
    from dmlcore.metrics.pairwise.numba_sweep import NumbaSweep  # here: numba is not needed for few images

    largest = settings.distance_range[1] if settings.distance_range else None
    return NumbaSweep(pairs, memory, max(settings.rates), largest, threads)


def evaluate_pairs(pairs: Pairs, sweep: Sweep, settings: Settings) -> Evaluation:
    """Evaluate once the pairs and their sweep are chosen, in three passes: keys and ranks; rates; thresholds."""
    budget = settings.memory_bytes // 8
    ranks = ranks_of_all(pairs, sweep, settings.ks, budget)
    positives = sweep.positive_keys(LOW_BITS, 0, HIGH_BINS)
    negatives = sweep.count_keys(ranks, positives)
    retrieval = retrieval_metrics(pairs, sweep, ranks, settings.ks, budget)
    points = operating_points(pairs, sweep, positives, negatives, settings.rates)
    check_collapse(points, pairs.total_negatives)
    grid = build_grid(points, settings)
    classes = score_classes(pairs, sweep, grid, settings)
    ends = {"distance_min": float(grid.thresholds[0]), "distance_max": float(grid.thresholds[-1])}
    metrics = retrieval | classes.metrics | ends | {"equal_error_rate": points.equal_error_rate}
    metrics |= left_out(pairs)
    return Evaluation(metrics, grid.thresholds, classes.utility, classes.labels, classes.frr, classes.far)


def left_out(pairs: Pairs) -> dict[str, float]:
    """Count what groups and an ignored label leave out; nothing where they were not asked for."""
    found: dict[str, float] = {}
    if pairs.group_count is not None:
        others = pairs.own_end - pairs.own_start - int(pairs.symmetric)
        alone = (others > 0) & (pairs.positives_of_row == 0)
        found |= {"num_groups": pairs.group_count, "num_queries_positive_in_own_group_only": int(alone.sum())}
    return found if pairs.ignored_count is None else found | {"num_images_ignored": pairs.ignored_count}
