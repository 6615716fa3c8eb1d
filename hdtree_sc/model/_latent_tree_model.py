"""Getters of a model whose tree is a tree of latents, and its goodness-of-fit measures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scvi.model.base import VAEMixin

from hdtree_sc._docs import READS, shared_params
from hdtree_sc._errors import listing
from hdtree_sc.generate import seeded
from hdtree_sc.model._expression import with_rows
from hdtree_sc.model._generative import GenerativeTreeModel
from hdtree_sc.module import LatentTreeHead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.data import Rows
    from hdtree_sc.module import TreeVAEModule
    from hdtree_sc.tree import Tree

BATCH = 1024


class LatentTreeModel(GenerativeTreeModel, VAEMixin):
    """Leaves, their decoders, and scvi-tools' measures of fit.

    These draw latents from a seed: global random numbers stay as they are.
    """

    module: TreeVAEModule
    latent_tree_: dict[str, Any] | None = None
    growth_: list[dict[str, Any]] | None = None
    _decoded_at: int | None = None

    # scvi-tools' base has a method of this name that does nothing
    differential_abundance = VAEMixin.differential_abundance

    # ---------------------------------------------------------------- tree

    def _head(self) -> LatentTreeHead:
        return LatentTreeHead(self.module, self.latent_tree_)

    def get_tree(self) -> Tree:
        """The tree, with the number of training cells of each node.

        Returns
        -------
        :class:`hdtree_sc.Tree`; its ``codebook`` holds the nodes' mean embeddings, its heights the distance of the mean
        embeddings of a node's children, or that of a node below it where that is more.
        """
        return super().get_tree()

    @shared_params(READS)
    def get_leaf_probabilities(
        self,
        adata: AnnData | None = None,
        indices: Rows = None,
        batch_size: int | None = None,
        dataloader: Iterator[dict[str, torch.Tensor]] | None = None,
    ) -> pd.DataFrame:
        """Probability of each leaf, by the routers that see the cell.

        Returns
        -------
        DataFrame (n_cells, n_leaves) whose rows sum to one, in the order of ``get_tree().leaves``.

        Raises
        ------
        RuntimeError
            Before training.
        """
        self._require_trained("get_leaf_probabilities")
        nodes = self.get_node_probabilities(adata, indices, batch_size, dataloader)
        return nodes[list(self.get_tree().leaves)]

    @property
    def growth(self) -> pd.DataFrame:
        """How the tree grew: a split or a leaf taken away a row.

        ``epoch`` and ``stage`` (``"grow"``, ``"prune"``); ``node``, by its name at that time; ``n_cells`` of the node
        and of its ``smaller`` child; ``information`` that the sides of held-out cells have on where walks from them
        end, the ``entropy`` of the sides and the ``gain`` in information per cell of all, in nats; ``bound_gain``: what
        held-out cells gain in bound once the new leaves were trained and before all was trained together, in nats per
        cell; ``n_leaves`` after it.
        """
        self._require_trained("growth")
        return pd.DataFrame(self.growth_ or [])

    # ---------------------------------------------------------------- expression

    def _leaf_named(self, leaf: str) -> int:
        """Position of a leaf in the tree."""
        tree = self.get_tree()
        if leaf not in tree.leaves:
            msg = f"leaf: {leaf!r} is no leaf of the tree. Leaves: {listing(tree.leaves)}."
            raise ValueError(msg)
        return tree.index(leaf)

    def get_normalized_expression(self, *args: Any, leaf: str | None = None, **kwargs: Any) -> Any:
        """Expected expression of cells, at their likeliest leaves or at one leaf.

        Parameters
        ----------
        *args, **kwargs
            See :meth:`scvi.model.SCVI.get_normalized_expression`.
        leaf
            Name of a leaf at which all cells are decoded, each with its own latents on the way there: what they would
            express as such cells. By default each at its likeliest.

        Returns
        -------
        DataFrame (n_cells, n_genes), or an array with ``return_numpy``.

        Raises
        ------
        RuntimeError
            Before training.
        ValueError
            If there is no such leaf; the message lists those that are.
        """
        self._require_trained("get_normalized_expression")
        self._decoded_at = None if leaf is None else self._leaf_named(leaf)
        try:
            return super().get_normalized_expression(*args, **kwargs)
        finally:
            self._decoded_at = None

    def _get_transform_batch_gen_kwargs(self, batch: Any) -> dict[str, Any]:
        # the one place where scvi-tools lets a model say more to generative()
        given = super()._get_transform_batch_gen_kwargs(batch)
        if self._decoded_at is None:
            return given
        return given | {"node": torch.tensor(self._decoded_at, device=self.module.device)}

    @torch.inference_mode()
    def get_leaf_loadings(self, leaf: str) -> pd.DataFrame:
        """What a step along each latent of a leaf adds to each gene, beside what all leaves share.

        Parameters
        ----------
        leaf
            Name of a leaf.

        Returns
        -------
        DataFrame (n_genes, n_node_latent), on the scale of the likelihood's link: of counts, logs of shares up to a
        number that all genes have in common.

        Raises
        ------
        RuntimeError
            Before training.
        ValueError
            If there is no such leaf; the message lists those that are.
        TypeError
            Of images, whose last layer is a convolution.
        """
        self._require_trained("get_leaf_loadings")
        slot = self._head().slot(self._leaf_named(leaf)).unsqueeze(0)
        values = self.module.decoder.loadings(slot)[0].cpu().numpy()
        columns = [f"latent_{i}" for i in range(values.shape[1])]
        return pd.DataFrame(values, index=list(self.get_var_names()), columns=columns)

    # ---------------------------------------------------------------- measures of fit

    get_aggregated_posterior = with_rows(VAEMixin.get_aggregated_posterior)

    def get_elbo(self, *args: Any, seed: int = 0, **kwargs: Any) -> float | NDArray[np.float32]:
        """Evidence lower bound of the log likelihood, in nats per cell; higher is better.

        Parameters
        ----------
        *args, **kwargs
            See :meth:`scvi.model.base.VAEMixin.get_elbo`: ``adata``, ``indices``, ``batch_size``, ``return_mean``.
        seed
            Seed of the latents, of which each cell has one draw.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> bound = model.get_elbo()
        >>> -bound > float(model.get_reconstruction_error()["reconstruction_loss"])
        True
        """
        return _plain(self._measured(VAEMixin.get_elbo, seed, args, kwargs))

    def get_reconstruction_error(self, *args: Any, seed: int = 0, **kwargs: Any) -> dict[str, Any]:
        """Expected negative log likelihood over leaves and latents, in nats per cell; lower is better.

        Parameters
        ----------
        *args, **kwargs
            See :meth:`scvi.model.base.VAEMixin.get_reconstruction_error`.
        seed
            Seed of the latents.

        Raises
        ------
        RuntimeError
            Before training.
        """
        found = self._measured(VAEMixin.get_reconstruction_error, seed, args, kwargs)
        return {key: _plain(values) for key, values in found.items()}

    def get_marginal_ll(self, *args: Any, seed: int = 0, **kwargs: Any) -> float | NDArray[np.float32]:
        """Importance-weighted estimate of the log likelihood, in nats per cell; higher is better.

        Parameters
        ----------
        *args, **kwargs
            See :meth:`scvi.model.base.VAEMixin.get_marginal_ll`: ``adata``, ``indices``, ``n_mc_samples`` (1,000 by
            default; the estimate is a lower bound that rises with them), ``return_mean``.
        seed
            Seed of the samples.

        Raises
        ------
        RuntimeError
            Before training.
        """
        # scvi-tools takes the mean of the minibatches' means, of which the last has fewer cells
        whole = kwargs.get("return_mean", True)
        found = self._measured(VAEMixin.get_marginal_ll, seed, args, kwargs | ({"return_mean": False} if whole else {}))
        return float(found.mean()) if whole else _plain(found)

    def _measured(self, measure: Callable[..., Any], seed: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._require_trained(measure.__name__)
        if measure is not VAEMixin.get_marginal_ll and len(args) < 3 and "dataloader" not in kwargs:
            kwargs.setdefault("batch_size", BATCH)
        with seeded(seed):
            return with_rows(measure)(self, *args, **kwargs)


def _plain(values: Any) -> Any:
    """A number, or an array of one for each cell."""
    array = np.asarray(values.cpu() if isinstance(values, torch.Tensor) else values)
    return float(array) if array.ndim == 0 else array
