"""Random effects: pool effects that may truly differ, and measure how far they do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats
from statsmodels.stats.meta_analysis import combine_effects


class Pooled(NamedTuple):
    """The pooled effect of k comparisons, and how far they disagree beyond their own noise."""

    mean: float
    low: float
    high: float
    standard_error: float
    weights: tuple[float, ...]
    """[k], sum 1."""
    q: float
    """Cochran's Q, chi-squared with k - 1 degrees of freedom where all effects are one."""
    q_p_value: float
    i_squared: float
    """The share of Q beyond chance, max(0, (Q - k + 1) / Q)."""
    tau_squared: float
    """The variance of the true effects."""


def random_effects(effects: Sequence[float], variances: Sequence[float], confidence: float) -> Pooled:
    """Pool effects that may truly differ, with Paule and Mandel's tau^2 and Hartung and Knapp's interval.

    mean = sum w y / sum w with w = 1 / (v + tau^2), tau^2 such that sum w (y - mean)^2 = k - 1, or 0. Interval: mean +-
    t sqrt(h / sum w) with k - 1 degrees of freedom, h = max(1, sum w (y - mean)^2 / (k - 1)): never narrower than
    that of the normal theory.

    Args:
        effects: y, [k >= 2].
        variances: v, [k], above 0.
        confidence: of the interval.

    Reference: Paule & Mandel, Consensus values and weighting factors, 1982; Knapp & Hartung, Improved tests for a
    random effects meta-regression with a single covariate, 2003; Cochran 1954; Higgins & Thompson 2002.
    """
    # Scaled to variances of about 1: statsmodels stops at an absolute tolerance, and OPIS differs by 0.001
    scale = math.sqrt(float(np.mean(variances)))
    y, v = np.asarray(effects) / scale, np.asarray(variances) / scale**2
    found = combine_effects(y, v, method_re="iterated")
    error = float(found.sd_eff_w_re) * math.sqrt(max(1.0, float(found.scale_hksj_re))) * scale
    half = error * float(special.stdtrit(len(y) - 1, (1.0 + confidence) / 2.0))
    mean, q = float(found.mean_effect_re) * scale, float(found.q)
    return Pooled(
        mean,
        mean - half,
        mean + half,
        error,
        tuple(float(weight) for weight in found.weights_rel_re),
        q,
        float(stats.chi2.sf(q, len(y) - 1)),
        max(0.0, (q - (len(y) - 1)) / q) if q > 0 else 0.0,
        float(found.tau2) * scale**2,
    )
