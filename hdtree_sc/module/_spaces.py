"""The spaces in which diffusion may run, and how cells come out of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from scvi.distributions import Normal

from hdtree_sc.module._likelihood import NormalizedBernoulli, SparseNegativeBinomial
from hdtree_sc.nn import TARGET_SUM

if TYPE_CHECKING:
    from torch.distributions import Distribution

    from hdtree_sc.module._cell_module import CellModule

Space = Literal["latent", "expression", "input"]


class LatentSpace:
    """The encoder's latent; the model's own decoder makes cells of it."""

    name: Space = "latent"

    @staticmethod
    def points(module: CellModule, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Points (n, width) of a minibatch."""
        return module.inference(**module._get_inference_input(tensors))["z"].float()

    @staticmethod
    def points_of(module: CellModule, x: torch.Tensor, covariates: torch.Tensor) -> torch.Tensor:
        """Points (n, width) of expression (n, n_input), each cell's library size being its sum."""
        return module.encoded(x, covariates)

    @staticmethod
    def latent(module: CellModule, points: torch.Tensor, covariates: torch.Tensor) -> torch.Tensor:
        """Latents (n, n_latent) of points."""
        return points

    @staticmethod
    def expression(
        module: CellModule,
        points: torch.Tensor,
        covariates: torch.Tensor,
        library: torch.Tensor,
        node: torch.Tensor | None = None,
    ) -> Distribution:
        """Likelihood of the expression of points."""
        return module.generative(points, covariates, library, node=node)["px"]


class ExpressionSpace:
    """The components of standardised expression that the encoder reads, as HDTree's paper has it.

    They are turned back to expression without a network: what the components leave out is missing.
    """

    name: Space = "expression"

    @staticmethod
    def points(module: CellModule, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Points (n, width) of a minibatch."""
        return module._encoder_input(tensors)[0].float()

    @staticmethod
    def points_of(module: CellModule, x: torch.Tensor, covariates: torch.Tensor) -> torch.Tensor:
        """Points (n, width) of expression (n, n_input), each cell's library size being its sum."""
        return module._read(x, x.sum(1, keepdim=True)).float()

    @staticmethod
    def latent(module: CellModule, points: torch.Tensor, covariates: torch.Tensor) -> torch.Tensor:
        """Latents (n, n_latent) of points."""
        return module.latent_of(points, covariates)

    @staticmethod
    def expression(
        module: CellModule,
        points: torch.Tensor,
        covariates: torch.Tensor,
        library: torch.Tensor,
        node: torch.Tensor | None = None,
    ) -> Distribution:
        """Likelihood of the expression of points."""
        scaler = module.scaler
        values = module._unread(points) * scaler.std + scaler.mean
        if module.gene_likelihood == "bernoulli":
            return NormalizedBernoulli(probs=values.clamp(0.0, 1.0), validate_args=False)
        spread = module.decoder.log_dispersion.clamp(-7.0, 10.0).exp().expand_as(values)
        if module.gene_likelihood == "normal":
            return Normal(values, spread, normal_mu=values)
        shares = torch.expm1(values).clamp_min(0.0) / TARGET_SUM
        shares = shares / shares.sum(1, keepdim=True).clamp_min(1e-8)
        return SparseNegativeBinomial(mu=library * shares, theta=spread, scale=shares)


class InputSpace(ExpressionSpace):
    """The same components; cells are made of them by encoder and decoder, which know what components leave out."""

    name: Space = "input"

    @staticmethod
    def expression(
        module: CellModule,
        points: torch.Tensor,
        covariates: torch.Tensor,
        library: torch.Tensor,
        node: torch.Tensor | None = None,
    ) -> Distribution:
        """Likelihood of the expression of points."""
        latent = ExpressionSpace.latent(module, points, covariates)
        return LatentSpace.expression(module, latent, covariates, library, node)


SPACES = {space.name: space for space in (LatentSpace, ExpressionSpace, InputSpace)}
