"""From raw values to what the encoder reads, with statistics that travel with the model."""

from __future__ import annotations

import torch
from torch import nn

TARGET_SUM = 1e4
"""Counts per cell after size normalisation, scanpy's usual value."""
CLIP = 10.0
"""Largest absolute standardised value, as in :func:`scanpy.pp.scale`."""


class ExpressionScaler(nn.Module):
    """Size-normalise and log counts, then standardise each feature; principal components of the result.

    Parameters
    ----------
    n_features
        Number of features.
    n_components
        Number of principal components kept.
    is_count
        Whether values are counts (size-normalised and logged first).
    common_unit
        Whether all features share one unit that means something (pixels, frequencies): they are divided by one number
        then, as a feature that is hardly ever on would else weigh as much as any other.
    """

    mean: torch.Tensor
    std: torch.Tensor
    components: torch.Tensor
    scale: torch.Tensor
    fitted: torch.Tensor

    def __init__(self, n_features: int, n_components: int, *, is_count: bool, common_unit: bool = False) -> None:
        super().__init__()
        self.is_count = is_count
        self.common_unit = common_unit
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("std", torch.ones(n_features))
        self.register_buffer("components", torch.zeros(n_features, n_components))
        # root mean square of the components over the training cells
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def transform(self, x: torch.Tensor, library: torch.Tensor) -> torch.Tensor:
        """Log-normalise counts (n, n_features) by their library sizes (n, 1); other values stay as they are."""
        return torch.log1p(x * (TARGET_SUM / library.clamp_min(1e-6))) if self.is_count else x

    def forward(self, x: torch.Tensor, library: torch.Tensor) -> torch.Tensor:
        """Standardised values (n, n_features), clipped to plus or minus 10."""
        return ((self.transform(x, library) - self.mean) / self.std).clamp(-CLIP, CLIP)

    def principal_components(self, x: torch.Tensor, library: torch.Tensor) -> torch.Tensor:
        """Scores (n, n_components) of the standardised values."""
        return self.forward(x, library) @ self.components

    @torch.no_grad()
    def fit_moments(self, x: torch.Tensor, library: torch.Tensor) -> None:
        """Learn mean and standard deviation of each feature from training cells."""
        values = self.transform(x, library)
        self.mean.copy_(values.mean(0))
        std = values.std(0, correction=0)
        if self.common_unit:
            std = std.square().mean().sqrt().expand_as(std)
        # a feature that hardly varies must not be blown up
        self.std.copy_(std + 1e-3)
        self.fitted.fill_(1)

    @torch.no_grad()
    def set_components(self, values: torch.Tensor, axes: torch.Tensor) -> None:
        """Keep principal axes, of which there may be fewer than columns (the rest stays zero).

        Parameters
        ----------
        values
            Standardised values of training cells, (n, n_features).
        axes
            Principal axes, (n_axes, n_features).
        """
        self.components.zero_()
        self.components[:, : axes.shape[0]] = axes.T
        self.scale.copy_((values @ axes.T).square().mean().sqrt().clamp_min(1e-6))
