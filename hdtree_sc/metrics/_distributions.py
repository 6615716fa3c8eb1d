"""How far two sets of cells are from one another as distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hdtree_sc.metrics import _check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


def frechet_distance(X: ArrayLike, Y: ArrayLike) -> float:
    """Squared Frechet distance between the normal distributions with the means and covariances of two samples.

    ``|mean_X - mean_Y|^2 + trace(C_X + C_Y - 2 (C_X C_Y)^(1/2))``: the number known as FID, in any space. It grows as
    samples shrink: compare at equal sizes, against the distance of two samples of real cells.

    Parameters
    ----------
    X, Y
        ``(n, d)`` and ``(m, d)``: coordinates of cells, with ``n, m > 1``.

    Returns
    -------
    Distance, 0 or more, in squared units of the coordinates.

    Raises
    ------
    ValueError
        Fewer than two cells, coordinates that are not finite, or different dimensions.

    References
    ----------
    Dowson and Landau, J. Multivar. Anal. 12, 450 (1982); FID: Heusel et al., arXiv 1706.08500 (2017).

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [2.0]])
    >>> round(ht.metrics.frechet_distance(X, X + 3), 6)
    9.0
    """
    x, y = _two(X, Y)
    cov_x, cov_y = (np.atleast_2d(np.cov(points, rowvar=False)) for points in (x, y))
    values, vectors = np.linalg.eigh(cov_x)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    # C_X C_Y has the eigenvalues of this symmetric matrix, for which they are real and stable
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_y @ root).clip(min=0)).sum()
    gap = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    return float(max(gap + np.trace(cov_x) + np.trace(cov_y) - 2 * cross, 0.0))


def mmd2(X: ArrayLike, Y: ArrayLike, scales: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0)) -> float:
    """Squared maximum mean discrepancy of two samples, unbiased, under a mean of Gaussian kernels.

    The kernels are ``exp(-d^2 / (scale * s^2))`` with ``s^2`` the median squared distance between all cells of both
    samples (Gretton et al. 2012). Around 0, below it too, if the distributions are equal.

    Parameters
    ----------
    X, Y
        ``(n, d)`` and ``(m, d)``: coordinates of cells, with ``n, m > 1``. Memory grows with ``(n + m)^2``.
    scales
        Widths of the kernels, in units of the median squared distance.

    Returns
    -------
    Discrepancy.

    Raises
    ------
    ValueError
        Fewer than two cells, coordinates that are not finite, different dimensions, or scales that are not positive.

    References
    ----------
    Gretton et al., A kernel two-sample test, J. Mach. Learn. Res. 13, 723 (2012).

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(size=(50, 3)), rng.normal(4, 1, size=(50, 3))
    >>> ht.metrics.mmd2(X, Y) > ht.metrics.mmd2(X[:25], X[25:])
    True
    """
    from scipy.spatial.distance import pdist, squareform

    x, y = _two(X, Y)
    if not len(scales) or min(scales) <= 0:
        msg = f"scales={tuple(scales)}: one or more positive widths wanted."
        raise ValueError(msg)
    distances = pdist(np.vstack([x, y]), "sqeuclidean")
    middle = np.median(distances)
    if middle == 0:  # most cells are duplicates: any positive width will do
        middle = distances.max() or 1.0
    kernel = sum(np.exp(-distances / (scale * middle)) for scale in scales) / len(scales)
    similar = squareform(kernel)  # 0 on the diagonal: the pairs of a cell with itself do not count
    n, m = len(x), len(y)
    within_x = similar[:n, :n].sum() / (n * (n - 1))
    within_y = similar[n:, n:].sum() / (m * (m - 1))
    return float(within_x + within_y - 2 * similar[:n, n:].mean())


def _two(X: ArrayLike, Y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = _check.points("X", X), _check.points("Y", Y)
    if x.shape[1] != y.shape[1]:
        msg = f"X has {x.shape[1]} coordinates and Y has {y.shape[1]}; give both in one space."
        raise ValueError(msg)
    if min(len(x), len(y)) < 2:
        msg = f"two or more cells wanted in each sample, got {len(x)} in X and {len(y)} in Y."
        raise ValueError(msg)
    return x, y
