"""A tree over named classes whose heights are noise levels: found from where each pair of classes mixes, or given."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hdtree_sc._errors import listing
from hdtree_sc.tree._branch_points import node_heights
from hdtree_sc.tree._names import path_names
from hdtree_sc.tree._tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

Linkage = Literal["complete", "average", "single"]
LINKAGES = ("complete", "average", "single")

SLIVER = 0.25
"""Branch points of parent and child that are nearer than this become one, with more than two children."""


@dataclass(frozen=True)
class ClassTree:
    """Classes at the leaves of a tree of noise levels.

    Nodes are numbered in pre-order at first. Classes that are added later are numbered behind all others, so that no
    number ever changes.

    Parameters
    ----------
    parents
        Number of each node's parent, -1 of the root.
    labels
        Class of each leaf; empty for inner nodes.
    levels
        Noise level ``-log SNR`` at which the children of a node part; minus infinity at leaves.
    opens
        Noise level below which a class that was added later goes its own way; NaN of other nodes.
    n_cells
        Training cells of each node.
    support
        Share of bootstrap replicates that have the node; NaN where that was not asked.
    """

    parents: tuple[int, ...]
    labels: tuple[str, ...]
    levels: tuple[float, ...]
    opens: tuple[float, ...]
    n_cells: tuple[int, ...]
    support: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.parents)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, as a file keeps them."""
        return {name: list(values) for name, values in asdict(self).items()}

    @classmethod
    def from_dict(cls, held: dict[str, Any]) -> ClassTree:
        """From what :meth:`to_dict` gave."""
        return cls(**{name: tuple(values) for name, values in held.items()})

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their numbers."""
        return [label for label in self.labels if label]

    def number_of(self, label: str) -> int:
        """Number of a class."""
        return self.labels.index(label)

    def below(self) -> NDArray[np.bool_]:
        """Whether a node (column) is on the way to another (row), itself included, (n, n)."""
        out = np.eye(len(self), dtype=bool)
        for node, parent in enumerate(self.parents):  # a parent has the smaller number
            if parent >= 0:
                out[node] |= out[parent]
        return out

    def names(self) -> list[str]:
        """Name of each node: child numbers from the root down, joined by dots."""
        return path_names(self.parents)

    def to_tree(self, times: Callable[[NDArray[np.float64]], NDArray[np.float64]], codes: NDArray[np.floating]) -> Tree:
        """As a tree whose heights are times of the noise schedule in [0, 1].

        Parameters
        ----------
        times
            From noise levels to times.
        codes
            A point for each node, (n, d), by number.
        """
        return Tree(self.names(), self.parents, heights=times(self.heights()), n_cells=self.n_cells, codebook=codes)

    def heights(self) -> NDArray[np.float64]:
        """Noise level at which each node's children part, classes that were added included, (n,)."""
        out = np.array(self.levels, dtype=float)
        for node, level in enumerate(self.opens):
            if np.isfinite(level):
                parent = self.parents[node]
                while parent >= 0 and out[parent] < level:
                    out[parent] = level
                    parent = self.parents[parent]
        return out

    def attach(self, label: str, levels: NDArray[np.float64], n_cells: int, *, node: int | None = None) -> ClassTree:
        """Put one more class where the data say, or the user.

        Below the lowest inner node that it is mixed with at the node's own branch point: at that noise the new class is
        one with all that is there, so that the way down to it is right for the new class too.

        Parameters
        ----------
        label
            The class.
        levels
            Noise level at which it is mixed with each class, in the order of `classes`.
        n_cells
            Its cells.
        node
            Number of the inner node below which it goes, by default the data's choice.
        """
        below, numbers = self.below(), np.array([self.number_of(name) for name in self.classes])
        last = np.array([levels[below[numbers, i]].max() for i in range(len(self))])
        inner = [i for i in range(len(self)) if not self.labels[i]]
        if node is None:
            held = [i for i in inner if last[i] <= self.levels[i]]
            node = min(held, key=lambda i: (self.levels[i], -i)) if held else 0
        n = np.array(self.n_cells)
        n[below[node]] += n_cells
        return replace(
            self,
            parents=(*self.parents, node),
            labels=(*self.labels, label),
            levels=(*self.levels, -np.inf),
            opens=(*self.opens, float(last[node])),
            n_cells=(*n.tolist(), n_cells),
            support=(*self.support, np.nan),
        )


