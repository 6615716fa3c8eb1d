"""The objective of TreeVAE: an evidence bound over a tree of latents, beside a contrastive loss of the embedding."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import LossOutput, auto_move_data

from hdtree_sc.module._pair_module import PairModule
from hdtree_sc.module._tree_diffusion import TreeLatentDiffusion
from hdtree_sc.nn import (
    MIN_SHARE,
    MIN_SHARE_IN_BOUNDS,
    MLP,
    ImageEncoder,
    ImageHead,
    LatentTree,
    LeafDecoder,
    soft_contrastive_loss,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.distributions import Distribution

    from hdtree_sc.nn import Likelihood, Passage

MAX_LEAVES = 2
"""In training, a cell is decoded at so many of its likeliest leaves."""
DETAIL_DROPOUT = 0.1
"""Dropout rate of the encoder of details, which no neighbours keep from learning cells by heart."""
SAMPLED_AT_ONCE = 8192
"""Cells times samples that are decoded at a time for the marginal likelihood."""


class TreeVAEModule(PairModule):
    r"""Encoder, tree of latents and leaf decoder.

    The encoder gives an embedding, which the routers and the posteriors of the nodes' latents read, and details, which
    the posteriors alone read: what the embedding of a cell shares with its neighbours' makes the tree, and what it does
    not share need not be lost. The loss is the mean of

    .. math:: \sum_l P(l|x)\,[-\log p(x | z_l, l)] + w\,\Bigl[\sum_n P(n|x)\,KL(q_n \| p_n)
              + \sum_n P(n|x)\,KL(r^q_n \| r^p_n)\Bigr]

    a feature, and the contrastive loss of neighbours' embeddings.

    Parameters
    ----------
    n_input
        Number of features.
    n_batch, n_cats_per_cov, n_continuous_cov
        See :class:`CellModule`.
    n_latent
        Width of the embedding.
    n_node_latent
        Width of the latent of each node.
    n_detail
        Width of the details.
    n_hidden
        Width of the hidden layers of encoder and decoder.
    n_layers
        Number of hidden layers of the encoder.
    dropout_rate
        Dropout rate of the encoder.
    max_nodes
        Largest number of nodes that there can be at a time.
    image_shape
        Height and width of images whose pixels the features are: encoders and decoder are then convolutions.
    gene_likelihood
        ``"nb"``, ``"zinb"``, ``"normal"`` or ``"bernoulli"``.
    n_pcs, n_input_pcs
        See :class:`CellModule`.
    nu, exaggeration
        See :func:`hdtree_sc.nn.soft_contrastive_loss`.

    References
    ----------
    TreeVAE, arXiv 2306.08984, Eq. 10 to 16.
    """

    encoder: torch.nn.Module
    decoder: LeafDecoder
    _diffusion_cls = TreeLatentDiffusion

    def __init__(
        self,
        n_input: int,
        *,
        n_batch: int = 1,
        n_cats_per_cov: Sequence[int] = (),
        n_continuous_cov: int = 0,
        n_latent: int = 24,
        n_node_latent: int = 10,
        n_detail: int = 16,
        n_hidden: int = 256,
        n_layers: int = 2,
        dropout_rate: float = 0.0,
        max_nodes: int = 128,
        image_shape: tuple[int, int] | None = None,
        gene_likelihood: Likelihood = "nb",
        n_pcs: int = 30,
        n_input_pcs: int = 50,
        nu: float = 0.2,
        exaggeration: float = 2.0,
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
        self.nu, self.exaggeration = nu, exaggeration
        self.n_node_latent = n_node_latent
        n_covariates = self.covariates.width
        self.image_shape = image_shape

        def encoder(n_out: int, dropout: float) -> torch.nn.Module:
            if image_shape is not None:
                return ImageEncoder(image_shape, n_covariates, n_out, n_hidden=n_hidden, dropout=dropout)
            n_in = self.n_input_pcs + n_covariates
            return MLP(n_in, n_out, n_hidden=n_hidden, n_layers=n_layers, dropout=dropout)

        self.encoder = encoder(n_latent, dropout_rate)
        self.detail = encoder(n_detail, DETAIL_DROPOUT)
        self.tree = LatentTree(n_latent, n_node_latent, max_nodes, n_detail=n_detail)
        self.decoder = LeafDecoder(
            n_node_latent,
            n_input,
            max_nodes,
            n_covariates=n_covariates,
            likelihood=gene_likelihood,
            n_hidden=n_hidden,
            head=None if image_shape is None else ImageHead(n_hidden, image_shape),
        )
        self._add_heads()

    @auto_move_data
    def inference(
        self,
        x: torch.Tensor,
        covariates: torch.Tensor,
        library: torch.Tensor,
        x_positive: torch.Tensor | None = None,
        covariates_positive: torch.Tensor | None = None,
        n_samples: int = 1,
    ) -> dict[str, torch.Tensor]:
        """Embeddings and details of cells, ``z``; of pairs, as training has them, also the positives' embeddings."""
        out = self._encoded(x, covariates, x_positive, covariates_positive)
        out["z"] = self._with_details(out["z"], x, covariates)
        if n_samples > 1:
            out["z"], library = out["z"].expand(n_samples, *out["z"].shape), library.expand(n_samples, *library.shape)
        return out | {"library": library}

    def latent_of(self, read: torch.Tensor, covariates: torch.Tensor) -> torch.Tensor:
        """Embeddings and details (n, width) of what the encoders read."""
        return self._with_details(super().latent_of(read, covariates), read, covariates)

    def _with_details(self, embedding: torch.Tensor, read: torch.Tensor, covariates: torch.Tensor) -> torch.Tensor:
        return torch.cat([embedding, self.detail(torch.cat([read, covariates], dim=1))], dim=1)

    def _read(self, x: torch.Tensor, library: torch.Tensor) -> torch.Tensor:
        return super()._read(x, library) if self.image_shape is None else self.scaler(x, library)

    def shown(self, z: torch.Tensor) -> torch.Tensor:
        """Embeddings, without the details."""
        return z[..., : self.n_latent]

    def generative(
        self,
        z: torch.Tensor,
        covariates: torch.Tensor,
        library: torch.Tensor,
        transform_batch: int | None = None,
        node: torch.Tensor | None = None,
        offset: torch.Tensor | None = None,
    ) -> dict[str, Distribution]:
        """Likelihood at each cell's most probable leaf; in training nothing, as the loss decodes all leaves that count.

        Parameters
        ----------
        z
            Embeddings and details, (n, width), or (n_samples, n, width): node latents are then drawn, else their means.
        covariates, library, transform_batch, offset
            See :meth:`CellModule.generative`.
        node
            Position of a leaf in the tree, int (n,) or one for all, at which cells are decoded instead.
        """
        if self.training:
            return {}
        return super().generative(z, covariates, library, transform_batch, node, offset)

    def _decoded(
        self,
        z: torch.Tensor,
        covariates: torch.Tensor,
        library: torch.Tensor,
        *,
        node: torch.Tensor | None,
        offset: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        shape = z.shape[:-1]
        z, covariates, library = (part.flatten(0, -2) for part in (z, covariates, library))
        passage = self.tree(z, draw=len(shape) > 1)
        leaf = self.likeliest(passage.log_share)
        if node is not None:
            asked = self.tree.plan.shown[node]
            leaf = torch.where(self.tree.plan.is_leaf[asked], asked, leaf)
        here = passage.z[leaf, torch.arange(len(z), device=z.device)]
        output = self.decoder(here, self.tree.plan.slots[leaf], covariates, library)
        return {name: part.reshape(*shape, -1) for name, part in output.items()}

    def likeliest(self, log_share: torch.Tensor) -> torch.Tensor:
        """Position in the plan of the likeliest leaf, int (n,), given log probabilities of the nodes (s, n)."""
        leaves = self.tree.plan.is_leaf.nonzero().squeeze(1)
        return leaves[log_share[leaves].argmax(0)]

    def bound(
        self,
        x: torch.Tensor,
        embedding: torch.Tensor,
        covariates: torch.Tensor,
        library: torch.Tensor,
        *,
        min_share: float,
        most: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Expected negative log likelihood and divergence of each cell, both (n,): their sum is the negative bound.

        The expectation is over the leaves that count for a cell, whose probabilities are made to sum to one: were the
        others left out for nothing, routers would learn to spread cells over them.

        Parameters
        ----------
        x
            Expression, (n, n_input).
        embedding
            Embeddings and details, (n, width).
        covariates, library
            See :meth:`CellModule.generative`.
        least_share
            Leaves that a cell reaches with less probability are left out.
        most
            Largest number of leaves that count for a cell.
        """
        passage = self.tree(embedding, draw=True)
        leaf, cell, neg_log_likelihood = self.neg_log_likelihood(
            passage, x, covariates, library, min_share=min_share, most=most
        )
        share = passage.log_share.exp()
        counted = share[leaf, cell]
        expected = torch.zeros_like(share[0]).index_add(0, cell, counted * neg_log_likelihood)
        expected = expected / torch.zeros_like(expected).index_add(0, cell, counted)
        return expected, (share * (passage.divergence() + passage.decision)).sum(0)

    def neg_log_likelihood(
        self,
        passage: Passage,
        x: torch.Tensor,
        covariates: torch.Tensor,
        library: torch.Tensor,
        *,
        min_share: float,
        most: int | None = None,
        also: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Negative log likelihood of cells at the leaves that count for them.

        Parameters
        ----------
        passage
            Of the cells.
        x, covariates, library, least_share, most
            See :meth:`bound`.
        also
            Positions in the plan of further nodes at which cells are decoded, int (m,).

        Returns
        -------
        Position in the plan, cell and negative log likelihood of each pair that counts, all (n_pairs,).
        """
        share, plan = passage.log_share.detach(), self.tree.plan
        leaves = plan.is_leaf.nonzero().squeeze(1)
        order = share[leaves].topk(min(most or len(leaves), len(leaves)), dim=0)
        # the likeliest leaf always counts, however many there are
        kept = order.values > math.log(min_share)
        kept[0] = True
        counts = torch.zeros_like(share, dtype=torch.bool).scatter_(0, leaves[order.indices], kept)
        if also is not None:
            counts[also] |= share[also] > math.log(min_share)
        node, cell = counts.nonzero(as_tuple=True)
        output = self.decoder(passage.z[node, cell], plan.slots[node], covariates[cell], library[cell])
        return node, cell, -self._likelihood(output).log_prob(x[cell]).sum(-1)

    def loss(
        self,
        tensors: dict[str, torch.Tensor],
        inference_outputs: dict[str, torch.Tensor],
        generative_outputs: dict[str, Distribution],
        *,
        kl_weight: float = 1.0,
        elbo_weight: float = 0.3,
        contrastive_weight: float = 1.0,
    ) -> LossOutput:
        """Loss of a minibatch.

        Parameters
        ----------
        tensors
            Minibatch.
        inference_outputs, generative_outputs
            Of :meth:`inference` and :meth:`generative`.
        kl_weight
            Weight of the divergences in the bound.
        elbo_weight
            Weight of the negative bound, in nats per feature.
        contrastive_weight
            Weight of the soft contrastive loss.
        """
        x = tensors[REGISTRY_KEYS.X_KEY]
        output = self._get_generative_input(tensors, inference_outputs)
        reconstruction, kl = self.bound(
            x, output["z"], output["covariates"], output["library"],
            min_share=MIN_SHARE if self.training else MIN_SHARE_IN_BOUNDS,
            most=MAX_LEAVES if self.training else None,
        )  # fmt: skip
        loss = elbo_weight * (reconstruction + kl_weight * kl).mean() / x.shape[1]
        extra = {}
        if "z_positive" in inference_outputs:
            embeddings = self.shown(inference_outputs["z"]), inference_outputs["z_positive"]
            contrast = soft_contrastive_loss(*embeddings, nu=self.nu, exaggeration=self.exaggeration)
            loss = loss + contrastive_weight * contrast
            extra["contrastive"] = contrast.detach()
        return LossOutput(
            loss=loss, reconstruction_loss=reconstruction, kl_local=kl, n_obs_minibatch=len(x), extra_metrics=extra
        )

    @torch.inference_mode()
    @auto_move_data
    def marginal_ll(
        self, tensors: dict[str, torch.Tensor], n_mc_samples: int = 100, *, return_mean: bool = True
    ) -> torch.Tensor | float:
        r"""Importance-weighted estimate of the log likelihood of each cell.

        .. math:: \log \frac1S \sum_s \sum_l \frac{p(l | z^s) \prod_{n \in \mathrm{path}(l)} p(z^s_n | z^s_\pi)\;
                  p(x | z^s_l)}{\prod_{n \in \mathrm{path}(l)} q(z^s_n | x, z^s_\pi)}

        Leaves are summed over and not drawn. Its expectation is a lower bound that rises with the number of samples.

        Parameters
        ----------
        tensors
            Minibatch.
        n_mc_samples
            Number of samples S.
        return_mean
            Whether to return the mean over the cells, or each cell's, (n,).

        References
        ----------
        Burda et al., Importance Weighted Autoencoders, arXiv 1509.00519.
        """
        output = self.inference(**self._get_inference_input(tensors))
        x, covariates = tensors[REGISTRY_KEYS.X_KEY], self.covariates(tensors)
        n, samples = len(x), []
        for size in _portions(n_mc_samples, max(1, SAMPLED_AT_ONCE // n)):
            passage = self.tree(output["z"].repeat(size, 1), draw=True)
            leaf, cell, neg_log_likelihood = self.neg_log_likelihood(
                passage, x.repeat(size, 1), covariates.repeat(size, 1), output["library"].repeat(size, 1),
                min_share=MIN_SHARE_IN_BOUNDS,
            )  # fmt: skip
            odds = _log_normal(passage.z, passage.prior_mean, passage.prior_variance)
            odds = odds - _log_normal(passage.z, passage.mean, passage.variance)
            weight = (passage.log_prior_share + self.tree.summed_down(odds))[leaf, cell] - neg_log_likelihood
            table = torch.full_like(passage.log_share, -torch.inf)
            table[leaf, cell] = weight
            samples.append(table.logsumexp(0).reshape(size, n))
        out = torch.cat(samples).logsumexp(0) - math.log(n_mc_samples)
        return out.mean().item() if return_mean else out.cpu()


def _log_normal(z: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Log density of diagonal normal distributions, summed over the last axis."""
    return -0.5 * ((z - mean).square() / variance + variance.log() + math.log(2.0 * math.pi)).sum(-1)


def _portions(n: int, size: int) -> list[int]:
    """``n`` in parts of ``size`` and a rest."""
    return [size] * (n // size) + ([n % size] if n % size else [])
