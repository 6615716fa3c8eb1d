"""Standardisation of values, learned from training cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from sklearn.utils.extmath import randomized_svd

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hdtree_sc.nn import ExpressionScaler

SCALE_CELLS = 5_000
"""The scale of the principal components is learned from so many cells."""


def fit_scaler(scaler: ExpressionScaler, x: torch.Tensor, library: torch.Tensor) -> None:
    """Learn how values are scaled, and their principal components.

    Parameters
    ----------
    scaler
        The scaler; changed in place.
    x
        Values of training cells, (n, n_features).
    library
        Library sizes, (n, 1).
    """
    scaler.fit_moments(x, library)
    values = scaler(x, library)
    n_components = min(scaler.components.shape[1], len(values) - 1)
    axes = [
        principal_axes(part.cpu().numpy(), n_components).to(values) for part in (values, scaler.restandardised(values))
    ]
    scaler.set_components(values[:SCALE_CELLS], *axes)


def principal_axes(values: NDArray[np.float32], n_components: int) -> torch.Tensor:
    """Principal axes (n_components, n_features) of values (n, n_features); the same at every call."""
    return torch.from_numpy(randomized_svd(values - values.mean(0), n_components, random_state=0)[2])
