"""A model's tree that is a tree of latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from hdtree_sc._errors import listing
from hdtree_sc.model._tree_mixin import TreeMixin
from hdtree_sc.tree import Tree
from hdtree_sc.tree._names import path_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

    from hdtree_sc.model._arguments import Rows


class LatentTreeMixin(TreeMixin):
    """Where embeddings are in a :class:`~hdtree_sc.nn.LatentTree`."""

    latent_tree_: dict[str, Any] | None = None
    _decoded_at: int | None = None

    def get_tree(self) -> Tree:
        """The tree, with the number of training cells of each node.

        Returns
        -------
        :class:`hdtree_sc.Tree`; its ``codebook`` holds the nodes' mean embeddings, its heights the distance of the mean
        embeddings of a node's children, or that of a node below it where that is more.
        """
        self._require_trained("get_tree")
        held = self.latent_tree_
        assert held is not None
        parents = list(self.module.tree.plan.shown_parents)  # type: ignore[attr-defined]
        return Tree(
            path_names(parents), parents, heights=held["heights"], n_cells=held["n_cells"], codebook=held["codebook"]
        )

    @property
    def _path_depth(self) -> int:
        # a root alone has no path, but what is written of paths has a column
        return max(self.get_tree().depth, 1)

    @torch.inference_mode()
    def _describe_tree(self) -> None:
        """Learn of training cells how many each node holds and where they lie."""
        module = self.module  # type: ignore[attr-defined]
        latent = torch.from_numpy(self.get_latent(indices=self.train_indices_))  # type: ignore[attr-defined]
        parents = module.tree.plan.shown_parents
        n = np.zeros(len(parents))
        sums = np.zeros((len(parents), latent.shape[1]))
        leaf = torch.cat([self._leaf_positions(part.to(module.device)).cpu() for part in latent.split(8192)]).numpy()
        np.add.at(n, leaf, 1.0)
        np.add.at(sums, leaf, latent.numpy())
        for node in range(len(parents) - 1, 0, -1):
            n[parents[node]] += n[node]
            sums[parents[node]] += sums[node]
        means, heights = sums / np.maximum(n, 1.0)[:, None], np.zeros(len(parents))
        for node in range(len(parents) - 1, -1, -1):
            below = [child for child in range(node + 1, len(parents)) if parents[child] == node]
            if below:
                apart = float(np.linalg.norm(means[below[0]] - means[below[1]]))
                heights[node] = max(apart, *heights[below])
        self.latent_tree_ = {"heights": heights, "n_cells": n.astype(np.int64), "codebook": means.astype(np.float32)}

    def _tree_probabilities(self, z: torch.Tensor) -> torch.Tensor:
        tree = self.module.tree  # type: ignore[attr-defined]
        return tree.log_shares(z)[tree.plan.shown].exp().T

    def _leaf_positions(self, z: torch.Tensor) -> torch.Tensor:
        module = self.module  # type: ignore[attr-defined]
        shown = module.tree.plan.shown
        place = torch.empty(len(module.tree.plan.slots), dtype=torch.long, device=shown.device)
        place[shown] = torch.arange(len(shown), device=shown.device)
        return place[module.likeliest(module.tree.log_shares(z))]

    def get_leaf_probabilities(
        self,
        adata: AnnData | None = None,
        indices: Rows = None,
        batch_size: int | None = None,
        dataloader: Iterator[dict[str, torch.Tensor]] | None = None,
    ) -> pd.DataFrame:
        """Probability of each leaf, by the routers that see the cell.

        Parameters
        ----------
        adata
            Cells with the model's genes; the training data by default.
        indices
            Rows of ``adata``: positions, names of cells, a slice or a mask; all by default.
        batch_size
            Cells at a time, 4,096 by default.
        dataloader
            Minibatches to use in place of ``adata``; rows are then numbered.

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
        held-out cells gain in bound once the new leaves were taught and before all was trained together, in nats per
        cell; ``n_leaves`` after it.
        """
        self._require_trained("growth")
        return pd.DataFrame(self.growth_ or [])  # type: ignore[attr-defined]

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
            return super().get_normalized_expression(*args, **kwargs)  # type: ignore[misc]
        finally:
            self._decoded_at = None

    def _get_transform_batch_gen_kwargs(self, batch: Any) -> dict[str, Any]:
        # the one place where scvi-tools lets a model say more to generative()
        told = super()._get_transform_batch_gen_kwargs(batch)  # type: ignore[misc]
        if self._decoded_at is None:
            return told
        return told | {"node": torch.tensor(self._decoded_at, device=self.module.device)}  # type: ignore[attr-defined]

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
        module = self.module  # type: ignore[attr-defined]
        plan = module.tree.plan
        slot = plan.slots[plan.shown[self._leaf_named(leaf)]].unsqueeze(0)
        values = module.decoder.loadings(slot)[0].cpu().numpy()
        columns = [f"latent_{i}" for i in range(values.shape[1])]
        return pd.DataFrame(values, index=list(self.get_var_names()), columns=columns)  # type: ignore[attr-defined]
