"""Which splits of the tree held-out cells support."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hdtree_sc.graph import MIN_AGREEMENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hdtree_sc.nn import TreeCodebook


@torch.no_grad()
def prune_unsupported(
    codebook: TreeCodebook,
    train: torch.Tensor,
    held_out: torch.Tensor,
    neighbors: NDArray[np.integer],
) -> None:
    """Drop the splits that held-out cells do not bear out.

    A held-out cell, which trained nothing, falls on one side of a split by its latent. If the split is real, then the
    training cells that are nearest to it in expression are on that side as well, more often than by chance. What the
    splits below a node agree beyond chance, less their price, is summed bottom-up; a node whose sum is not positive
    becomes a leaf (cost-complexity pruning on held-out evidence).

    Parameters
    ----------
    codebook
        Codebook with its tree; changed in place.
    train
        Latents of the training cells, (n, d).
    held_out
        Latents of cells that were not trained on, (m, d).
    neighbors
        Nearest training cells of each of them in expression, (m, k).
    """
    leaf = codebook.assign(train)
    theirs = codebook.paths(leaf)[torch.from_numpy(neighbors.astype(np.int64)).to(train.device)]
    own = codebook.paths(codebook.assign(held_out))
    gain = torch.zeros_like(codebook.counts)
    for level in range(own.shape[1]):
        side = own[:, level]
        here = side >= 0
        side, beside = side[here], theirs[here, :, level]
        parent = (side - 1) // 2
        under = (beside >= 0) & ((beside - 1) // 2 == parent.unsqueeze(1))
        asked = under.any(1)
        side, parent, under, beside = side[asked], parent[asked], under[asked], beside[asked]
        agree = ((beside == side.unsqueeze(1)) & under).sum(1) / under.sum(1)
        chance = codebook.counts[side] / codebook.counts[parent].clamp_min(1e-6)
        # the part of the way from chance to certainty, cells on the smaller side weighing more, as in Cohen's kappa
        gain.index_add_(0, parent, (agree - chance) - MIN_AGREEMENT * (1.0 - chance))
    for node in range(codebook.n_inner - 1, -1, -1):
        left, right = 2 * node + 1, 2 * node + 2
        if not codebook.active[left]:
            gain[node] = 0.0
            continue
        total = gain[node] + gain[left].clamp_min(0.0) + gain[right].clamp_min(0.0)
        if total <= 0:
            codebook.active &= ~codebook.subtree(node)
            codebook.active[node] = True
            codebook.heights[node] = 0.0
            total = torch.zeros_like(total)
        gain[node] = total
    codebook.set_leaves(train, codebook.assign(train))
