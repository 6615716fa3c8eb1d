"""The tree that a model ends up with, from the latents of its training cells."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from sklearn.cluster import KMeans

from hdtree_sc.graph import (
    Linkage,
    group_means,
    heap_layout,
    information_linkage,
    link_counts,
    link_linkage,
    nearest_neighbors,
    spread_rows,
    ward_linkage,
)
from hdtree_sc.growth._split_support import prune_unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hdtree_sc.nn import TreeCodebook

TreeBuilder = Literal["information", "codebook", "links", "ward", "bisecting"]
BUILDERS: tuple[str, ...] = ("information", "codebook", "links", "ward", "bisecting")

LINK_CELLS = 20_000
"""Links between groups are counted on at most this many cells."""
SETTLING_STEPS = 50
"""Most steps in which codes follow the cells that are nearest to them, at the end of the training."""


def build_tree(
    codebook: TreeCodebook,
    latent: NDArray[np.float32],
    *,
    builder: TreeBuilder,
    max_leaves: int,
    min_cells: int,
    held_out: tuple[NDArray[np.float32], NDArray[np.integer]] | None = None,
    n_neighbors: int = 15,
    seed: int = 0,
) -> None:
    """Write the final tree into the codebook.

    ``"codebook"`` and ``"bisecting"`` keep the tree that the codebook holds. The others settle micro-codes by k-means
    over all cells and merge them bottom-up, since a wrong cut near the root cannot be undone below: of the codes that
    training learned nothing is left then.

    Parameters
    ----------
    codebook
        Codebook to write into; started here if training never reached it.
    latent
        Latents of the training cells, (n, d).
    builder
        ``"information"``: least loss of information on where walks over neighbour links end. ``"links"``: average
        linkage on observed over expected nearest-neighbour links. ``"ward"``: size-weighted Ward.
        ``"codebook"``: the tree that the codebook holds, structured in training by :func:`structure_codebook`.
        ``"bisecting"``: the codebook's own, top-down.
    max_leaves
        Largest number of leaves.
    min_cells
        Smallest number of training cells of a leaf.
    held_out
        Latents (m, d) of cells that were not trained on, and for each the rows (m, k) in ``latent`` of its nearest
        training cells in expression; splits that these do not support are dropped. None keeps all.
    n_neighbors
        Number of neighbours that links are counted over.
    seed
        Seed of the approximate neighbour search and of k-means.
    """
    z = _on_device(codebook, latent)
    rows = spread_rows(len(latent), LINK_CELLS)
    neighbors, _ = nearest_neighbors(latent[rows], n_neighbors, seed=seed)
    if builder == "bisecting":
        started = bool(codebook.initialised) and bool(codebook.greedy)
        if not started or int(codebook.is_leaf().sum()) > max_leaves:
            generator = torch.Generator().manual_seed(seed)
            codebook.initialise(z, max_leaves=max_leaves, min_cells=min_cells, generator=generator)
        _keep_own_tree(codebook, z, min_cells)
        _calibrate(codebook, z[rows], neighbors)
        return
    if builder != "codebook" or not bool(codebook.initialised) or bool(codebook.greedy):
        method = "information" if builder == "codebook" else builder
        _agglomerate(
            codebook, z, neighbors, rows, builder=method, max_leaves=max_leaves, min_cells=min_cells, seed=seed
        )
    prune = None
    if held_out is not None:
        prune = partial(prune_unsupported, codebook, z, _on_device(codebook, held_out[0]), held_out[1])
    if builder == "codebook":
        _finish_codes(codebook, z, prune, max_leaves=max_leaves, min_cells=min_cells)
    elif prune is not None:
        prune()
    _calibrate(codebook, z[rows], neighbors)


def structure_codebook(
    codebook: TreeCodebook,
    latent: NDArray[np.float32],
    *,
    max_leaves: int,
    min_cells: int,
    n_neighbors: int = 15,
    seed: int = 0,
) -> None:
    """Give a codebook in training the tree and the codes of its latents as they are now: micro-codes, agglomerated.

    Parameters
    ----------
    codebook, max_leaves, min_cells, n_neighbors, seed
        See :func:`build_tree`.
    latent
        Latents of training cells, (n, d).
    """
    rows = spread_rows(len(latent), LINK_CELLS)
    neighbors, _ = nearest_neighbors(latent[rows], n_neighbors, seed=seed)
    options = {"max_leaves": max_leaves, "min_cells": min_cells, "seed": seed}
    _agglomerate(codebook, _on_device(codebook, latent), neighbors, rows, builder="information", **options)


def _on_device(codebook: TreeCodebook, latent: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(latent, dtype=np.float32)).to(codebook.codes.device)


def _agglomerate(
    codebook: TreeCodebook,
    z: torch.Tensor,
    neighbors: NDArray[np.integer],
    rows: NDArray[np.integer],
    *,
    builder: TreeBuilder,
    max_leaves: int,
    min_cells: int,
    seed: int,
) -> None:
    """Settle micro-codes by k-means, merge them bottom-up and write the tree."""
    latent = z.cpu().numpy()
    # started afresh: from the bisection's codes the micro-codes keep its cuts, and seeds differ more
    n_codes = min(max_leaves, max(len(latent) // 10, 2), len(latent))
    found = KMeans(n_codes, n_init=1, max_iter=50, random_state=seed).fit(latent).labels_
    # of cells that are alike, k-means leaves groups empty
    group = np.unique(found, return_inverse=True)[1]
    linkage, group = _merge(latent, group, neighbors, rows, builder=builder, min_cells=min_cells)
    leaf, heights = heap_layout(linkage, codebook.depth, np.bincount(group))
    _write(codebook, z, torch.from_numpy(leaf[group]).to(z.device), heights)


def _finish_codes(
    codebook: TreeCodebook, z: torch.Tensor, prune: Callable[[], None] | None, *, max_leaves: int, min_cells: int
) -> None:
    """Drop leaves and let the others' codes be the means of their cells until nothing changes.

    The same tree then comes out when it is built another time.
    """
    n_leaves = 0
    while int(codebook.is_leaf().sum()) != n_leaves:
        n_leaves = int(codebook.is_leaf().sum())
        _drop_small_leaves(codebook, z, max_leaves=max_leaves, min_cells=min_cells)
        leaf = codebook.assign(z)
        for _ in range(SETTLING_STEPS):
            codebook.set_leaves(z, leaf)
            before, leaf = leaf, codebook.assign(z)
            if bool((leaf == before).all()):
                break
        if prune is not None:
            prune()


def _drop_small_leaves(codebook: TreeCodebook, z: torch.Tensor, *, max_leaves: int, min_cells: int) -> None:
    """Drop the smallest leaf, whose cells then go to the nearest of the others, until all are large and few enough."""
    while True:
        codebook.set_leaves(z, codebook.assign(z))
        leaves = codebook.is_leaf().nonzero().squeeze(1)
        smallest = leaves[codebook.counts[leaves].argmin()]
        if len(leaves) < 2 or (codebook.counts[smallest] >= min_cells and len(leaves) <= max_leaves):
            return
        codebook.drop(int(smallest))


def _merge(
    latent: NDArray[np.float32],
    group: NDArray[np.integer],
    neighbors: NDArray[np.integer],
    rows: NDArray[np.integer],
    *,
    builder: TreeBuilder,
    min_cells: int,
) -> tuple[Linkage, NDArray[np.int64]]:
    """Linkage of micro-codes, and the one that each cell is in once those that are too small have gone."""
    if builder == "information":
        links = link_counts(neighbors, group[rows], int(group.max()) + 1)
        part, linkage = information_linkage(links, group_means(latent, group), np.bincount(group), least=min_cells)
        return linkage, part[group]
    group = _drop_small(latent, group, min_cells)
    sizes, centroids = np.bincount(group), group_means(latent, group)
    if builder == "ward":
        return ward_linkage(centroids, sizes), group
    return link_linkage(link_counts(neighbors, group[rows], len(sizes)), centroids), group


@torch.no_grad()
def _calibrate(codebook: TreeCodebook, z: torch.Tensor, neighbors: NDArray[np.integer]) -> None:
    """Set the width of the soft assignment so that it predicts best in which leaf a cell's neighbours are.

    The scatter within leaves alone gives probabilities of nearly one everywhere: most of a latent's dimensions hold
    none of it. The likelihood of the neighbours' leaves is what a membership should answer for.

    Parameters
    ----------
    codebook
        Codebook with its final tree.
    z
        Latents, (n, d).
    neighbors
        Nearest neighbours of each, (n, k).
    """
    leaves = codebook.is_leaf().nonzero().squeeze(1)
    squared = torch.cdist(z, codebook.codes[leaves]).square()
    own = torch.searchsorted(leaves, codebook.assign(z))
    theirs = own[torch.from_numpy(neighbors.astype(np.int64)).to(z.device)]
    scatter = squared.gather(1, own.unsqueeze(1)).mean().clamp_min(1e-8)
    widths = scatter * torch.logspace(-2, 1, 31, device=z.device)
    neg_log_likelihood = [
        -torch.log_softmax(-squared / (2.0 * width), dim=1).gather(1, theirs).mean().item() for width in widths
    ]
    codebook.variance.copy_(widths[int(np.argmin(neg_log_likelihood))])


def _drop_small(latent: NDArray[np.float32], group: NDArray[np.integer], min_cells: int) -> NDArray[np.int64]:
    """Hand the cells of groups that are too small to the nearest group that is not, and renumber the groups."""
    sizes = np.bincount(group)
    kept = np.flatnonzero(sizes >= min(min_cells, sizes.max()))
    centroids = np.stack([latent[group == k].mean(0) for k in kept])
    number = np.full(len(sizes), -1, dtype=np.int64)
    number[kept] = np.arange(len(kept))
    out = number[group]
    lost = out < 0
    if lost.any():
        squared = np.square(latent[lost, None] - centroids[None]).sum(-1)
        out[lost] = squared.argmin(1)
    return out


def _write(codebook: TreeCodebook, z: torch.Tensor, leaf: torch.Tensor, heights: NDArray[np.float64]) -> None:
    active = torch.zeros_like(codebook.active)
    active[0] = True
    path = codebook.paths(leaf.unique())
    active[path[path >= 0]] = True
    codebook.set_tree(active, torch.from_numpy(heights).to(codebook.heights))
    codebook.set_leaves(z, leaf)
    # Cells go to the nearest leaf from now on; codes and counts must be those of the cells that do.
    codebook.set_leaves(z, codebook.assign(z))


def _keep_own_tree(codebook: TreeCodebook, z: torch.Tensor, min_cells: int) -> None:
    codebook.set_leaves(z, codebook.assign(z))
    # a node whose child holds too few cells is a leaf
    for level in range(codebook.depth - 1, -1, -1):
        parents = torch.arange(2**level - 1, 2 ** (level + 1) - 1, device=z.device)
        small = torch.minimum(codebook.counts[2 * parents + 1], codebook.counts[2 * parents + 2]) < min_cells
        leaf = codebook.is_leaf()
        # from the deepest level up, so both children of a node that is dropped here are leaves by now or too big
        both_end = leaf[2 * parents + 1] & leaf[2 * parents + 2]
        drop = parents[small & both_end]
        codebook.active[2 * drop + 1] = False
        codebook.active[2 * drop + 2] = False
    codebook.set_leaves(z, codebook.assign(z))
    _set_ward_heights(codebook)


def _set_ward_heights(codebook: TreeCodebook) -> None:
    """Height of a node: the Ward cost of joining its children, made monotone from the leaves up."""
    codebook.heights.zero_()
    for level in range(codebook.depth - 1, -1, -1):
        parents = torch.arange(2**level - 1, 2 ** (level + 1) - 1, device=codebook.codes.device)
        parents = parents[codebook.active[2 * parents + 1]]
        left, right = 2 * parents + 1, 2 * parents + 2
        a, b = codebook.counts[left], codebook.counts[right]
        apart = (codebook.codes[left] - codebook.codes[right]).square().sum(1)
        cost = (2.0 * a * b / (a + b).clamp_min(1e-6) * apart).sqrt()
        below = torch.maximum(codebook.heights[left], codebook.heights[right])
        codebook.heights[parents] = torch.maximum(cost, below)
