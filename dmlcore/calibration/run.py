"""From two labelled sets of embeddings and a target to a calibration."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dmlcore.calibration.rates import SplitRates, measure_rates
from dmlcore.calibration.threshold import Target, Threshold, find_threshold
from dmlcore.metrics.inputs import Array, Pairs, build_pairs


@dataclass(frozen=True)
class Calibration:
    """A threshold set on validation, and what it does there and on test."""

    target: Target
    threshold: Threshold
    validation: SplitRates
    test: SplitRates


def calibrate(
    validation: tuple[Array, Array],
    test: tuple[Array, Array],
    target: Target,
    *,
    is_query: tuple[Array | None, Array | None] = (None, None),
) -> Calibration:
    """Set one threshold on validation and apply it to test.

    Args:
        validation: embeddings [N, D] and labels [N]; normalised here.
        test: embeddings [N', D] and labels [N'] of other images, as a rule of other classes.
        target: the rate to hold on validation.
        is_query: of validation and of test, [N] bool: queries are compared with the gallery, the others; None: each
            image with every other of its split.

    Raises:
        ValueError: embeddings of two widths, NaN, collapse, fewer than 2 classes, no positive pair, a target finer than
            one pair.
    """
    held_out = _pairs("validation", validation, is_query[0])
    final = _pairs("test", test, is_query[1])
    if held_out.rows.shape[1] != final.rows.shape[1]:
        raise ValueError(
            "validation and test embeddings must have the same width, got "
            f"{held_out.rows.shape[1]} and {final.rows.shape[1]}; embed both with one model"
        )
    with torch.inference_mode():
        threshold = find_threshold(held_out, target)
        rates = [measure_rates(pairs, threshold.similarity) for pairs in (held_out, final)]
    return Calibration(target, threshold, rates[0], rates[1])


def _pairs(name: str, labelled: tuple[Array, Array], is_query: Array | None) -> Pairs:
    try:
        return build_pairs(*labelled, is_query, torch.device("cpu"))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
