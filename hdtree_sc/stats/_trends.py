"""Smooth trends of many genes at once over one ordering of cells: fit, confidence band and test."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


BLOCK = 2_000_000
"""Values of a block of genes that is dense at once."""
RIDGE = 0.5
"""Pull of a spline's coefficients to their mean, in counts: a stretch without a count is not infinitely low."""
STEP = 3.0
"""Largest change of a coefficient in one step of the fit; Newton's may shoot over where expression is local."""
MAX_STEPS = 100
MAX_RATE = 30.0
"""Largest logarithm of a rate over the mean of its gene, against overflow."""
TOLERANCE = 1e-3
"""A fit stands when no coefficient moves by more."""


class Values(Protocol):
    """Cells by genes, of which some genes at a time are made dense."""

    @property
    def library(self) -> NDArray[np.float64] | None:
        """Library size of each cell, (n,), where values are counts."""

    def dense(self, genes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Values of some genes, (n, n_genes)."""


@dataclass(frozen=True)
class Design:
    """What a trend is made of.

    Parameters
    ----------
    basis
        ``(n, k)``: cardinal natural cubic splines, whose sum is 1.
    batch
        ``(n,)``: number of each cell's batch.
    grid
        ``(m,)``: positions at which the trend is asked for.
    grid_basis
        ``(m, k)``: the splines there.
    """

    basis: NDArray[np.float64]
    batch: NDArray[np.int64]
    grid: NDArray[np.float64]
    grid_basis: NDArray[np.float64]


@dataclass(frozen=True)
class Test:
    """Test of a trend against none, for each gene.

    Parameters
    ----------
    statistic, pval
        F statistic and its p-value; 0 and 1 where there is nothing to test.
    r2
        Share of the variance within batches that the trend explains.
    """

    statistic: NDArray[np.float64]
    pval: NDArray[np.float64]
    r2: NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """Fitted trends, ``(n_genes, m)``: per ``target_sum`` counts for counts, else in units of the data.

    Parameters
    ----------
    fit
        The trend.
    low, high
        Pointwise confidence band.
    """

    fit: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def log1p(self) -> Curves:
        """The same as ``log(1 + x)``, for drawing."""
        return Curves(np.log1p(self.fit), np.log1p(self.low), np.log1p(self.high))


def design(position: NDArray[np.float64], batch: NDArray[np.int64], n_knots: int, n_points: int) -> Design:
    """Splines with knots at quantiles of the cells' positions.

    Parameters
    ----------
    position
        ``(n,)``, with at least two values.
    batch
        ``(n,)``: number of each cell's batch.
    n_knots
        Knots wanted, at least 2; fewer where quantiles coincide.
    n_points
        Points of the grid, evenly spaced.
    """
    from scipy.interpolate import CubicSpline  # slow to import

    knots = np.unique(np.quantile(position, np.linspace(0.0, 1.0, n_knots)))
    grid = np.linspace(position.min(), position.max(), n_points)
    if len(knots) == 2:
        share = [(at - knots[0]) / (knots[1] - knots[0]) for at in (position, grid)]
        basis, grid_basis = (np.column_stack([1.0 - s, s]) for s in share)
    else:
        spline = CubicSpline(knots, np.eye(len(knots)), bc_type="natural")
        basis, grid_basis = spline(position), spline(grid)
    return Design(basis, np.unique(batch, return_inverse=True)[1], grid, grid_basis)


def blocks(n_genes: int, n_cells: int) -> Iterator[slice]:
    """Parts of the genes that are small enough to be dense."""
    size = max(BLOCK // max(n_cells, 1), 1)
    for start in range(0, n_genes, size):
        yield slice(start, start + size)


# -- test --------------------------------------------------------------------------------------------------------


def trend_test(expression: Values, plan: Design, genes: NDArray[np.int64]) -> Test:
    """Test whether genes change along the ordering, given the batches.

    The score test in its F form: the model without a trend is fitted, its working residuals are regressed on the
    splines, with the weights of the model. For counts the model is negative binomial with the library size as offset,
    a rate for each batch and the gene's dispersion by moments; for others it is Gaussian, and the test is the F test
    of nested linear models.

    Parameters
    ----------
    expression
        The cells, in the order of the design.
    plan
        The design.
    genes
        Columns to test.

    References
    ----------
    Score test: Rao, Proc. Camb. Phil. Soc. 44, 50 (1948). Trends of counts: Van den Berge et al. (tradeSeq), Nat.
    Commun. 11, 1201 (2020).
    """
    parts = []
    n_batches = int(plan.batch.max()) + 1
    member = np.eye(n_batches)[plan.batch]
    # one spline is left out: the batches together hold the constant
    columns = np.concatenate([member, plan.basis[:, 1:] - plan.basis[:, 1:].mean(0)], 1)
    for part in blocks(len(genes), len(plan.batch)):
        values = expression.dense(genes[part])
        if expression.library is None:
            weight = np.ones_like(values)
            residual = values - (member.T @ values / member.sum(0)[:, None])[plan.batch]
        else:
            weight, residual = _working(values, expression.library, member, plan.batch)
        parts.append(_f_test(weight, residual, columns, n_batches))
    return Test(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _working(
    counts: NDArray[np.float64], library: NDArray[np.float64], member: NDArray[np.float64], batch: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights and working residuals ``(n, g)`` of the model with one rate per batch, which has a closed form."""
    total = member.T @ library
    rate = member.T @ counts / np.maximum(total, 1e-12)[:, None]
    mean = library[:, None] * rate[batch]
    weight = mean / (1.0 + _dispersion(counts, mean) * mean)
    residual = np.divide(counts - mean, mean, out=np.zeros_like(mean), where=mean > 0)
    return weight, residual


def _dispersion(counts: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the negative binomial, by moments: variance ``mean + dispersion * mean ** 2``."""
    above = (np.square(counts - mean) - mean).sum(0)
    return np.maximum(above / np.maximum(np.square(mean).sum(0), 1e-12), 0.0)


def _f_test(
    weight: NDArray[np.float64], residual: NDArray[np.float64], columns: NDArray[np.float64], n_batches: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    from scipy.stats import f

    gram = _gram(columns, weight)
    moment = (columns.T @ (weight * residual)).T
    total = (weight * np.square(residual)).sum(0)
    scale = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    moment *= inverse
    # a batch without a count, or one that the splines separate, takes columns away: the rank says how many are left
    value, vector = np.linalg.eigh(gram * inverse[:, :, None] * inverse[:, None])
    kept = value > 1e-7
    turned = np.einsum("gij,gi->gj", vector, moment)
    explained = np.where(kept, np.square(turned) / np.where(kept, value, 1.0), 0.0).sum(1)
    by_batch = np.square(moment[:, :n_batches]).sum(1)
    used_batches = (scale[:, :n_batches] > 0).sum(1)
    between = kept.sum(1) - used_batches
    within = (weight > 0).sum(0) - kept.sum(1)
    null = np.maximum(total - by_batch, 0.0)
    gain = np.clip(explained - by_batch, 0.0, null)
    rest = np.maximum(null - gain, 1e-12 * np.maximum(total, 1e-300))
    fine = (between > 0) & (within > 0) & (null > 1e-9 * np.maximum(total, 1e-300)) & (total > 0)
    # a gene that is constant has nothing but rounding
    statistic = np.where(fine, gain / np.maximum(between, 1) / (rest / np.maximum(within, 1)), 0.0)
    pval = np.where(fine, f.sf(statistic, np.maximum(between, 1), np.maximum(within, 1)), 1.0)
    r2 = np.divide(gain, null, out=np.zeros_like(gain), where=fine)
    return statistic, pval, r2


def _gram(columns: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """``columns.T @ diag(weight) @ columns`` for each gene, (g, p, p), as one product of matrices."""
    p = columns.shape[1]
    i, j = np.triu_indices(p)
    upper = weight.T @ (columns[:, i] * columns[:, j])
    out = np.empty((weight.shape[1], p, p))
    out[:, i, j] = upper
    out[:, j, i] = upper
    return out


# -- curves ------------------------------------------------------------------------------------------------------


def trend_curves(
    expression: Values, plan: Design, genes: NDArray[np.int64], *, target_sum: float = 1.0, level: float = 0.95
) -> Curves:
    """Trends of genes, at the average of the batches.

    Counts: negative binomial regression with a logarithmic link and the library size as offset, iteratively reweighted
    for all genes at once. Others: least squares.

    Parameters
    ----------
    expression
        The cells, in the order of the design.
    plan
        The design.
    genes
        Columns to fit.
    target_sum
        Counts of a cell for which rates are given.
    level
        Of the confidence band, pointwise; of counts symmetric on the logarithm.
    """
    from scipy.stats import norm

    k = plan.basis.shape[1]
    # contrasts against the first batch, centred: the trend is that of the average batch
    contrast = np.eye(int(plan.batch.max()) + 1)[plan.batch][:, 1:]
    columns = np.concatenate([plan.basis, contrast - contrast.mean(0)], 1)
    penalty = RIDGE * np.eye(columns.shape[1])
    penalty[:k, :k] -= RIDGE / k
    wide = float(norm.ppf(0.5 + level / 2))
    out: list[tuple[NDArray[np.float64], ...]] = []
    for part in blocks(len(genes), len(plan.batch)):
        values = expression.dense(genes[part])
        if expression.library is None:
            beta, covariance = _least_squares(values, columns, k)
        else:
            beta, covariance = _negative_binomial(values, expression.library, columns, penalty, k)
        fit = beta[:, :k] @ plan.grid_basis.T
        variance = np.einsum("gij,mi,mj->gm", covariance[:, :k, :k], plan.grid_basis, plan.grid_basis, optimize=True)
        half = wide * np.sqrt(np.maximum(variance, 0.0))
        ends: tuple[NDArray[np.float64], ...] = (fit, fit - half, fit + half)
        if expression.library is not None:
            ends = tuple(np.exp(np.clip(end, -700, 700)) * target_sum for end in ends)
        out.append(ends)
    return Curves(*(np.concatenate(each) for each in zip(*out, strict=True)))


def _least_squares(
    values: NDArray[np.float64], columns: NDArray[np.float64], k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    gram = columns.T @ columns
    # a hair of a ridge on the batches, which the splines may separate
    gram[k:, k:] += 1e-6 * len(values) * np.eye(columns.shape[1] - k)
    inverse = np.linalg.pinv(gram, hermitian=True)
    beta = inverse @ (columns.T @ values)
    spare = max(len(values) - columns.shape[1], 1)
    noise = np.square(values - columns @ beta).sum(0) / spare
    return beta.T, noise[:, None, None] * inverse


def _negative_binomial(
    counts: NDArray[np.float64],
    library: NDArray[np.float64],
    columns: NDArray[np.float64],
    penalty: NDArray[np.float64],
    k: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients (g, p) of the log rate and their covariance (g, p, p)."""
    n, g = counts.shape
    mean_rate = np.maximum(counts.sum(0) / max(library.sum(), 1e-12), 1e-12)
    # start: the rate at each knot by weighted least squares, not far below the gene's mean
    splines = columns[:, :k]
    gram = (splines * library[:, None]).T @ splines
    rate = np.linalg.solve(gram + 1e-6 * np.trace(gram) * np.eye(k), splines.T @ counts)
    beta = np.zeros((columns.shape[1], g))
    beta[:k] = np.log(np.maximum(rate, 0.1 * mean_rate))
    dispersion = np.zeros(g)
    inverse = np.zeros((g, *penalty.shape))
    for second in (False, True):
        active = np.arange(g)
        for _ in range(MAX_STEPS):
            mean = _means(library, columns, beta[:, active], mean_rate[active])
            weight = 1.0 + dispersion[active] * mean
            score = columns.T @ ((counts[:, active] - mean) / weight) - penalty @ beta[:, active]
            inverse[active] = np.linalg.inv(_gram(columns, mean / weight) + penalty + 1e-9 * np.eye(len(penalty)))
            step = np.einsum("gij,jg->ig", inverse[active], score)
            largest = np.abs(step).max(0)
            beta[:, active] += step * np.minimum(1.0, STEP / np.maximum(largest, 1e-12))
            active = active[largest > TOLERANCE]
            if len(active) == 0:
                break
        else:
            msg = (
                f"The trends of {len(active)} genes had not settled after {MAX_STEPS} steps; their curves are the last."
            )
            warnings.warn(msg, UserWarning, stacklevel=2)
        mean = _means(library, columns, beta, mean_rate)
        if not second:
            dispersion = _dispersion(counts, mean)
    spread = np.square(counts - mean) / np.maximum(mean * (1.0 + dispersion * mean), 1e-12)
    noise = spread.sum(0) / max(n - columns.shape[1], 1)
    return beta.T, noise[:, None, None] * inverse


def _means(
    library: NDArray[np.float64],
    columns: NDArray[np.float64],
    beta: NDArray[np.float64],
    mean_rate: NDArray[np.float64],
) -> NDArray[np.float64]:
    centre = np.log(mean_rate)
    return library[:, None] * np.exp(np.clip(columns @ beta - centre, -MAX_RATE, MAX_RATE) + centre)
