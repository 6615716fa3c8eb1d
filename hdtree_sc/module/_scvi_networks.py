"""Encoder and decoder of a trained scVI model, as the modules of this package call theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from scvi.module import VAE
from scvi.module._constants import MODULE_KEYS
from torch import nn

if TYPE_CHECKING:
    from hdtree_sc.module._covariates import CovariateVector


class ScviNetworks(nn.Module):
    """A trained scVI module between a covariate vector and likelihood parameters.

    Parameters
    ----------
    covariates
        How covariates lie in their vector.
    **kwargs
        Arguments of :class:`scvi.module.VAE`.
    """

    def __init__(self, covariates: CovariateVector, **kwargs: Any) -> None:
        super().__init__()
        self.vae = VAE(**kwargs)
        # in a list: it belongs to the module around this one
        self._layout = [covariates]

    def _covariates(self, vector: torch.Tensor) -> dict[str, torch.Tensor | None]:
        """The arguments that scVI has in place of the vector (n, width)."""
        layout = self._layout[0]
        batch = vector.new_zeros(len(vector), 1, dtype=torch.long)
        start = 0
        if layout.n_batch > 1:
            batch, start = vector[:, : layout.n_batch].argmax(1, keepdim=True), layout.n_batch
        categories = []
        for n in layout.n_cats_per_cov:
            categories.append(vector[:, start : start + n].argmax(1, keepdim=True))
            start += n
        return {
            "batch_index": batch,
            "cat_covs": torch.cat(categories, 1) if categories else None,
            "cont_covs": vector[:, start:] if layout.n_continuous else None,
        }

    def encode(self, x: torch.Tensor, covariates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance of the posterior, both (n, n_latent), of counts (n, n_genes)."""
        devices = [x.device] if x.is_cuda else []
        # scVI draws a sample on the way, which nobody asked for
        with torch.random.fork_rng(devices=devices):
            posterior = self.vae.inference(x, **self._covariates(covariates))[MODULE_KEYS.QZ_KEY]
        return posterior.loc, 2.0 * posterior.scale.log()

    def decode(
        self, z: torch.Tensor, covariates: torch.Tensor, library: torch.Tensor, offset: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Parameters of the likelihood, see :class:`hdtree_sc.nn.Decoder`."""
        shape = z.shape[:-1]
        z, covariates, library = (part.reshape(-1, part.shape[-1]) for part in (z, covariates, library))
        px = self.vae.generative(z, library.log(), **self._covariates(covariates))[MODULE_KEYS.PX_KEY]
        out = {"scale": px.scale, "mu": px.mu, "theta": px.theta.expand_as(px.mu)}
        if offset is not None:
            out["scale"] = (px.scale.clamp_min(1e-30).log() + offset.reshape(-1, offset.shape[-1])).softmax(-1)
            out["mu"] = library * out["scale"]
        if self.vae.gene_likelihood == "zinb":
            out["zi_logits"] = px.zi_logits
        return {name: part.reshape(*shape, -1) for name, part in out.items()}
