"""What every module has that predicts expression from a latent: covariates, scaler, likelihood, second stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from scvi import REGISTRY_KEYS
from scvi.distributions import Normal, ZeroInflatedNegativeBinomial
from scvi.module.base import BaseModuleClass, auto_move_data

from hdtree_sc._keys import ENCODER_INPUT
from hdtree_sc.module._covariate_pool import POOL_NAME, CovariatePool
from hdtree_sc.module._covariates import CovariateVector
from hdtree_sc.module._latent_diffusion import LatentDiffusion
from hdtree_sc.module._likelihood import NormalizedBernoulli, SparseNegativeBinomial
from hdtree_sc.nn import MLP, ExpressionScaler, UnplacedScore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn
    from torch.distributions import Distribution

    from hdtree_sc.module._spaces import Space
    from hdtree_sc.nn import Decoder, Likelihood


class CellModule(BaseModuleClass):
    """Base of the modules: a subclass makes ``encoder`` and ``decoder``, and calls :meth:`_add_heads`.

    Parameters
    ----------
    n_input
        Number of features.
    n_batch
        Number of batches.
    n_cats_per_cov
        Number of categories of each further categorical covariate.
    n_continuous_cov
        Number of continuous covariates.
    n_latent
        Width of the latent.
    gene_likelihood
        ``"nb"``, ``"zinb"``, ``"normal"`` or ``"bernoulli"``.
    n_pcs
        Number of principal components in which neighbours are searched.
    n_input_pcs
        Number of principal components that the encoder reads.
    """

    encoder: nn.Module
    decoder: Decoder
    _diffusion_cls: type[LatentDiffusion] = LatentDiffusion

    def __init__(
        self,
        n_input: int,
        *,
        n_batch: int,
        n_cats_per_cov: Sequence[int],
        n_continuous_cov: int,
        n_latent: int,
        gene_likelihood: Likelihood,
        n_pcs: int,
        n_input_pcs: int,
    ) -> None:
        super().__init__()
        self.n_latent = n_latent
        self.gene_likelihood = gene_likelihood
        self.is_count = gene_likelihood in ("nb", "zinb")
        self.covariates = CovariateVector(n_batch, n_cats_per_cov, n_continuous_cov)
        self.n_pcs, self.n_input_pcs = min(n_pcs, n_input), min(n_input_pcs, n_input)
        self.scaler = ExpressionScaler(
            n_input,
            max(self.n_pcs, self.n_input_pcs),
            is_count=self.is_count,
        )
        self.time_head: nn.Module | None = None
        # whether latents are known up to a normal error, which inference returns as "scatter"
        self.is_variational = False
        # the second stage, once there is one
        self.diffusion: LatentDiffusion | None = None
        self.register_module(POOL_NAME, None)
        self.space: Space = "latent"

    def _add_heads(self) -> None:
        """What is learned after the latent: a score of cells unlike all in training, and a 2-D map."""
        self.unplaced = UnplacedScore(len(self.scaler.mean), self.n_pcs, is_count=self.is_count)
        self.map_head = MLP(self.n_latent, 2, n_hidden=128, n_layers=2, dropout=0.0)

    @property
    def covariate_pool(self) -> CovariatePool | None:
        """Library sizes and covariates that generated cells are decoded with."""
        return cast("CovariatePool | None", self._modules[POOL_NAME])

    def set_generator(
        self, diffusion: LatentDiffusion | None, pool: CovariatePool | None, space: Space = "latent"
    ) -> None:
        """Take the second stage in, or leave it out."""
        self.diffusion, self.space = diffusion, space
        self.register_module(POOL_NAME, pool)

    def on_load(self, model: Any, **kwargs: Any) -> None:
        """Make room for the second stage of a saved model, whose shapes are those of its tree."""
        params = getattr(model, "diffusion_params_", None)
        if params is not None:
            self.set_generator(
                self._diffusion_cls(**params["diffusion"]), CovariatePool(*params[POOL_NAME]), params["space"]
            )

    def _decoded(
        self,
        z: torch.Tensor,
        covariates: torch.Tensor,
        library: torch.Tensor,
        *,
        node: torch.Tensor | None,
        offset: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """Parameters of the likelihood, see :class:`hdtree_sc.nn.Decoder`."""
        return self.decoder(z, covariates, library, offset)

    def offset(self, node: torch.Tensor | None) -> torch.Tensor | None:
        """What the decoder adds for cells of some nodes, (n, n_input); None for nothing."""
        return None

    def inferred(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What :meth:`inference` gives of a minibatch."""
        return self.inference(**self._get_inference_input(tensors))

    def latents(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Latents (n, n_latent) of a minibatch, as users see them."""
        return self.shown(self.inferred(tensors)["z"].float())

    def scaled(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Values of a minibatch in one unit, (n, n_features)."""
        return self.scaler(tensors[REGISTRY_KEYS.X_KEY], self._library(tensors))

    def components(self, scaled: torch.Tensor) -> torch.Tensor:
        """Principal components (n, n_pcs) of values in one unit."""
        return scaled @ self.scaler.components[:, : self.n_pcs]

    def standardised(self, scaled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Values in one unit standardised, (n, n_features), and the components of these, (n, n_pcs)."""
        values = self.scaler.restandardised(scaled)
        return values, values @ self.scaler.standard_components[:, : self.n_pcs]

    def registered_labels(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Number of each cell's label in the registry, int (n,)."""
        return tensors[REGISTRY_KEYS.LABELS_KEY][:, 0].long()

    def shown(self, z: torch.Tensor) -> torch.Tensor:
        """The part of latents (..., width) that users get, (..., n_latent)."""
        return z

    def _library(self, tensors: dict[str, torch.Tensor], prefix: str = "") -> torch.Tensor:
        size_factor = tensors.get(prefix + REGISTRY_KEYS.SIZE_FACTOR_KEY)
        if size_factor is not None:
            return size_factor
        return tensors[prefix + REGISTRY_KEYS.X_KEY].sum(1, keepdim=True)

    def _encoder_input(self, tensors: dict[str, torch.Tensor], prefix: str = "") -> tuple[torch.Tensor, ...]:
        library = self._library(tensors, prefix)
        if prefix + ENCODER_INPUT in tensors:
            # worked out once for all of training
            return tensors[prefix + ENCODER_INPUT], self.covariates(tensors, prefix), library
        x = self._read(tensors[prefix + REGISTRY_KEYS.X_KEY], library)
        return x, self.covariates(tensors, prefix), library

    def _read(self, x: torch.Tensor, library: torch.Tensor) -> torch.Tensor:
        """What the encoder reads of expression (n, n_input) with its library sizes (n, 1)."""
        return self.scaler(x, library) @ self.scaler.components[:, : self.n_input_pcs] / self.scaler.scale

    def _unread(self, read: torch.Tensor) -> torch.Tensor:
        """Expression in the common unit (n, n_input) of what the encoder reads, as far as that determines it."""
        return read * self.scaler.scale @ self.scaler.components[:, : self.n_input_pcs].T

    def latent_of(self, read: torch.Tensor, covariates: torch.Tensor) -> torch.Tensor:
        """Latents (n, width) of what the encoder reads."""
        return self.encoder(torch.cat([read, covariates], dim=1))

    def encoded(self, x: torch.Tensor, covariates: torch.Tensor) -> torch.Tensor:
        """Latents (n, width) of expression (n, n_input), each cell's library size being its sum."""
        return self.latent_of(self._read(x, x.sum(1, keepdim=True)), covariates).float()

    def _get_generative_input(
        self, tensors: dict[str, torch.Tensor], inference_outputs: dict[str, torch.Tensor], **kwargs: Any
    ) -> dict[str, Any]:
        # of pairs, expression may be there for the first cells only
        n = tensors[REGISTRY_KEYS.X_KEY].shape[0]
        return {
            "z": inference_outputs["z"][..., :n, :],
            "covariates": self.covariates(tensors)[:n],
            "library": inference_outputs["library"][..., :n, :],
        }

    @auto_move_data
    def generative(
        self,
        z: torch.Tensor,
        covariates: torch.Tensor,
        library: torch.Tensor,
        transform_batch: int | None = None,
        node: torch.Tensor | None = None,
        offset: torch.Tensor | None = None,
    ) -> dict[str, Distribution]:
        """Likelihood of the expression given latents.

        Parameters
        ----------
        z
            Latents, (n, n_latent) or (n_samples, n, n_latent).
        covariates
            Covariates, (n, width).
        library
            Library sizes, (n, 1) or (n_samples, n, 1).
        transform_batch
            Batch to pretend for all cells.
        node
            Number of the node that each cell is of, int (n,), where that is known.
        offset
            See :class:`hdtree_sc.nn.Decoder`; by default what the nodes add.
        """
        if transform_batch is not None and self.covariates.n_batch > 1:
            covariates = covariates.clone()
            covariates[:, : self.covariates.n_batch] = 0.0
            covariates[:, transform_batch] = 1.0
        if z.ndim > covariates.ndim:
            covariates = covariates.expand(z.shape[0], *covariates.shape)
        offset = self.offset(node) if offset is None else offset
        return {"px": self._likelihood(self._decoded(z, covariates, library, node=node, offset=offset))}

    def _likelihood(self, params: dict[str, torch.Tensor]) -> Distribution:
        """Distribution of the expression with parameters as :class:`hdtree_sc.nn.Decoder` gives them."""
        if self.gene_likelihood == "nb":
            return SparseNegativeBinomial(**params)
        if self.gene_likelihood == "zinb":
            return ZeroInflatedNegativeBinomial(**params)
        if self.gene_likelihood == "normal":
            return Normal(params["mu"], params["scale"], normal_mu=params["mu"])
        return NormalizedBernoulli(logits=params["logits"], validate_args=False)

    def predicted_time(self, z: torch.Tensor) -> torch.Tensor:
        """Time (n,) predicted from latents, in the units of the training data; NaN for a model without time."""
        return torch.full_like(z[:, 0], torch.nan)

    @torch.inference_mode()
    def sample(
        self, tensors: dict[str, torch.Tensor], n_samples: int = 1, generative_kwargs: dict[str, Any] | None = None
    ) -> torch.Tensor:
        """Draw expression from the likelihood at each cell's latent: (n, n_features), or (n, n_features, n_samples)."""
        _, outputs = self.forward(
            tensors,
            inference_kwargs={"n_samples": n_samples},
            generative_kwargs=generative_kwargs,
            compute_loss=False,
        )
        drawn = outputs["px"].sample()
        return drawn.permute(1, 2, 0).cpu() if n_samples > 1 else drawn.cpu()
