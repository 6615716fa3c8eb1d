"""Calibration of the score of cells that are unlike anything in training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.cluster import KMeans

from hdtree_sc.growth._scaler_fit import principal_axes
from hdtree_sc.nn import LANDMARKS, NEAREST, PROFILES, UnplacedScore, nearest, with_peers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hdtree_sc.nn import ExpressionScaler

N_FOLDS = 5
MIN_CELLS = 40
"""Fewer training cells cannot resolve one in twenty."""
MAX_VALUES = 60_000_000
"""Largest number of values (cells x features) that the score is fitted on."""
OWN_COMPONENTS = 5_000
"""Up to this many training cells, each pulls on the principal components enough to look more at home than it is."""
CELLS_PER_PROFILE = 60
PSEUDOCOUNTS = 200.0
"""Weight of the mean of all cells in a profile, in counts: a gene that a group never showed is not impossible there."""


def calibration_rows(train: NDArray[np.integer], n_features: int) -> NDArray[np.integer]:
    """A sample of the training cells to fit the score on, ascending; none where there are too few.

    Parameters
    ----------
    train
        Rows of the training cells.
    n_features
        Number of features.
    """
    n = min(len(train), LANDMARKS, MAX_VALUES // n_features)
    return np.sort(np.random.default_rng(0).permutation(train)[: n if n >= MIN_CELLS else 0])


@torch.no_grad()
def fit_unplaced(
    score: UnplacedScore, scaler: ExpressionScaler, x: torch.Tensor, library: torch.Tensor, *, n_train: int
) -> None:
    """Fill the buffers of a score.

    The null is cross-fitted: in five rounds a fifth of the cells is scored by landmarks, profiles and, where cells are
    few, principal components of the others, as if they were new. Validation cells would do too, but there are a tenth
    as many, and 1 in 20 of 30 cells is no number.

    Parameters
    ----------
    score
        The score, changed in place.
    scaler
        The model's scaler, fitted.
    x
        Values of training cells, (n, n_features), on the CPU.
    library
        Library sizes, (n, 1), on the CPU.
    n_train
        Number of training cells; of few, the principal components are learned in each round again.
    """
    few = n_train <= OWN_COMPONENTS
    device = scaler.mean.device
    scaled = scaler.standardised(x.to(device), library.to(device)).cpu()
    n, width = len(x), score.landmarks.shape[1]
    axes = scaler.standard_components[:, :width].cpu()
    fold = np.random.default_rng(0).permutation(n) % N_FOLDS
    raw, depth = torch.zeros(n, 2), torch.zeros(n)
    as_new = torch.zeros(n, width)
    blank = UnplacedScore(x.shape[1], width, is_count=score.is_count)
    for round_ in range(N_FOLDS):
        own, others = np.flatnonzero(fold == round_), np.flatnonzero(fold != round_)
        there = _components(scaled[others].numpy(), width) if few else axes
        as_new[own] = scaled[own] @ there
        _remember(blank, x[others], scaled[others], scaled[others] @ there)
        raw[own], depth[own] = blank(x[own], scaled[own], as_new[own])
    score.cpu()
    _remember(score, x, scaled, scaled @ axes)
    _calibrate(score, raw, depth)
    combined = score.combine(raw, depth)
    panel = n // N_FOLDS
    score.sizes[2], score.sizes[3] = n, panel
    score.null.zero_()
    score.null[0, :n] = combined.sort().values
    own_score = score.quantile(combined)
    together = torch.zeros(n)
    for round_ in range(N_FOLDS):
        rows = np.flatnonzero(fold == round_)
        together[rows] = with_peers(own_score[rows], as_new[rows], panel + 1)
    score.null[1, :n] = own_score.sort().values
    score.null[2, :n] = together.sort().values
    score.to(device)


def _components(values: NDArray[np.float32], width: int) -> torch.Tensor:
    """Principal axes (n_features, width); zeros where there are fewer cells than axes."""
    found = principal_axes(values, min(width, len(values) - 1))
    out = torch.zeros(values.shape[1], width)
    out[:, : len(found)] = found.T
    return out


def _remember(score: UnplacedScore, x: torch.Tensor, scaled: torch.Tensor, components: torch.Tensor) -> None:
    """Keep cells as landmarks, and the mean profiles of groups of them."""
    n = len(x)
    score.landmarks[:n] = components
    distance, index = nearest(components, components, NEAREST + 1)
    # its distance to itself is rounding error at best
    distance[index == torch.arange(n).unsqueeze(1)] = 0
    score.spread[:n] = distance.sum(1) / (distance.shape[1] - 1)
    n_groups = int(np.clip(n // CELLS_PER_PROFILE, 2, PROFILES))
    found = KMeans(n_groups, n_init=1, random_state=0).fit(components.numpy()).labels_
    # of cells that are alike, k-means leaves groups empty
    held, label = np.unique(found, return_inverse=True)
    n_groups = len(held)
    member = torch.nn.functional.one_hot(torch.from_numpy(label), n_groups).float()
    if score.is_count:
        counts = member.T @ x
        overall = x.sum(0) + 1e-3
        shares = counts + PSEUDOCOUNTS * overall / overall.sum()
        score.profiles[:n_groups] = torch.log(shares / shares.sum(1, keepdim=True))
    else:
        score.profiles[:n_groups] = (member.T @ scaled) / member.sum(0).unsqueeze(1).clamp_min(1)
    score.sizes[0], score.sizes[1] = n, n_groups


def _calibrate(score: UnplacedScore, raw: torch.Tensor, depth: torch.Tensor) -> None:
    """Learn how raw scores (n, 2) follow log counts (n,), and centre and upper spread of what is left."""
    low, high = np.quantile(depth.numpy(), [0.01, 0.99])
    score.depth_range.copy_(torch.tensor([low, high, depth.mean()]))
    score.trend.zero_()
    at = (depth.clamp(low, high) - depth.mean()).double().numpy()
    powers = np.stack([np.ones_like(at), at, at**2], axis=1)[:, : 3 if score.is_count else 1]
    for which, values in enumerate(raw.double().numpy().T):
        mean = np.linalg.lstsq(powers, values, rcond=None)[0]
        rest = np.abs(values - powers @ mean)
        scale = np.linalg.lstsq(powers, rest, rcond=None)[0]
        # a parabola of the scale can touch zero; then it does not depend on depth
        if (powers @ scale).min() < 0.2 * rest.mean():
            scale = np.array([max(rest.mean(), 1e-6), *([0.0] * (powers.shape[1] - 1))])
        score.trend[which, 0, : len(mean)] = torch.from_numpy(mean)
        score.trend[which, 1, : len(scale)] = torch.from_numpy(scale)
    level = score.trend_of(depth)
    residual = ((raw - level[..., 0]) / level[..., 1]).numpy()
    middle, upper = np.quantile(residual, [0.5, 0.84], axis=0)
    score.moments.copy_(torch.from_numpy(np.stack([middle, np.maximum(upper - middle, 1e-6)], axis=1)))
