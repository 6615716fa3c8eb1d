"""From a latent and covariates to the parameters of the expression likelihood."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from hdtree_sc.nn._mlp import MLP

Likelihood = Literal["nb", "zinb", "normal", "bernoulli"]
LIKELIHOODS: tuple[str, ...] = get_args(Likelihood)


class Decoder(nn.Module):
    """Parameters of p(x | z, covariates) for each feature.

    Parameters
    ----------
    n_latent
        Width of the latent.
    n_features
        Number of features (genes).
    n_covariates
        Width of the covariate vector joined to the latent.
    likelihood
        ``"nb"`` or ``"zinb"`` for counts, ``"normal"`` for continuous values, ``"bernoulli"`` for [0, 1].
    n_hidden
        Width of the hidden layers.
    n_layers
        Number of hidden layers.
    """

    def __init__(
        self,
        n_latent: int,
        n_features: int,
        *,
        n_covariates: int = 0,
        likelihood: Likelihood = "nb",
        n_hidden: int = 256,
        n_layers: int = 1,
    ) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.net = MLP(n_latent + n_covariates, n_hidden, n_hidden=n_hidden, n_layers=max(n_layers - 1, 0), dropout=0.0)
        self.activation = nn.Sequential(nn.LayerNorm(n_hidden), nn.SiLU())
        self.location: nn.Module = nn.Linear(n_hidden, n_features)
        # One dispersion (counts) or scale (normal) per feature, as a log.
        if likelihood != "bernoulli":
            self.log_dispersion = nn.Parameter(torch.zeros(n_features))
        if likelihood == "zinb":
            self.dropout_logits = nn.Linear(n_hidden, n_features)

    def forward(
        self,
        z: torch.Tensor,
        covariates: torch.Tensor,
        library: torch.Tensor,
        offset: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Likelihood parameters.

        Parameters
        ----------
        z
            Latents, (..., n_latent).
        covariates
            Covariates, (..., n_covariates).
        library
            Library sizes, (..., 1); used by the count likelihoods.
        offset
            What is added to the location of each feature before any link, (..., n_features).

        Returns
        -------
        Counts: ``scale`` (shares that sum to one), ``mu``, ``theta``, and ``zi_logits`` for ZINB. Normal: ``mu`` and
        ``scale`` (standard deviation). Bernoulli: ``logits``. All (..., n_features).
        """
        return self.parameters_of(self.hidden(z, covariates), library, offset)

    def hidden(self, z: torch.Tensor, covariates: torch.Tensor) -> torch.Tensor:
        """Hidden layer (..., n_hidden) from which all parameters are read."""
        return self.activation(self.net(torch.cat([z, covariates], dim=-1)))

    def parameters_of(
        self, h: torch.Tensor, library: torch.Tensor, offset: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Likelihood parameters of a hidden layer, see :meth:`forward`."""
        location = self.location(h).float()
        if offset is not None:
            location = location + offset
        if self.likelihood == "bernoulli":
            return {"logits": location}
        spread = self.log_dispersion.clamp(-7.0, 10.0).exp()
        if self.likelihood == "normal":
            return {"mu": location, "scale": spread.expand_as(location)}
        shares = torch.softmax(location, dim=-1)
        out = {"scale": shares, "mu": library * shares, "theta": spread.expand_as(location)}
        if self.likelihood == "zinb":
            out["zi_logits"] = self.dropout_logits(h).float()
        return out