def found_tree(
    levels: NDArray[np.float64], labels: Sequence[str], n_cells: Sequence[int], *, method: Linkage = "complete"
) -> ClassTree:
    """Cluster classes by the noise levels at which pairs of them mix.

    Complete linkage is the right guard: above the height of a node all its classes must be one, or a path begun there
    could belong to another class (arXiv 2212.10777 has single linkage).

    Parameters
    ----------
    levels
        Noise level that mixes each pair, symmetric (n, n), finite off the diagonal.
    labels
        Names of the classes.
    n_cells
        Cells of each class.
    method
        Linkage.
    """
    from scipy.cluster.hierarchy import linkage  # slow to import
    from scipy.spatial.distance import squareform

    n = len(labels)
    floor = levels[~np.eye(n, dtype=bool)].min()
    apart = levels - floor
    np.fill_diagonal(apart, 0.0)
    merges = linkage(squareform(apart, checks=False), method)
    heights = np.concatenate([np.full(n, -np.inf), merges[:, 2] + floor])
    size = np.concatenate([np.asarray(n_cells), np.zeros(n - 1, dtype=int)])
    for row in range(n - 1):
        size[n + row] = size[merges[row, :2].astype(int)].sum()
    parents: list[int] = []
    at: list[int] = []

    def descend(node: int, parent: int) -> None:
        own = len(at)
        if node < n or parent < 0 or heights[at[parent]] - heights[node] >= SLIVER:
            parents.append(parent)
            at.append(node)
        else:
            own = parent  # a sliver of a branch: its children are its parent's
        if node >= n:
            for child in sorted(merges[node - n, :2].astype(int), key=lambda i: -size[i]):
                descend(int(child), own)

    descend(2 * n - 2, -1)
    return ClassTree(
        tuple(parents),
        tuple(labels[i] if i < n else "" for i in at),
        tuple(float(heights[i]) for i in at),
        (np.nan,) * len(at),
        tuple(int(size[i]) for i in at),
        (np.nan,) * len(at),
    )


def given_tree(tree: Tree, levels: NDArray[np.float64], labels: Sequence[str], n_cells: Sequence[int]) -> ClassTree:
    """Keep the topology of a tree and give it heights.

    Parameters
    ----------
    tree
        Tree whose leaves are the classes.
    levels, labels, n_cells
        See :func:`found_tree`.

    Raises
    ------
    ValueError
        If the leaves are not the classes.
    """
    if set(tree.leaves) != set(labels):
        lost, extra = sorted(set(labels) - set(tree.leaves)), sorted(set(tree.leaves) - set(labels))
        msg = f"tree: its leaves must be the labels. Missing: {listing(lost) or 'none'}. Unknown: {listing(extra)}."
        raise ValueError(msg)
    order = [list(labels).index(leaf) for leaf in tree.leaves]
    heights = node_heights(tree, levels[np.ix_(order, order)])
    size = np.zeros(len(tree), dtype=int)
    size[tree.is_leaf_mask] = np.asarray(n_cells)[order]
    for node in range(len(tree) - 1, 0, -1):
        size[tree.parents[node]] += size[node]
    n = len(tree)
    # a node with one child parts nothing and is as high as what is below it
    return ClassTree(
        tuple(tree.parents.tolist()),
        tuple(name if leaf else "" for name, leaf in zip(tree.nodes, tree.is_leaf_mask, strict=True)),
        tuple(heights.tolist()),
        (np.nan,) * n,
        tuple(size.tolist()),
        (np.nan,) * n,
    )


def clades(tree: ClassTree) -> list[frozenset[str]]:
    """Classes below each node."""
    below = tree.below()
    return [
        frozenset(label for i, label in enumerate(tree.labels) if label and below[i, node]) for node in range(len(tree))
    ]


def with_support(tree: ClassTree, replicates: Sequence[ClassTree]) -> ClassTree:
    """Say of each inner node in which share of the replicates its classes are one clade."""
    held = [set(clades(replicate)) for replicate in replicates]
    own = clades(tree)
    share = [
        np.nan if tree.labels[i] else float(np.mean([own[i] in found for found in held])) for i in range(len(tree))
    ]
    return replace(tree, support=tuple(share))
