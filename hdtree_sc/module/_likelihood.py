"""Likelihoods of expression, as scvi-tools has them with what this package needs besides."""

from __future__ import annotations

import torch
from scvi.distributions import NegativeBinomial
from torch.distributions import Bernoulli


class SparseNegativeBinomial(NegativeBinomial):
    """Negative binomial whose log probability calls the gamma function on the counts above zero only.

    At a count of zero all three log gammas cancel, and nine counts in ten are zero: a third of a training step was
    spent on them.
    """

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Log probability of counts (..., n_features) with as many dimensions as the mean."""
        mu, theta = self.mu + self._eps, self.theta.expand_as(self.mu) + self._eps
        log_prob = -theta * torch.log1p(mu / theta)
        at = value.nonzero(as_tuple=True)
        x, m, r = value[at], mu[at], theta[at]
        # where all cells share a feature's dispersion, as the decoder's do, its gamma function is taken once
        shared = self.theta.ndim > 1 and self.theta.stride()[:-1] == (0,) * (self.theta.ndim - 1)
        row = self.theta[(0,) * (self.theta.ndim - 1)] + self._eps
        gamma = torch.lgamma(row)[at[-1]] if shared else torch.lgamma(r)
        above = torch.lgamma(x + r) - gamma - torch.lgamma(x + 1) + x * (m / (m + r)).log()
        return log_prob.index_put(at, above, accumulate=True)


class NormalizedBernoulli(Bernoulli):
    """Bernoulli with the accessor that scvi-tools' count distributions have."""

    def get_normalized(self, key: str) -> torch.Tensor:
        """Expected values, whatever the key."""
        return self.probs
