"""Batch and further covariates as one vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scvi import REGISTRY_KEYS
from torch import nn
from torch.nn import functional as F

from hdtree_sc._keys import ENCODER_INPUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class CovariateVector(nn.Module):
    """One-hot batch and categorical covariates beside the continuous ones.

    A category that training did not know is the mean of those it knew.

    Parameters
    ----------
    n_batch
        Number of batches; a single batch takes no room.
    n_cats_per_cov
        Number of categories of each further categorical covariate.
    n_continuous
        Number of continuous covariates.
    """

    def __init__(self, n_batch: int, n_cats_per_cov: Sequence[int] = (), n_continuous: int = 0) -> None:
        super().__init__()
        self.n_batch = n_batch
        self.n_cats_per_cov = tuple(n_cats_per_cov)
        self.n_continuous = n_continuous

    @property
    def width(self) -> int:
        """Length of the vector."""
        return (self.n_batch if self.n_batch > 1 else 0) + sum(self.n_cats_per_cov) + self.n_continuous

    def forward(self, tensors: Mapping[str, torch.Tensor], prefix: str = "") -> torch.Tensor:
        """Covariates (n, width) of a minibatch.

        Parameters
        ----------
        tensors
            Minibatch with scvi-tools' names.
        prefix
            What stands before the names.
        """
        known = prefix + ENCODER_INPUT
        x = tensors[known] if known in tensors else tensors[prefix + REGISTRY_KEYS.X_KEY]
        parts = [x.new_zeros(x.shape[0], 0)]
        if self.n_batch > 1:
            parts.append(_one_hot(tensors[prefix + REGISTRY_KEYS.BATCH_KEY][:, 0], self.n_batch))
        if self.n_cats_per_cov:
            categories = tensors[prefix + REGISTRY_KEYS.CAT_COVS_KEY]
            parts += [_one_hot(categories[:, i], n) for i, n in enumerate(self.n_cats_per_cov)]
        if self.n_continuous:
            parts.append(tensors[prefix + REGISTRY_KEYS.CONT_COVS_KEY])
        return torch.cat(parts, dim=1).float()


def _one_hot(category: torch.Tensor, n: int) -> torch.Tensor:
    category = category.long()
    known = category < n
    hot = F.one_hot(category.clamp_max(n - 1), n).float()
    return torch.where(known.unsqueeze(1), hot, torch.full_like(hot, 1.0 / n))
