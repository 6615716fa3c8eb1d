"""The autoencoder in whose latent branched diffusion runs, and where the classes lie in it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import LossOutput, auto_move_data
from torch import nn

from hdtree_sc.module._branched_diffusion import BranchedLatentDiffusion
from hdtree_sc.module._cell_module import CellModule
from hdtree_sc.module._scvi_networks import ScviNetworks
from hdtree_sc.nn import MLP, Decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.distributions import Distribution

    from hdtree_sc.nn import Likelihood

Encoder = Literal["variational", "fixed", "scvi", "none"]
"""``"variational"``: trained; ``"fixed"``, ``"scvi"``: taken over; ``"none"``: features are the latent."""
COLLAPSED = 0.01
"""Nats of Kullback-Leibler divergence below which a latent dimension carries no information and is left out."""
SPREAD = 1e-3
"""Standard deviation of decoded features in standard deviations, where features are the latent."""


class GaussianClasses(nn.Module):
    """Which class a latent is of: normal classes with one covariance (linear discriminant analysis).

    Parameters
    ----------
    n_classes
        Number of classes.
    n_latent
        Width of the latent.
    """

    means: torch.Tensor
    precision: torch.Tensor
    log_prior: torch.Tensor

    def __init__(self, n_classes: int, n_latent: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(n_classes, n_latent))
        self.register_buffer("precision", torch.eye(n_latent))
        self.register_buffer("log_prior", torch.zeros(n_classes))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Probabilities of the classes, (n, n_classes)."""
        turned = self.means @ self.precision
        logits = z @ turned.T - 0.5 * (turned * self.means).sum(1) + self.log_prior
        return logits.softmax(1)


