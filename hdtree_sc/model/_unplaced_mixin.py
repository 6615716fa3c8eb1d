"""Cells that are unlike anything in training: the calibration of the score, and the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scvi import REGISTRY_KEYS
from sklearn.cluster import KMeans

from hdtree_sc._errors import NO_CALIBRATION
from hdtree_sc.model._training_basics import principal_axes
from hdtree_sc.nn._unplaced import LANDMARKS, NEAREST, PROFILES, UnplacedScore, nearest, with_peers

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.nn._scaler import ExpressionScaler

ALPHA = 0.05
"""Share of false calls."""
N_FOLDS = 5
SMALLEST = 40
"""Fewer training cells can not tell one in twenty."""
MAX_VALUES = 60_000_000
"""Largest number of values (cells x features) that the score is fitted on."""
OWN_COMPONENTS = 5_000
"""Up to this many training cells, each pulls on the principal components enough to look more at home than it is."""
CELLS_PER_PROFILE = 60
PSEUDOCOUNTS = 200.0
"""Weight of the mean of all cells in a profile, in counts: a gene that a group never showed is not impossible there."""


class UnplacedMixin:
    """Says which cells are unlike anything the model was trained on."""

    def _fit_unplaced(self) -> None:
        """Learn the score and its null from a sample of the training cells."""
        module, trained = self.module, self.train_indices_  # type: ignore[attr-defined]
        n = min(len(trained), LANDMARKS, MAX_VALUES // module.scaler.mean.shape[0])
        if n < SMALLEST:
            module.unplaced.sizes.zero_()
            return
        rows = np.sort(np.random.default_rng(0).permutation(trained)[:n])
        batches = self._batches(self.adata, rows, None, None)  # type: ignore[attr-defined]
        parts = [(t[REGISTRY_KEYS.X_KEY].cpu(), module._library(t).cpu()) for t in batches]
        x, library = (torch.cat(part) for part in zip(*parts, strict=True))
        fit_unplaced(module.unplaced, module.scaler, x, library, few=len(trained) <= OWN_COMPONENTS)

    def _own_unplaced(self, tensors: dict[str, torch.Tensor], scaled: torch.Tensor, pcs: torch.Tensor) -> torch.Tensor:
        """Score (n,) of each cell of a minibatch by itself; zero without calibration."""
        score = self.module.unplaced  # type: ignore[attr-defined]
        if not score.fitted:
            return torch.zeros_like(pcs[:, 0])
        return score.quantile(score.combine(*score(tensors[REGISTRY_KEYS.X_KEY], scaled, pcs)))

    def _unplaced_p(self, own: NDArray[np.float32], pcs: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """p-values (n,) of all cells of a query; None without calibration."""
        score = self.module.unplaced  # type: ignore[attr-defined]
        if not score.fitted:
            return None
        device = score.landmarks.device
        return score.p_values(torch.from_numpy(own).to(device), torch.from_numpy(pcs).to(device)).cpu().numpy()

    @torch.inference_mode()
    def get_unplaced(self, adata: AnnData | None = None, alpha: float = ALPHA) -> pd.DataFrame:
        """Which cells are unlike anything the model was trained on.

        Each cell is compared with training cells in the principal components of expression and with their mean
        profiles. In queries of 50 cells or more it is heard together with its five nearest cells in the query, so that
        the answer for a cell depends a little on which others are asked about.

        Parameters
        ----------
        adata
            Cells with the model's genes; those of the model by default. Cells the model was trained on know themselves
            and are hardly ever called.
        alpha
            Share of false calls among new cells of the types in training.

        Returns
        -------
        DataFrame (n_cells, 2): ``unplaced`` (bool) and ``p_value`` (share of training cells that were as unlike the
        others, each scored without having been looked at).

        Raises
        ------
        RuntimeError
            Before training, and if the model has no calibration: it was saved by a version without, or trained on
            fewer than 40 cells.
        """
        if not 0 < alpha < 1:
            msg = f"alpha: {alpha} is outside 0 to 1, it is the share of false calls."
            raise ValueError(msg)
        self._require_trained("get_unplaced")  # type: ignore[attr-defined]
        if not self.module.unplaced.fitted:  # type: ignore[attr-defined]
            msg = f"get_unplaced: {NO_CALIBRATION}"
            raise RuntimeError(msg)
        p_value = self.place(adata).unplaced_p  # type: ignore[attr-defined]
        cells = self.adata if adata is None else adata  # type: ignore[attr-defined]
        return pd.DataFrame({"unplaced": p_value <= alpha, "p_value": p_value}, index=cells.obs_names)


@torch.no_grad()
def fit_unplaced(
    score: UnplacedScore, scaler: ExpressionScaler, x: torch.Tensor, library: torch.Tensor, *, few: bool
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
    few
        Whether the principal components are learned anew in each round.
    """
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
