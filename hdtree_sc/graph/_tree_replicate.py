"""A tree built on resampled cells, by the procedure that a model builds its tree with, without training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin

from hdtree_sc.graph._agglomerate import heap_layout, information_linkage, link_counts, link_linkage, ward_linkage
from hdtree_sc.graph._neighbors import nearest_neighbors
from hdtree_sc.graph._prune import MIN_AGREEMENT, prune
from hdtree_sc.tree import Tree, subtree_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUILDERS = ("information", "links", "ward")
"""Procedures that need latents only."""
K = 15
"""Neighbours of each cell over which links are counted."""


@dataclass(frozen=True)
class Procedure:
    """How a model builds its tree.

    Parameters
    ----------
    builder
        One of `BUILDERS`.
    max_leaves
        Largest number of leaves.
    min_cells
        Smallest number of cells of a leaf.
    depth
        Largest number of levels below the root.
    """

    builder: str
    max_leaves: int
    min_cells: int
    depth: int


@dataclass(frozen=True)
class Sample:
    """Cells that were drawn, and others that test the splits made on them.

    Parameters
    ----------
    rows
        Rows of the cells that were drawn, each once, (r,).
    weight
        How often each was drawn, (r,).
    held_out
        Rows of the cells that test the splits, (h,); with repeats if they were drawn so. None keeps all splits.
    """

    rows: NDArray[np.int64]
    weight: NDArray[np.float64]
    held_out: NDArray[np.int64] | None


@dataclass(frozen=True)
class Replicate:
    """A tree and the position in it of the leaf of every cell, (n,)."""

    tree: Tree
    leaf: NDArray[np.int64]


def rebuild(
    latent: NDArray[np.floating],
    expression: NDArray[np.floating] | None,
    sample: Sample,
    procedure: Procedure,
    *,
    seed: int,
) -> Replicate:
    """Build a tree on some cells and place all cells on it.

    Micro-codes by k-means, merged bottom-up, each cell at the nearest leaf, and the splits dropped that held-out
    cells do not bear out: what :meth:`hdtree_sc.HDTree.build_tree` does, with a weight for each cell.

    Parameters
    ----------
    latent
        Latents of all cells, (n, d).
    expression
        Expression components of all cells, (n, p); None keeps all splits.
    sample
        The cells to build on.
    procedure
        How.
    seed
        Seed of k-means and of the approximate neighbour search.
    """
    z, weight = np.asarray(latent[sample.rows], dtype=np.float32), sample.weight
    n_codes = min(procedure.max_leaves, max(int(weight.sum()) // 10, 2), len(z))
    found = KMeans(n_codes, n_init=1, max_iter=50, random_state=seed).fit(z, sample_weight=weight).labels_
    group = np.unique(found, return_inverse=True)[1]
    slot = _leaf_slots(z, group, weight, procedure, seed=seed)
    tree = _tree_of(np.unique(slot))
    leaf = tree.index([str(one) for one in slot.tolist()])
    # as when a model is trained: cells go to the nearest leaf, and leaves are the means of the cells that do
    codes = _codes(tree, z, weight, leaf)
    leaf = _nearest_leaf(tree, codes, z)
    if expression is not None and sample.held_out is not None and len(sample.held_out):
        near, _ = nearest_neighbors(expression[sample.rows], K, queries=expression[sample.held_out], seed=seed)
        own = _nearest_leaf(tree, _codes(tree, z, weight, leaf), np.asarray(latent[sample.held_out], np.float32))
        smaller = prune(tree, _gains(tree, leaf, weight, own, near))
        leaf = smaller.index(smaller.project([tree.nodes[i] for i in leaf], tree))
        tree = smaller
        leaf = _nearest_leaf(tree, _codes(tree, z, weight, leaf), z)
    return Replicate(tree, _nearest_leaf(tree, _codes(tree, z, weight, leaf), np.asarray(latent, np.float32)))


def _leaf_slots(
    z: NDArray[np.float32],
    group: NDArray[np.int64],
    weight: NDArray[np.float64],
    procedure: Procedure,
    *,
    seed: int,
) -> NDArray[np.int64]:
    """Leaf of each cell as a position in a binary heap, (n,)."""
    neighbors, _ = nearest_neighbors(z, K, seed=seed)
    if procedure.builder == "information":
        sizes = np.bincount(group, weights=weight)
        links = link_counts(neighbors, group, len(sizes), weight)
        part, linkage = information_linkage(links, _means(z, weight, group), sizes, least=procedure.min_cells)
        group = part[group]
    else:
        group = _without_small(z, group, weight, procedure.min_cells)
        sizes, centres = np.bincount(group, weights=weight), _means(z, weight, group)
        if procedure.builder == "ward":
            linkage = ward_linkage(centres, sizes)
        else:
            linkage = link_linkage(link_counts(neighbors, group, len(sizes), weight), centres)
    leaf, _ = heap_layout(linkage, procedure.depth, np.bincount(group, weights=weight))
    return leaf[group]


def _without_small(
    z: NDArray[np.float32], group: NDArray[np.int64], weight: NDArray[np.float64], min_cells: int
) -> NDArray[np.int64]:
    """Groups renumbered, the cells of those that are too small being in the nearest that is not."""
    sizes = np.bincount(group, weights=weight)
    kept = np.flatnonzero(sizes >= min(min_cells, sizes.max()))
    number = np.full(len(sizes), -1)
    number[kept] = np.arange(len(kept))
    out = number[group]
    if (lost := out < 0).any():
        out[lost] = pairwise_distances_argmin(z[lost], _means(z, weight, group)[kept].astype(np.float32))
    return out


def _tree_of(slots: NDArray[np.int64]) -> Tree:
    """The tree whose leaves are at some positions of a binary heap; nodes are named by their position."""
    held = set(slots.tolist())
    for slot in slots.tolist():
        while slot > 0 and (slot := (slot - 1) // 2) not in held:
            held.add(slot)
    order = sorted(held | {0})
    place = {slot: i for i, slot in enumerate(order)}
    return Tree([str(slot) for slot in order], [place[(slot - 1) // 2] if slot else -1 for slot in order])


def _means(
    z: NDArray[np.floating], weight: NDArray[np.float64], group: NDArray[np.integer], n_groups: int = 0
) -> NDArray[np.float64]:
    sums = np.stack([np.bincount(group, weights=weight * column, minlength=n_groups) for column in z.T], 1)
    size = np.bincount(group, weights=weight, minlength=n_groups)
    # a leaf that no cell is nearest to is nowhere
    return np.divide(sums, size[:, None], out=np.full_like(sums, np.inf), where=size[:, None] > 0)


def _codes(
    tree: Tree, z: NDArray[np.float32], weight: NDArray[np.float64], leaf: NDArray[np.int64]
) -> NDArray[np.float64]:
    return _means(z, weight, leaf, len(tree))


def _nearest_leaf(tree: Tree, codes: NDArray[np.float64], z: NDArray[np.float32]) -> NDArray[np.int64]:
    leaves = np.flatnonzero(tree.is_leaf_mask & np.isfinite(codes[:, 0]))
    return leaves[pairwise_distances_argmin(z, codes[leaves].astype(np.float32))]


def _gains(
    tree: Tree,
    leaf: NDArray[np.int64],
    weight: NDArray[np.float64],
    own: NDArray[np.int64],
    neighbors: NDArray[np.integer],
) -> NDArray[np.float64]:
    """What each split agrees beyond chance with held-out cells, less its price, (n_nodes,).

    Parameters
    ----------
    tree
        The tree.
    leaf
        Leaf of each cell that it was built on, (r,).
    weight
        Weight of each, (r,).
    own
        Leaf of each held-out cell, (h,).
    neighbors
        The cells nearest to each of them in expression, (h, k).
    """
    counts = subtree_sums(tree, np.bincount(leaf, weights=weight, minlength=len(tree)))
    gains = np.zeros(len(tree))
    for level in range(1, tree.depth + 1):
        above = tree.ancestors_at(level)
        side, beside = above[own], above[leaf][neighbors]
        parent = np.where(side >= 0, tree.parents[side], -1)
        under = (beside >= 0) & (tree.parents[beside] == parent[:, None])
        asked = (side >= 0) & under.any(1)
        agree = ((beside == side[:, None]) & under)[asked].sum(1) / under[asked].sum(1)
        chance = counts[side[asked]] / np.maximum(counts[parent[asked]], 1e-6)
        np.add.at(gains, parent[asked], (agree - chance) - MIN_AGREEMENT * (1.0 - chance))
    return gains


def clade_overlap(a: Replicate, b: Replicate) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Cells that each node of one tree shares with each of another, (n_a, n_b), and the cells of each, (n_a,), (n_b,).

    Parameters
    ----------
    a, b
        Trees of the same cells.
    """
    flat = np.bincount(a.leaf * len(b.tree) + b.leaf, minlength=len(a.tree) * len(b.tree))
    table = subtree_sums(a.tree, flat.reshape(len(a.tree), len(b.tree)))
    shared = subtree_sums(b.tree, table.T).T
    return shared, shared[:, 0], shared[0]