class BranchedModule(CellModule):
    """Variational count autoencoder, or what stands in its place, and classes in its latent.

    Parameters
    ----------
    n_input
        Number of features.
    n_batch, n_cats_per_cov, n_continuous_cov
        See :class:`CellModule`.
    n_latent
        Width of the latent.
    n_hidden
        Width of the hidden layers.
    n_layers
        Number of hidden layers of the encoder.
    dropout_rate
        Dropout rate of the encoder.
    gene_likelihood
        ``"nb"``, ``"zinb"``, ``"normal"`` or ``"bernoulli"``.
    n_pcs, n_input_pcs
        See :class:`CellModule`.
    encoder
        What the encoder is.
    scvi_kwargs
        Arguments of :class:`scvi.module.VAE`, where encoder and decoder are those of scVI.
    """

    _diffusion_cls = BranchedLatentDiffusion
    kept: torch.Tensor
    offsets: torch.Tensor | None

    def __init__(
        self,
        n_input: int,
        *,
        n_batch: int = 1,
        n_cats_per_cov: Sequence[int] = (),
        n_continuous_cov: int = 0,
        n_latent: int = 24,
        n_hidden: int = 256,
        n_layers: int = 2,
        dropout_rate: float = 0.0,
        gene_likelihood: Likelihood = "nb",
        n_pcs: int = 30,
        n_input_pcs: int = 50,
        encoder: Encoder = "variational",
        scvi_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            n_input,
            n_batch=n_batch,
            n_cats_per_cov=n_cats_per_cov,
            n_continuous_cov=n_continuous_cov,
            n_latent=n_latent,
            gene_likelihood=gene_likelihood,
            n_pcs=n_pcs,
            n_input_pcs=n_input_pcs,
        )
        self.encoder_kind = encoder
        self.is_variational = encoder in ("variational", "scvi")
        n_covariates = self.covariates.width
        if encoder == "scvi":
            self.encoder = ScviNetworks(self.covariates, **(scvi_kwargs or {}))
        elif encoder != "none":
            n_out = 2 * n_latent if encoder == "variational" else n_latent
            self.encoder = MLP(
                self.n_input_pcs + n_covariates, n_out, n_hidden=n_hidden, n_layers=n_layers, dropout=dropout_rate
            )
            self.decoder = Decoder(
                n_latent, n_input, n_covariates=n_covariates, likelihood=gene_likelihood, n_hidden=n_hidden
            )
        self._add_heads()
        self.register_buffer("kept", torch.ones(n_latent))
        self.classes: GaussianClasses | None = None
        # of classes that were added: what their genes have that the decoder was not trained on, (n_nodes, n_input)
        self.register_buffer("offsets", None)

    def on_load(self, model: Any, **kwargs: Any) -> None:
        """Make room for classes and the second stage of a saved model."""
        super().on_load(model, **kwargs)
        held = getattr(model, "class_tree_", None)
        if held is not None:
            self.classes = GaussianClasses(sum(map(bool, held["labels"])), self.n_latent)
            if any(map(math.isfinite, held["opens"])):  # a class was added
                self.offsets = self.scaler.mean.new_zeros(len(held["labels"]), len(self.scaler.mean))

    def offset(self, node: torch.Tensor | None) -> torch.Tensor | None:
        """What the decoder adds for cells of some nodes, (n, n_input); None for nothing."""
        return None if node is None or self.offsets is None else self.offsets[node]

    def begin_choice(self) -> Callable[[dict[str, torch.Tensor]], tuple[torch.Tensor]]:
        """What gives the divergences of a minibatch for :meth:`keep_used`, in evaluation mode and of all dimensions."""
        self.eval()
        self.kept.fill_(1.0)

        def divergences(tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor]:
            with torch.inference_mode():
                return (self.inferred(tensors)["kl"],)

        return divergences

    def keep_used(self, kl: NDArray[np.floating]) -> None:
        """Leave out the latent dimensions that the encoder does not use: they would be noise to the diffusion.

        Parameters
        ----------
        kl
            Divergence of each cell in each dimension, (n, n_latent).
        """
        self.kept.copy_(torch.from_numpy(kl.mean(0) > COLLAPSED))

    def _get_inference_input(self, tensors: dict[str, torch.Tensor], **kwargs: Any) -> dict[str, Any]:
        if self.encoder_kind in ("none", "scvi"):
            library, x = self._library(tensors), tensors[REGISTRY_KEYS.X_KEY]
            x = self.scaler.standardised(x, library) if self.encoder_kind == "none" else x
            return {"x": x, "covariates": self.covariates(tensors), "library": library}
        x, covariates, library = self._encoder_input(tensors)
        return {"x": x, "covariates": covariates, "library": library}

    @auto_move_data
    def inference(
        self, x: torch.Tensor, covariates: torch.Tensor, library: torch.Tensor, n_samples: int = 1
    ) -> dict[str, torch.Tensor]:
        """Latents: drawn from the posterior in training and of several samples, its mean otherwise.

        ``scatter`` is the standard deviation of the posterior, ``kl`` its divergence from the prior, (n, n_latent).
        """
        if self.encoder_kind == "none":
            z = x
        elif self.encoder_kind == "scvi":
            z, log_variance = cast("ScviNetworks", self.encoder).encode(x, covariates)
        else:
            z = self.encoder(torch.cat([x, covariates], dim=1))
        if self.encoder_kind == "variational":
            z, log_variance = z.chunk(2, dim=1)
        if self.is_variational:
            log_variance = log_variance.clamp(-12.0, 8.0)
            scatter = (0.5 * log_variance).exp()
            kl = 0.5 * (z.square() + log_variance.exp() - 1.0 - log_variance)
        else:
            scatter, kl = torch.zeros_like(z), torch.zeros_like(z)
        if n_samples > 1:
            z, library = z.expand(n_samples, *z.shape), library.expand(n_samples, *library.shape)
        if self.training or n_samples > 1:
            z = z + scatter * torch.randn_like(z)
        return {"z": z * self.kept, "scatter": scatter * self.kept, "kl": kl, "library": library}

    def _decoded(
        self,
        z: torch.Tensor,
        covariates: torch.Tensor,
        library: torch.Tensor,
        *,
        node: torch.Tensor | None,
        offset: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        if self.encoder_kind == "scvi":
            return cast("ScviNetworks", self.encoder).decode(z, covariates, library, offset)
        if self.encoder_kind != "none":
            return super()._decoded(z, covariates, library, node=node, offset=offset)
        values = z * self.scaler.feature_std + self.scaler.mean
        return {"mu": values, "scale": (SPREAD * self.scaler.feature_std).expand_as(values)}

    def loss(
        self,
        tensors: dict[str, torch.Tensor],
        inference_outputs: dict[str, torch.Tensor],
        generative_outputs: dict[str, Distribution],
        *,
        kl_weight: float = 1.0,
    ) -> LossOutput:
        """Negative evidence lower bound of a minibatch.

        Parameters
        ----------
        tensors
            Minibatch.
        inference_outputs, generative_outputs
            Of :meth:`inference` and :meth:`generative`.
        kl_weight
            Weight of the divergence from the prior.
        """
        reconstruction = -generative_outputs["px"].log_prob(tensors[REGISTRY_KEYS.X_KEY]).sum(-1)
        kl = inference_outputs["kl"].sum(1)
        loss = (reconstruction + kl_weight * kl).mean()
        return LossOutput(loss=loss, reconstruction_loss=reconstruction, kl_local=kl, n_obs_minibatch=len(kl))
