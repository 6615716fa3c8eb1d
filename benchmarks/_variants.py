"""HDTree with one thing changed that no argument changes; for the ablation only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch.nn import functional as F

import hdtree_sc as ht
from hdtree_sc._keys import ENCODER_INPUT
from hdtree_sc.module import HDTreeModule
from hdtree_sc.module import _hdtree as of_module
from hdtree_sc.nn import MLP, soft_contrastive_loss
from hdtree_sc.nn._contrastive import squared_euclidean

if TYPE_CHECKING:
    from collections.abc import Callable

NEAREST = 0.1
"""Weight of a negative in the cell's own leaf, where one at the other side of the root weighs 1."""


def contrast(
    squared: torch.Tensor,
    *,
    nu: float,
    exaggeration: float,
    metric: str = "euclidean",
    log_weight: torch.Tensor | float = 0.0,
) -> torch.Tensor:
    """The soft contrastive loss of given squared distances, (n, n), with weights of the negatives."""
    del metric  # of the distances that are given
    log_q = -0.5 * (nu + 1.0) * torch.log1p(squared / nu)
    own = torch.eye(len(squared), dtype=torch.bool, device=squared.device)
    log_p = log_q - torch.logsumexp((log_q + log_weight).masked_fill(own, -torch.inf), dim=1, keepdim=True)
    log_s = log_p.diagonal()
    spread, crowding = torch.log(2.0 + log_s.exp()), F.softplus(torch.logsumexp(log_p, dim=0))
    return -exaggeration * log_s.mean() + 0.5 * spread.mean() + 0.5 * crowding.mean()


class Unmixed(HDTreeModule):
    """The positive is the neighbour, not a point on the way to it."""

    def inference(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        # the share of the cell itself in its positive is what the module draws here
        with mock.patch.object(of_module.torch, "rand", lambda *size, device: torch.zeros(*size, device=device)):
            return super().inference(x, *args, **kwargs)


class AllGenes(HDTreeModule):
    """The encoder reads all standardised values."""

    def __init__(self, n_input: int, **kwargs: Any) -> None:
        super().__init__(n_input, **kwargs)
        width = {"n_hidden": kwargs["n_hidden"], "n_layers": kwargs["n_layers"], "dropout": kwargs["dropout_rate"]}
        self.encoder = MLP(n_input + self.covariates.width, kwargs["n_latent"], **width)

    def _encoder_input(self, tensors: dict[str, torch.Tensor], prefix: str = "") -> tuple[torch.Tensor, ...]:
        if prefix + ENCODER_INPUT in tensors:
            return super()._encoder_input(tensors, prefix)
        library = self._library(tensors, prefix)
        return self.scaler(tensors[prefix + "X"], library), self.covariates(tensors, prefix), library


class OtherContrast(HDTreeModule):
    """The latents' contrastive loss is another one; the map's is not."""

    def loss(self, tensors: Any, inference_outputs: Any, generative_outputs: Any, **weights: float) -> Any:
        def chosen(anchors: torch.Tensor, positives: torch.Tensor, **kernel: float) -> torch.Tensor:
            is_map = anchors.shape[1] != self.n_latent
            return (soft_contrastive_loss if is_map else self.contrast(inference_outputs))(anchors, positives, **kernel)

        with mock.patch.object(of_module, "soft_contrastive_loss", chosen):
            return super().loss(tensors, inference_outputs, generative_outputs, **weights)

    def contrast(self, outputs: dict[str, torch.Tensor]) -> Callable[..., torch.Tensor]:
        """The loss for a minibatch."""
        raise NotImplementedError


class TreeNegatives(OtherContrast):
    """Negatives weigh less the longer they share the cell's way down the codebook, once that exists."""

    def contrast(self, outputs: dict[str, torch.Tensor]) -> Callable[..., torch.Tensor]:
        if "leaf" not in outputs:
            return soft_contrastive_loss
        path = self.codebook.paths(outputs["leaf"])
        together = ((path[:, None] == path) & (path[:, None] >= 0)).sum(2)
        length = (path >= 0).sum(1)
        shared = together / torch.maximum(length[:, None], length).clamp_min(1)
        log_weight = torch.log(1.0 - (1.0 - NEAREST) * shared)
        return lambda anchors, positives, **kernel: contrast(
            squared_euclidean(anchors, positives), log_weight=log_weight, **kernel
        )


def model_of(module: type[HDTreeModule]) -> type[ht.HDTree]:
    """HDTree with another module."""
    # the name is the key that a tree is kept under
    return type("HDTree", (ht.HDTree,), {"_module_cls": module})
