"""How unlike the training cells a cell is, and how often a cell of the training's kinds is as unlike."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

LANDMARKS = 2048
"""Training cells that are kept; more cost time for every query cell and change little."""
PROFILES = 64
"""Largest number of mean profiles."""
NEAREST = 10
"""Landmarks that a cell's distance is taken to."""
PEERS = 5
"""Cells of the same query that a cell listens to."""
MIN_QUERY_CELLS = 50
"""A query of fewer cells has no neighbourhoods: each of its cells speaks for itself."""
CHUNK = 4096


class UnplacedScore(nn.Module):
    """Outlier score of cells with a conformal p-value, kept as buffers of fixed size so that it travels with a model.

    Two questions are asked of a cell. How far are its nearest landmarks in the principal components, compared with how
    far those are from theirs? And how much of its expression is not explained by the mean profile that explains it
    best, which the principal components of the training cells are blind to? Both depend on how deeply a cell was
    sequenced, which is taken out of them. A single cell of a few hundred counts says little, so that its nearest cells
    in the query are counted too: a new type comes in numbers.

    The p-value is the rank of a cell's score among those of training cells that were scored without having been
    looked at (cross-fitted by whoever fills the buffers).

    Parameters
    ----------
    n_features
        Number of features.
    n_components
        Number of principal components.
    is_count
        Whether values are counts.

    References
    ----------
    Conformal p-values: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World (2005).
    """

    landmarks: torch.Tensor
    spread: torch.Tensor
    profiles: torch.Tensor
    depth_range: torch.Tensor
    trend: torch.Tensor
    moments: torch.Tensor
    null: torch.Tensor
    sizes: torch.Tensor

    def __init__(self, n_features: int, n_components: int, *, is_count: bool) -> None:
        super().__init__()
        self.is_count = is_count
        # positions of training cells, and how far each is from its own nearest
        self.register_buffer("landmarks", torch.zeros(LANDMARKS, n_components))
        self.register_buffer("spread", torch.zeros(LANDMARKS))
        # log shares of counts, or mean standardised values
        self.register_buffer("profiles", torch.zeros(PROFILES, n_features))
        # log counts of a cell: smallest, largest, middle; and the polynomials of mean and scale of both scores in it
        self.register_buffer("depth_range", torch.zeros(3))
        self.register_buffer("trend", torch.zeros(2, 2, 3))
        self.register_buffer("moments", torch.zeros(2, 2))
        # sorted: scores, the cell's own (as normal quantiles) and with its peers
        self.register_buffer("null", torch.zeros(3, LANDMARKS))
        # landmarks, profiles, null scores, panel of peers
        self.register_buffer("sizes", torch.zeros(4, dtype=torch.long))

    @property
    def fitted(self) -> bool:
        """Whether there is something to compare cells with."""
        return bool(self.sizes[0] > 0)

    def forward(
        self, x: torch.Tensor, scaled: torch.Tensor, components: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Raw scores (n, 2), local distance and unexplained expression, and log counts (n,) of cells.

        Parameters
        ----------
        x
            Values as the model gets them, (n, n_features).
        scaled
            Standardised values, (n, n_features).
        components
            Principal components of these, (n, n_components).
        """
        n_landmarks, n_profiles = int(self.sizes[0]), int(self.sizes[1])
        distance, index = nearest(components, self.landmarks[:n_landmarks], NEAREST)
        local = self.spread[index].mean(1)
        far = torch.log(distance.mean(1).clamp_min(1e-6) / local.clamp_min(1e-6))
        strange, depth = unexplained(x if self.is_count else scaled, self.profiles[:n_profiles], is_count=self.is_count)
        return torch.stack([far, strange], dim=1), depth

    def combine(self, raw: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        """One score (n,) from raw scores (n, 2) and log counts (n,): depth taken out, in units of their upper spread.

        Upper, because both are skewed and calls are made at the upper end.
        """
        level = self.trend_of(depth)
        residual = (raw - level[..., 0]) / level[..., 1]
        return ((residual - self.moments[:, 0]) / self.moments[:, 1]).sum(1)

    def trend_of(self, depth: torch.Tensor) -> torch.Tensor:
        """Mean and scale (n, 2 scores, 2) of raw scores that log counts (n,) let expect."""
        low, high, middle = self.depth_range
        # deeper or shallower than any training cell: as the deepest or shallowest, polynomials run away
        at = depth.clamp(low, high) - middle
        powers = torch.stack([torch.ones_like(at), at, at.square()], dim=1)
        return torch.einsum("np,stp->nst", powers, self.trend)

    def own(self, x: torch.Tensor, scaled: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
        """Score (n,) of each cell by itself, as a normal quantile; zero without calibration, see :meth:`forward`."""
        if not self.fitted:
            return torch.zeros_like(components[:, 0])
        return self.quantile(self.combine(*self(x, scaled, components)))

    def quantile(self, score: torch.Tensor) -> torch.Tensor:
        """Normal quantile (n,) of the rank of combined scores (n,) in the null: one wild cell then does not shout."""
        n = int(self.sizes[2])
        rank = torch.searchsorted(self.null[0, :n].contiguous(), score.contiguous())
        return torch.special.ndtri((rank.double() + 0.5) / (n + 1)).float()

    def p_values(self, own: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
        """Conformal p-value (n,) of each cell of a query.

        Parameters
        ----------
        own
            Scores as normal quantiles, (n,).
        components
            Principal components, (n, n_components), in which a cell's peers are found.
        """
        n, panel = int(self.sizes[2]), int(self.sizes[3])
        together = len(own) >= MIN_QUERY_CELLS
        score = with_peers(own, components, panel) if together else own
        null = self.null[2 if together else 1, :n].contiguous()
        at_least = n - torch.searchsorted(null, score.contiguous())
        return ((at_least + 1).double() / (n + 1)).float()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # files from before this score load as they are, not fitted
        for name, buffer in self.named_buffers():
            state_dict.setdefault(prefix + name, torch.zeros_like(buffer))
        super()._load_from_state_dict(state_dict, prefix, *args)


def nearest(points: torch.Tensor, others: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances and indices (n, k) of the nearest of ``others`` (m, d) to each point (n, d), unordered."""
    squared = torch.addmm(others.square().sum(1), points, others.T, alpha=-2)
    lowest, index = squared.topk(min(k, len(others)), dim=1, largest=False, sorted=False)
    return (lowest + points.square().sum(1, keepdim=True)).clamp_min(0).sqrt(), index


def unexplained(values: torch.Tensor, profiles: torch.Tensor, *, is_count: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """What the best profile leaves unexplained of each cell, (n,), and log counts (n,).

    Of counts, multinomial deviance per count; of other values, the distance.

    Parameters
    ----------
    values
        Counts or standardised values, (n, n_features).
    profiles
        Log shares, or mean standardised values, (k, n_features).
    is_count
        Whether values are counts.
    """
    if is_count:
        total = values.sum(1).clamp_min(1e-6)
        saturated = torch.xlogy(values, values).sum(1) - total * total.log()
        return 2 * (saturated - (values @ profiles.T).amax(1)) / total, total.log()
    squared = torch.addmm(profiles.square().sum(1), values, profiles.T, alpha=-2).amin(1)
    return (squared + values.square().sum(1)).clamp_min(0).sqrt(), torch.zeros_like(squared)


def with_peers(own: torch.Tensor, components: torch.Tensor, panel: int) -> torch.Tensor:
    """Score (n,) of each cell plus the mean of its five nearest other cells of the query, where that is the smaller.

    So peers at most double what a cell says itself: known cells beside a new type are not called with it. Peers are
    sought among a random panel of the query, as large as the groups in which the null was made: nearer neighbours are
    more alike, so that in a denser crowd their mean would spread more than the null's.

    Parameters
    ----------
    own
        Scores, (n,).
    components
        Principal components, (n, d).
    panel
        Largest number of cells in the panel.
    """
    n = len(own)
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(0))[: min(panel, n)].to(own.device)
    out = torch.empty_like(own)
    for cells in torch.arange(n, device=own.device).split(CHUNK):
        distance, index = nearest(components[cells], components[rows], PEERS + 1)
        # without itself; a cell outside the panel goes without the farthest of the six
        itself = rows[index] == cells.unsqueeze(1)
        dropped = torch.where(itself, torch.inf, distance).argmax(1, keepdim=True)
        keep = torch.ones_like(distance).scatter_(1, dropped, 0.0)
        mean = (own[rows[index]] * keep).sum(1) / keep.sum(1).clamp_min(1)
        out[cells] = own[cells] + torch.minimum(mean, own[cells].clamp_min(0))
    return out
