"""A model's tree that is a tree of latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hdtree_sc._keys import ROOT
from hdtree_sc.model._tree_mixin import TreeMixin
from hdtree_sc.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from anndata import AnnData

    from hdtree_sc.model._tree_mixin import Rows


def path_names(parents: list[int] | tuple[int, ...]) -> list[str]:
    """Names of nodes by their paths: child numbers joined by dots. Parents come before children."""
    names: list[str] = []
    n_children = [0] * len(parents)
    for above in parents:
        if above < 0:
            names.append(ROOT)
            continue
        stem = "" if names[above] == ROOT else f"{names[above]}."
        names.append(f"{stem}{n_children[above]}")
        n_children[above] += 1
    return names


class LatentTreeMixin(TreeMixin):
    """Where embeddings are in a :class:`~hdtree_sc.nn.LatentTree`."""

    latent_tree_: dict[str, Any] | None = None

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
            Rows of ``adata``; all by default.
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
