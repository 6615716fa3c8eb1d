"""From raw values to what the encoder reads, with statistics that travel with the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

TARGET_SUM = 1e4
"""Counts per cell after size normalisation, scanpy's usual value."""
LEVELLING = 0.5
"""How far features go towards equal weight where all their variance may be counting noise: 1 would standardise them."""
MAX_COUNT = 256
"""Mean count from which on the variance of a logged count is worked out by its slope."""
CLIP = 10.0
"""Largest absolute scaled value, as in :func:`scanpy.pp.scale`."""


class ExpressionScaler(nn.Module):
    """Size-normalise and log counts, then centre all features and bring them to a common unit; principal components.

    In one unit for all, a feature weighs as much as it varies: what is hardly ever on is mostly noise, and a cell's
    neighbours are then the right ones. Where cells have so few counts that a typical feature varies no more than
    counting makes it vary, though, variance says little of how much a feature matters: each feature is then divided by
    the square root of its standard deviation (Pareto scaling, van den Berg et al., BMC Genomics 2006). How far cells
    have come is measured better by standardised features, of which each weighs the same, so that the principal
    components of those are kept too.

    Parameters
    ----------
    n_features
        Number of features.
    n_components
        Number of principal components kept.
    is_count
        Whether values are counts (size-normalised and logged first).
    """

    mean: torch.Tensor
    std: torch.Tensor
    components: torch.Tensor
    scale: torch.Tensor
    feature_std: torch.Tensor
    standard_components: torch.Tensor
    fitted: torch.Tensor

    def __init__(self, n_features: int, n_components: int, *, is_count: bool) -> None:
        super().__init__()
        self.is_count = is_count
        self.register_buffer("mean", torch.zeros(n_features))
        # the same for all features unless their variance may all be noise of counting
        self.register_buffer("std", torch.ones(n_features))
        self.register_buffer("components", torch.zeros(n_features, n_components))
        # root mean square of the components over the training cells
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("feature_std", torch.ones(n_features))
        self.register_buffer("standard_components", torch.zeros(n_features, n_components))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def transform(self, x: torch.Tensor, library: torch.Tensor) -> torch.Tensor:
        """Log-normalise counts (n, n_features) by their library sizes (n, 1); other values stay as they are."""
        return torch.log1p(x * (TARGET_SUM / library.clamp_min(1e-6))) if self.is_count else x

    def forward(self, x: torch.Tensor, library: torch.Tensor) -> torch.Tensor:
        """Values in the common unit (n, n_features), clipped to plus or minus 10."""
        return ((self.transform(x, library) - self.mean) / self.std).clamp(-CLIP, CLIP)

    def standardised(self, x: torch.Tensor, library: torch.Tensor) -> torch.Tensor:
        """Values in units of each feature's standard deviation (n, n_features), clipped to plus or minus 10."""
        return self.restandardised(self.forward(x, library))

    def restandardised(self, scaled: torch.Tensor) -> torch.Tensor:
        """Values (n, n_features) in the common unit, in units of each feature's standard deviation; clipped."""
        return (scaled * (self.std / self.feature_std)).clamp(-CLIP, CLIP)

    @torch.no_grad()
    def fit_moments(self, x: torch.Tensor, library: torch.Tensor) -> None:
        """Learn mean and standard deviation of each feature, and the common unit, from training cells."""
        values = self.transform(x, library)
        self.mean.copy_(values.mean(0))
        std = values.std(0, correction=0)
        # a feature that hardly varies must not be blown up
        self.feature_std.copy_(std + 1e-3)
        common = std.square().mean().sqrt() + 1e-3
        levelling = LEVELLING if self.is_count and noise_share(x, library, std) >= 1 else 0.0
        self.std.copy_(common ** (1 - levelling) * self.feature_std**levelling)
        self.fitted.fill_(1)

    @torch.no_grad()
    def set_components(self, values: torch.Tensor, axes: torch.Tensor, standard_axes: torch.Tensor) -> None:
        """Keep principal axes, of which there may be fewer than columns (the rest stays zero).

        Parameters
        ----------
        values
            Values of training cells in the common unit, (n, n_features).
        axes
            Their principal axes, (n_axes, n_features).
        standard_axes
            Principal axes of the standardised values, (n_axes, n_features).
        """
        for held, new in ((self.components, axes), (self.standard_components, standard_axes)):
            held.zero_()
            held[:, : new.shape[0]] = new.T
        self.scale.copy_((values @ axes.T).square().mean().sqrt().clamp_min(1e-6))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # models up to version 0.1 knew one kind of components, of values as their std says
        for new, old in (("feature_std", "std"), ("standard_components", "components")):
            if prefix + old in state_dict:
                state_dict.setdefault(prefix + new, state_dict[prefix + old])
        super()._load_from_state_dict(state_dict, prefix, *args)


def noise_share(x: torch.Tensor, library: torch.Tensor, std: torch.Tensor) -> float:
    """How much of a typical feature's variance, after size normalisation and logging, is the noise of counting.

    The noise is that of a Poisson count in a cell of median library size in which the feature has its mean share.

    Parameters
    ----------
    x
        Counts of training cells, (n, n_features).
    library
        Their library sizes, (n, 1).
    std
        Standard deviation of each feature's logged values, (n_features,).
    """
    size = library.median().clamp_min(1e-6)
    expected = (x.sum(0) / library.sum().clamp_min(1e-6) * size).double()
    factor = float(TARGET_SUM / size)
    count = torch.arange(2 * MAX_COUNT, dtype=torch.float64, device=x.device)[:, None]
    chance = (torch.xlogy(count, expected) - expected - torch.lgamma(count + 1)).exp()
    logged = torch.log1p(count * factor)
    exact = (chance * logged.square()).sum(0) - (chance * logged).sum(0).square()
    by_slope = factor**2 * expected / (1 + factor * expected).square()
    noise = torch.where(expected < MAX_COUNT, exact, by_slope)
    varies = std > 0
    return float((noise / std.double().square())[varies].median()) if bool(varies.any()) else 0.0
