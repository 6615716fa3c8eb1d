"""How latents fall onto a tree: one head for each kind of tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import torch

from hdtree_sc._keys import ROOT
from hdtree_sc.tree import Tree, path_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hdtree_sc.diffusion import NoiseSchedule
    from hdtree_sc.module._branched import GaussianClasses
    from hdtree_sc.module._treevae import TreeVAEModule
    from hdtree_sc.nn import TreeCodebook
    from hdtree_sc.tree import ClassTree


class TreeHead(Protocol):
    """A tree, and where latents are on it."""

    @property
    def depth(self) -> int:
        """Number of levels of a path, of which a cell's may be fewer."""

    def nodes(self) -> Tree:
        """The tree; its ``codebook`` holds a latent for each node."""

    def leaf(self, z: torch.Tensor) -> torch.Tensor:
        """Position in the tree of the leaf of each latent (n, width), int (n,)."""

    def probabilities(self, z: torch.Tensor) -> torch.Tensor:
        """Probability of each node, (n, n_nodes) in tree order: 1 at the root, children sum to their parent."""


def heap_names(nodes: NDArray[np.integer]) -> list[str]:
    """Names of heap nodes: the child numbers from the root down, joined by dots."""
    # In binary, heap index + 1 is a one followed by the turns taken.
    return [".".join(bin(int(node) + 1)[3:]) or ROOT for node in nodes]


