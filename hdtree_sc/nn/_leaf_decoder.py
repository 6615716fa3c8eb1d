"""One decoder for all leaves of a tree: a shared trunk, and little that is a leaf's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from hdtree_sc.nn._decoder import Decoder

if TYPE_CHECKING:
    from hdtree_sc.nn._decoder import Likelihood

MIN_SHARE = 0.01
"""In training, leaves that a cell reaches with less probability are not decoded for it."""
MIN_SHARE_IN_BOUNDS = 1e-4
"""The same where bounds are given."""


class LeafDecoder(Decoder):
    r"""Parameters of p(x | z, leaf, covariates) for each feature.

    .. math:: h = g_l \odot \mathrm{trunk}(z, c) + M_l z + a_l, \qquad \mathrm{location} = W h + b,

    so that leaves share what genes have in common, and :math:`W M_l` are a leaf's loadings: what a step along each of
    its latents does to each gene.

    Parameters
    ----------
    n_latent, n_features, n_covariates, likelihood, n_hidden, n_layers
        See :class:`Decoder`.
    n_slots
        Number of leaves that are distinguished.
    head
        From the hidden layer (..., n_hidden) to the features, in place of a linear map.

    References
    ----------
    Linear leaf decoders as in scTree, arXiv 2406.19300, here beside a shared trunk and with an intercept for each gene.
    """

    def __init__(
        self,
        n_latent: int,
        n_features: int,
        n_slots: int,
        *,
        n_covariates: int = 0,
        likelihood: Likelihood = "nb",
        n_hidden: int = 256,
        n_layers: int = 1,
        head: nn.Module | None = None,
    ) -> None:
        super().__init__(
            n_latent,
            n_features,
            n_covariates=n_covariates,
            likelihood=likelihood,
            n_hidden=n_hidden,
            n_layers=n_layers,
        )
        if head is not None:
            self.location = head
        self.gain = nn.Parameter(torch.zeros(n_slots, n_hidden))
        self.shift = nn.Parameter(torch.zeros(n_slots, n_hidden))
        self.mix = nn.Parameter(torch.empty(n_slots, n_latent, n_hidden).normal_(std=0.1 / n_latent**0.5))

    @torch.no_grad()
    def begin_as(self, new: int, slot: int) -> None:
        """Let a leaf begin as another is."""
        for own in (self.gain, self.shift, self.mix):
            own[new] = own[slot]

    def forward(  # type: ignore[override]
        self,
        z: torch.Tensor,
        slot: torch.Tensor,
        covariates: torch.Tensor,
        library: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Likelihood parameters of latents (n, n_latent) at leaves (n,), see :meth:`Decoder.forward`."""
        h = self.hidden(z, covariates) * (1.0 + self.gain[slot])
        h = h + torch.einsum("nz,nzh->nh", z, self.mix[slot]) + self.shift[slot]
        return self.parameters_of(h, library)

    def loadings(self, slot: torch.Tensor) -> torch.Tensor:
        """What a step along each latent adds to each feature's location at some leaves, (m, n_features, n_latent).

        Raises
        ------
        TypeError
            If features come out of a head that is not linear.
        """
        if not isinstance(self.location, nn.Linear):
            msg = "leaf loadings need a linear last layer, and that of images is a convolution."
            raise TypeError(msg)
        return torch.einsum("gh,mzh->mgz", self.location.weight, self.mix[slot])
