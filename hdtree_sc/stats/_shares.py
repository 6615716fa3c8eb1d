"""Whether the share of something differs between the samples of two conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, xlogy

from hdtree_sc.stats._moderation import squeeze

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS = 100
HALVINGS = 20
"""Of a step that would raise the deviance: full steps run away where shares of one condition differ much."""
LARGEST_LOGIT = 15.0
"""A share of 0 has no finite logit; beyond this one the likelihood hardly changes."""
TOLERANCE = 1e-6
"""A fit stands when no logit moves by more."""
MIN_MEAN_CELLS = 2.0
"""Mean cells per sample, in the part and beside it, from which on a share says how much samples vary."""


def compare_shares(
    counts: NDArray[np.number], totals: NDArray[np.number], treated: NDArray[np.bool_], block: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Test whether shares differ between two conditions, with samples as replicates.

    A logistic regression on the condition (and the block, where samples are paired), tested by its drop in deviance
    over a dispersion, with an F distribution. Cells of one sample are alike, so each sample counts as
    ``n / (1 + (n - 1) rho)`` cells (Williams 1982), with one intra-sample correlation ``rho`` for all shares, by
    moments: large samples would weigh too much otherwise. What dispersion is left is moderated, that is shrunk to what
    is usual among the shares, as limma does with variances (Smyth 2004, section 6.2), since few samples say little
    about any one. It counts as 1 where it is less, since cells cannot vary less than by chance.

    Parameters
    ----------
    counts
        Cells in question of each sample, (n_samples, m).
    totals
        Cells of which these are a part, (n_samples, m).
    treated
        Whether a sample is of the condition compared, (n_samples,).
    block
        Block of each sample, such as a donor with a sample in both conditions, (n_samples,); all 0 for none.

    Returns
    -------
    Two-sided p-values, (m,); NaN where samples are too few, or a fit did not settle.

    References
    ----------
    Williams, Extra-binomial variation in logistic linear models, J. R. Stat. Soc. C 31, 144 (1982). Moderated
    dispersion in a quasi-likelihood F test: Lund et al., Stat. Appl. Genet. Mol. Biol. 11 (5) (2012).
    """
    k, n = np.asarray(counts, float), np.asarray(totals, float)
    null = (block[:, None] == np.unique(block)).astype(float)
    full = np.column_stack([null, treated.astype(float)])
    seen = n > 0
    rank = _rank(full, seen)
    df = seen.sum(0) - rank
    p = np.full(k.shape[1], np.nan)
    possible = np.flatnonzero((df > 0) & (rank > _rank(null, seen)))
    if len(possible):
        p[possible] = _test(k[:, possible], n[:, possible], full, null, df[possible].astype(float))
    return p


def _test(
    k: NDArray[np.float64],
    n: NDArray[np.float64],
    full: NDArray[np.float64],
    null: NDArray[np.float64],
    df: NDArray[np.float64],
) -> NDArray[np.float64]:
    from scipy.stats import f  # slow to import

    # shares of few cells do not say how much samples vary
    informative = np.minimum(k, n - k).mean(0) >= MIN_MEAN_CELLS
    if informative.any():
        share, leverage, _ = _fit(k, n, full)
        free = np.where(n > 0, 1.0 - leverage, 0.0)[:, informative]
        excess = _pearson(k, n, share)[:, informative].sum() - free.sum()
        rho = float(np.clip(excess / max((free * np.maximum(n[:, informative] - 1.0, 0.0)).sum(), 1e-12), 0.0, 1.0))
        size = 1.0 / (1.0 + np.maximum(n - 1.0, 0.0) * rho)
        k, n = k * size, n * size
    share, _, settled = _fit(k, n, full)
    without, _, settled_without = _fit(k, n, null)
    drop = np.maximum(_deviance(k, n, without) - _deviance(k, n, share), 0.0)
    dispersion = _pearson(k, n, share).sum(0) / df
    if informative.sum() > 1:
        moderated, df = squeeze(dispersion, df, informative)
    else:
        moderated = dispersion
    p = f.sf(drop / np.maximum(moderated, 1.0), 1, df)
    return np.where(settled & settled_without, p, np.nan)


def _rank(design: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rank of the design for each share, with the samples that have cells."""
    patterns, which = np.unique(seen.T, axis=0, return_inverse=True)
    ranks = np.linalg.matrix_rank(patterns[:, :, None] * design[None])
    return np.asarray(ranks)[which.ravel()]


def _fit(
    k: NDArray[np.float64], n: NDArray[np.float64], design: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Fitted shares and leverages (n_samples, m) of logistic regressions, all at once, by iterated least squares.

    Last, whether each settled, (m,).
    """
    eta = np.log((k + 0.5) / (n - k + 0.5))
    ridge = np.eye(design.shape[1])
    deviance, settled = np.full(k.shape[1], np.inf), np.zeros(k.shape[1], dtype=bool)
    for _ in range(STEPS):
        share = expit(eta)
        weight = np.maximum(n * share * (1.0 - share), 1e-10)
        target = eta + (k - n * share) / weight
        normal = np.einsum("sp,sv,sq->vpq", design, weight, design)
        # a column that no sample with cells has is kept from being singular
        normal += (1e-8 * np.trace(normal, axis1=1, axis2=2) + 1e-12)[:, None, None] * ridge
        inverse = np.linalg.inv(normal)
        beta = np.einsum("vpq,sq,sv->vp", inverse, design, weight * target)
        after = np.clip(design @ beta.T, -LARGEST_LOGIT, LARGEST_LOGIT)
        for _ in range(HALVINGS):
            worse = _deviance(k, n, expit(after)) > deviance + 1e-9
            if not worse.any():
                break
            after[:, worse] = (after[:, worse] + eta[:, worse]) / 2.0
        settled = np.abs(after - eta).max(0, where=n > 0, initial=0.0) < TOLERANCE
        eta, deviance = after, _deviance(k, n, expit(after))
        if settled.all():
            break
    return expit(eta), weight * np.einsum("sp,vpq,sq->sv", design, inverse, design), settled


def _pearson(k: NDArray[np.float64], n: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    expected = n * share * (1.0 - share)
    return np.divide(np.square(k - n * share), expected, out=np.zeros_like(k), where=expected > 1e-10)


def _deviance(k: NDArray[np.float64], n: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    fitted = xlogy(k, share) + xlogy(n - k, 1.0 - share)
    whole = np.maximum(n, 1e-300)
    return 2.0 * (xlogy(k, k / whole) + xlogy(n - k, (n - k) / whole) - fitted).sum(0)
