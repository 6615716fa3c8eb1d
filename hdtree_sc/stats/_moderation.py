"""Variances moderated: shrunk to what is usual among many, as limma does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import digamma, polygamma

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_DF = 1e6


def squeeze(
    variance: NDArray[np.float64], df: NDArray[np.float64], use: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variances shrunk to what is usual among them, and the degrees of freedom they then have (limma's ``squeezeVar``).

    Parameters
    ----------
    variance
        Variances, (m,).
    df
        Their residual degrees of freedom, (m,).
    use
        Those from which the usual variance is estimated, (m,).

    References
    ----------
    Smyth, Linear models and empirical Bayes methods, Stat. Appl. Genet. Mol. Biol. 3 (3) (2004), section 6.2.
    """
    from scipy.optimize import brentq  # slow to import

    floor = 1e-5 * max(float(np.median(variance[use])), 1e-12)
    log = np.log(np.maximum(variance[use], floor)) - digamma(df[use] / 2.0) + np.log(df[use] / 2.0)
    spread = float(log.var(ddof=1)) - float(polygamma(1, df[use] / 2.0).mean())
    if spread > 1e-6:
        half = brentq(lambda x: float(polygamma(1, x)) - spread, 1e-8, LARGEST_DF)
        usual = np.exp(log.mean() + digamma(half) - np.log(half))
    else:
        half, usual = LARGEST_DF / 2.0, np.exp(log.mean())
    moderated = (2.0 * half * usual + df * variance) / (2.0 * half + df)
    return moderated, np.minimum(2.0 * half + df, df[use].sum())


def moderated_t(
    values: NDArray[np.float64], design: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Effect of the last column of a design and its p-value, variances shrunk to what is usual among genes.

    Parameters
    ----------
    values
        Log expression, (n_samples, n_genes).
    design
        ``(n_samples, n_columns)``.

    References
    ----------
    Smyth, Linear models and empirical Bayes methods, Stat. Appl. Genet. Mol. Biol. 3 (3) (2004).
    """
    from scipy.stats import t as student  # slow to import

    inverse = np.linalg.pinv(design)
    beta = inverse @ values
    residual = values - design @ beta
    df = len(design) - np.linalg.matrix_rank(design)
    variance = np.square(residual).sum(0) / df
    degrees = np.full(len(variance), float(df))
    if len(variance) > 1 and (variance > 0).sum() > 1:
        variance, degrees = squeeze(variance, degrees, variance > 0)
    error = np.sqrt(variance * np.square(inverse[-1]).sum())
    t = np.divide(beta[-1], error, out=np.zeros_like(error), where=error > 0)
    return beta[-1], 2.0 * student.sf(np.abs(t), degrees)
