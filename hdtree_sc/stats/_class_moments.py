"""Means and covariance of classes of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def class_moments(
    points: ArrayLike, classes: ArrayLike, n_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of classes and their pooled covariance within classes, shrunk after Ledoit and Wolf (2004).

    Parameters
    ----------
    points
        Data, (n, d).
    classes
        Class of each row, int (n,).
    n_classes
        Number of classes; those without a row get a mean of NaN.

    Returns
    -------
    Means (n_classes, d) and covariance (d, d).
    """
    from sklearn.covariance import ledoit_wolf  # slow to import

    x, c = np.asarray(points, dtype=np.float64), np.asarray(classes)
    size = np.bincount(c, minlength=n_classes)
    sums = np.zeros((n_classes, x.shape[1]))
    np.add.at(sums, c, x)
    means = np.divide(sums, size[:, None], out=np.full_like(sums, np.nan), where=size[:, None] > 0)
    covariance, _ = ledoit_wolf(x - means[c], assume_centered=True)
    return means, covariance