class CodebookHead:
    """Latents in a hierarchical codebook.

    Parameters
    ----------
    codebook
        The codebook.
    """

    def __init__(self, codebook: TreeCodebook) -> None:
        self.codebook = codebook

    @property
    def depth(self) -> int:
        """Number of levels that the codebook has room for."""
        return self.codebook.depth

    def _named_slots(self) -> tuple[NDArray[np.int64], list[str]]:
        """Heap slots of the active nodes, ascending, and their names."""
        slots = self.codebook.active.nonzero().squeeze(1).cpu().numpy()
        return slots, heap_names(slots)

    def nodes(self) -> Tree:
        """The tree, whose heights are the dissimilarity at which the children of a node part."""
        codebook = self.codebook
        slots, names = self._named_slots()
        parents = np.where(slots > 0, np.searchsorted(slots, (slots - 1) // 2), -1)
        return Tree(
            names,
            parents.tolist(),
            heights=codebook.heights[slots].double().cpu().numpy(),
            n_cells=codebook.counts[slots].round().long().cpu().numpy(),
            codebook=codebook.codes[slots].cpu().numpy(),
        )

    def _positions(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Heap slots of the active nodes, ascending, and their positions in the tree."""
        slots, names = self._named_slots()
        device = self.codebook.codes.device
        position = torch.from_numpy(self.nodes().index(names)).to(device)
        return torch.from_numpy(slots).to(device), position

    def leaf(self, z: torch.Tensor) -> torch.Tensor:
        """Position in the tree of each latent's leaf, int (n,)."""
        slots, position = self._positions()
        return position[torch.searchsorted(slots, self.codebook.assign(z))]

    def probabilities(self, z: torch.Tensor) -> torch.Tensor:
        """Probability of each node, (n, n_nodes) in tree order."""
        slots, position = self._positions()
        return self.codebook.node_probabilities(z)[:, slots[position.argsort()]]


class LatentTreeHead:
    """Embeddings in a tree of latents.

    Parameters
    ----------
    module
        The module that holds the tree.
    described
        What :meth:`description` gave for the training cells; None before training.
    """

    def __init__(self, module: TreeVAEModule, described: dict[str, Any] | None) -> None:
        self.module, self.described = module, described

    @property
    def depth(self) -> int:
        """Depth of the tree."""
        # a root alone has no path, but what is written of paths has a column
        return max(self.nodes().depth, 1)

    def nodes(self) -> Tree:
        """The tree, whose heights are distances of the mean embeddings of a node's children."""
        held = self.described
        assert held is not None
        parents = list(self.module.tree.plan.shown_parents)
        return Tree(
            path_names(parents), parents, heights=held["heights"], n_cells=held["n_cells"], codebook=held["codebook"]
        )

    def leaf(self, z: torch.Tensor) -> torch.Tensor:
        """Position in the tree of each embedding's likeliest leaf, int (n,)."""
        tree = self.module.tree
        shown = tree.plan.shown
        place = torch.empty(len(tree.plan.slots), dtype=torch.long, device=shown.device)
        place[shown] = torch.arange(len(shown), device=shown.device)
        return place[self.module.likeliest(tree.log_shares(z))]

    def probabilities(self, z: torch.Tensor) -> torch.Tensor:
        """Probability of each node by the routers, (n, n_nodes) in tree order."""
        tree = self.module.tree
        return tree.log_shares(z)[tree.plan.shown].exp().T

    def slot(self, node: int) -> torch.Tensor:
        """Slot of a node, by its position in the tree, in the stacks of the module."""
        plan = self.module.tree.plan
        return plan.slots[plan.shown[node]]

    def description(self, embeddings: NDArray[np.float32]) -> dict[str, Any]:
        """How many cells each node holds, where they lie, and how far apart a node's children are.

        Parameters
        ----------
        embeddings
            Embeddings of the training cells, (n, n_latent).
        """
        latent = torch.from_numpy(embeddings)
        parents = self.module.tree.plan.shown_parents
        n = np.zeros(len(parents))
        sums = np.zeros((len(parents), latent.shape[1]))
        leaf = torch.cat([self.leaf(part.to(self.module.device)).cpu() for part in latent.split(8192)]).numpy()
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
        return {"heights": heights, "n_cells": n.astype(np.int64), "codebook": means.astype(np.float32)}


class ClassHead:
    """Latents in a tree of classes, each at the class that it is most likely of.

    Parameters
    ----------
    classes
        The tree of the classes.
    gaussians
        Where the classes lie.
    schedule
        Noise schedule, whose times are the heights of the tree.
    """

    def __init__(self, classes: ClassTree, gaussians: GaussianClasses, schedule: NoiseSchedule) -> None:
        self.classes, self.gaussians, self.schedule = classes, gaussians, schedule

    @property
    def depth(self) -> int:
        """Depth of the tree."""
        return self.nodes().depth

    def nodes(self) -> Tree:
        """The tree, whose heights are times of the noise schedule at which the children of a node part."""
        tree = self.classes
        means, below = self.gaussians.means.double().cpu().numpy(), tree.below()
        held = np.array([tree.number_of(label) for label in tree.classes])
        size = np.array(tree.n_cells)[held]
        member = below[held].T * size
        codes = member @ means / np.maximum(member.sum(1), 1)[:, None]
        return tree.to_tree(self._times, codes)

    def _times(self, levels: NDArray[np.float64]) -> NDArray[np.float64]:
        times = self.schedule.time(torch.from_numpy(np.where(np.isfinite(levels), levels, 0.0))).numpy()
        return np.where(np.isfinite(levels), times, 0.0)

    def numbers(self) -> torch.Tensor:
        """Number of each node among the classes' own, in tree order."""
        names = self.classes.names()
        return torch.tensor([names.index(name) for name in self.nodes().nodes])

    def leaf(self, z: torch.Tensor) -> torch.Tensor:
        """Position in the tree of each latent's class, int (n,)."""
        tree = self.classes
        names = tree.names()
        places = self.nodes().index([names[tree.number_of(label)] for label in tree.classes])
        return torch.as_tensor(places).to(z.device)[self.gaussians(z).argmax(1)]

    def probabilities(self, z: torch.Tensor) -> torch.Tensor:
        """Probability of each node, (n, n_nodes) in tree order."""
        tree = self.classes
        member = torch.zeros(len(tree.classes), len(tree), device=z.device)
        below = torch.from_numpy(tree.below()).to(z.device)
        for i, label in enumerate(tree.classes):
            member[i] = below[tree.number_of(label)]
        out = self.gaussians(z) @ member
        out[:, 0] = 1.0
        return out[:, self.numbers().to(z.device)]

    def columns(self) -> pd.DataFrame:
        """Class, log signal-to-noise ratio of the branch point and bootstrap support of each node, in tree order."""
        tree = self.classes
        heights = tree.heights()
        columns = {
            "label": np.array(tree.labels, dtype=object),
            "log_snr": np.where(np.isfinite(heights), -heights, np.nan),
            "support": np.array(tree.support),
        }
        return pd.DataFrame(columns, index=tree.names()).loc[list(self.nodes().nodes)]

    def branch_points(self) -> pd.DataFrame:
        """Nodes at which classes part, the first to part from noise on first."""
        shape, columns = self.nodes(), self.columns()
        rows = []
        for node in shape.nodes:
            children = shape.children(node)
            if len(children) < 2:
                continue
            sides = [", ".join(columns.loc[list(shape.subtree_leaves(child)), "label"]) for child in children]
            rows.append(
                {
                    "node": node,
                    "parent": shape.parent(node) or "",
                    "children": ",".join(children),
                    "classes": " | ".join(sides),
                    "time": float(shape.heights[shape.index(node)]),
                    "log_snr": float(columns.loc[node, "log_snr"]),
                    "n_cells": int(shape.n_cells[shape.index(node)]),
                    "support": float(columns.loc[node, "support"]),
                }
            )
        names = ["node", "parent", "children", "classes", "time", "log_snr", "n_cells", "support"]
        return pd.DataFrame(rows, columns=names).set_index("node").sort_values("time", ascending=False, kind="stable")
