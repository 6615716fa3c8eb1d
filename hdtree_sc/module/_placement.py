"""Where cells are on a model's tree, in one pass over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hdtree_sc.module._cell_module import CellModule
    from hdtree_sc.module._tree_heads import TreeHead
    from hdtree_sc.tree import Tree


@dataclass(frozen=True)
class Placement:
    """Where cells are on a model's tree.

    Parameters
    ----------
    latent
        Latents, float32 (n, n_latent).
    map_2d
        Map for plots, float32 (n, 2).
    expression_pca
        Principal components of the expression, float32 (n, n_pcs), in which neighbours are searched.
    standardised_pca
        Those of standardised expression, float32 (n, n_pcs), in which distances are measured.
    leaf
        Position of each cell's leaf in ``get_tree().nodes``, (n,).
    path_probabilities
        Probability of the chosen node at each level, float32 (n, depth); 0 below the leaf.
    unplaced_p
        p-value of each cell being of the kinds in training, float32 (n,), or None of a model without calibration.
    time
        Time predicted from each latent, float32 (n,), or None for a model that was set up without ``time_key``.
    """

    latent: NDArray[np.float32]
    map_2d: NDArray[np.float32]
    expression_pca: NDArray[np.float32]
    standardised_pca: NDArray[np.float32]
    leaf: NDArray[np.int64]
    path_probabilities: NDArray[np.float32]
    unplaced_p: NDArray[np.float32] | None = None
    time: NDArray[np.float32] | None = None


class Placing:
    """Places cells a minibatch at a time.

    Parameters
    ----------
    module
        The module.
    head
        Its tree.
    """

    def __init__(self, module: CellModule, head: TreeHead) -> None:
        self.module, self.head = module, head
        self.paths = torch.from_numpy(paths_of(head.nodes(), head.depth)).to(module.device)

    def read(self, tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """What :meth:`placement` needs of a minibatch."""
        module, head = self.module, self.head
        z = module.latents(tensors)
        leaf = head.leaf(z)
        passed = self.paths[leaf]
        chosen = head.probabilities(z).gather(1, passed.clamp_min(0)) * (passed >= 0)
        scaled = module.scaled(tensors)
        components, (values, standardised) = module.components(scaled), module.standardised(scaled)
        own = module.unplaced.own(tensors[REGISTRY_KEYS.X_KEY], values, standardised)
        return z, module.map_head(z), components, standardised, leaf, chosen, module.predicted_time(z), own

    def placement(self, parts: Sequence[NDArray[Any]]) -> Placement:
        """The placement, from what :meth:`read` gave of all cells."""
        latent, flat, components, standardised, leaf, on_path, time, own = parts
        score = self.module.unplaced
        p_value = None
        if score.fitted:
            device = score.landmarks.device
            values = (torch.from_numpy(part).to(device) for part in (own, standardised))
            p_value = score.p_values(*values).cpu().numpy()
        known_time = None if self.module.time_head is None else time
        return Placement(latent, flat, components, standardised, leaf, on_path, p_value, known_time)


def paths_of(tree: Tree, depth: int) -> NDArray[np.int64]:
    """Nodes on the path to each node, (n_nodes, depth) in tree positions; -1 below it."""
    out = np.full((len(tree), depth), -1)
    for level in range(1, depth + 1):
        if level <= tree.depth:
            out[:, level - 1] = tree.ancestors_at(level)
    return out
