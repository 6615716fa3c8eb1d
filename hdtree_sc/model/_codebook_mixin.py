"""A model's tree that is a hierarchical codebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hdtree_sc._keys import ROOT
from hdtree_sc.model._tree_mixin import TreeMixin
from hdtree_sc.tree import Tree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hdtree_sc.nn import TreeCodebook


def heap_names(nodes: NDArray[np.integer]) -> list[str]:
    """Names of heap nodes: the child numbers from the root down, joined by dots."""
    # In binary, heap index + 1 is a one followed by the turns taken.
    return [".".join(bin(int(node) + 1)[3:]) or ROOT for node in nodes]


class CodebookMixin(TreeMixin):
    """Where latents are in a :class:`~hdtree_sc.nn.TreeCodebook`."""

    @property
    def _codebook(self) -> TreeCodebook:
        return self.module.codebook  # type: ignore[attr-defined]

    def _named_slots(self) -> tuple[NDArray[np.int64], list[str]]:
        """Heap slots of the active nodes, ascending, and their names."""
        slots = self._codebook.active.nonzero().squeeze(1).cpu().numpy()
        return slots, heap_names(slots)

    def get_tree(self) -> Tree:
        """The tree, with the number of training cells of each node.

        Returns
        -------
        :class:`hdtree_sc.Tree`; its ``codebook`` holds the nodes' latents, its heights the dissimilarity at which the
        children of a node part.
        """
        self._require_trained("get_tree")
        codebook = self._codebook
        slots, names = self._named_slots()
        parents = np.where(slots > 0, np.searchsorted(slots, (slots - 1) // 2), -1)
        return Tree(
            names,
            parents.tolist(),
            heights=codebook.heights[slots].double().cpu().numpy(),
            n_cells=codebook.counts[slots].round().long().cpu().numpy(),
            codebook=codebook.codes[slots].cpu().numpy(),
        )

    @property
    def _path_depth(self) -> int:
        return self._codebook.depth

    def _tree_positions(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Heap slots of the active nodes, ascending, and their positions in the tree."""
        slots, names = self._named_slots()
        device = self._codebook.codes.device
        position = torch.from_numpy(self.get_tree().index(names)).to(device)
        return torch.from_numpy(slots).to(device), position

    def _leaf_positions(self, z: torch.Tensor) -> torch.Tensor:
        slots, position = self._tree_positions()
        return position[torch.searchsorted(slots, self._codebook.assign(z))]

    def _tree_probabilities(self, z: torch.Tensor) -> torch.Tensor:
        slots, position = self._tree_positions()
        return self._codebook.node_probabilities(z)[:, slots[position.argsort()]]
