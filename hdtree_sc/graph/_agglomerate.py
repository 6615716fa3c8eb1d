"""Build a binary tree bottom-up over micro-codes, each of which stands for many cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Linkage = NDArray[np.float64]
"""SciPy's linkage matrix of m groups: (m - 1, 4) rows of two nodes, height, number of groups."""


def link_counts(
    neighbors: NDArray[np.integer],
    group: NDArray[np.integer],
    n_groups: int,
    weight: NDArray[np.floating] | None = None,
) -> NDArray[np.float64]:
    """Number of nearest-neighbour links between groups of cells, both directions added.

    Parameters
    ----------
    neighbors
        Neighbour indices of each cell, (n_cells, k).
    group
        Group of each cell, (n_cells,), 0 to ``n_groups`` - 1.
    n_groups
        Number of groups.
    weight
        Weight of each cell's own links, (n_cells,); 1 by default.

    Returns
    -------
    Symmetric (n_groups, n_groups); the diagonal holds the links within each group.
    """
    source = np.repeat(group, neighbors.shape[1]).astype(np.int64)
    n_groups = int(n_groups)  # a narrow NumPy integer would overflow when squared
    flat = source * n_groups + group[neighbors.ravel()]
    each = None if weight is None else np.repeat(weight, neighbors.shape[1])
    counts = np.bincount(flat, weights=each, minlength=n_groups * n_groups).reshape(n_groups, n_groups).astype(float)
    return counts + counts.T


def group_means(points: NDArray[np.floating], group: NDArray[np.integer]) -> NDArray[np.float64]:
    """Mean position of each group of cells.

    Parameters
    ----------
    points
        Positions, (n_cells, d).
    group
        Group of each cell, (n_cells,), 0 to m - 1; none is empty.

    Returns
    -------
    Array (m, d).
    """
    sums = np.stack([np.bincount(group, weights=column) for column in points.T], 1)
    return sums / np.bincount(group)[:, None]


def link_linkage(links: NDArray[np.float64], centroids: NDArray[np.floating]) -> Linkage:
    """Merge the pair of groups with the most links for their degrees, again and again.

    Average linkage on observed over expected links: it follows where cells are dense, so a group may be of any shape,
    and it does not ask how many cells a micro-code holds. Groups without any link are distinguished by a vanishing
    amount of kernel mass between their centroids, so one tree always results.

    Parameters
    ----------
    links
        Symmetric link counts, (m, m).
    centroids
        Positions of the groups, (m, d).

    Returns
    -------
    Linkage with non-decreasing heights ``log(1 + 1 / ratio)``.

    References
    ----------
    Paris: Bonald, Charpentier, Galland and Hollocou, Hierarchical graph clustering using node pair sampling, arXiv
    1806.01664 (2018); here with a little weight between groups that no link joins.
    """
    m = len(links)
    out = np.empty((m - 1, 4))
    degree, n_groups, label = np.maximum(links.sum(1), 1.0), np.ones(m), np.arange(m)
    total = degree.sum()
    distance = np.sqrt(np.square(centroids[:, None] - centroids[None]).sum(-1))
    kernel = np.exp(-distance / max(float(np.median(distance)), 1e-12))
    weight = links + 1e-3 * np.outer(degree, degree) / total * kernel
    ratio = weight * total / np.outer(degree, degree)
    np.fill_diagonal(ratio, -np.inf)
    for step in range(m - 1):
        i, j = sorted(np.unravel_index(ratio.argmax(), ratio.shape))
        out[step] = (*sorted((label[i], label[j])), np.log1p(1.0 / ratio[i, j]), n_groups[i] + n_groups[j])
        weight[i] += weight[j]
        weight[:, i] = weight[i]
        degree[i], n_groups[i], label[i] = degree[i] + degree[j], out[step, 3], m + step
        # merged rows stay at -inf for good
        ratio[i] = ratio[:, i] = np.where(np.isinf(ratio[i]), -np.inf, weight[i] * total / (degree[i] * degree))
        ratio[j] = ratio[:, j] = -np.inf
    return out


WALK_STEPS = 8
"""Steps of the walk between micro-codes: enough to see over a micro-code's own border."""
FAR_SHARE = 0.2
"""Share of steps that follow distance and not links, so that parts without a link between them still have an order."""


def information_linkage(
    links: NDArray[np.float64], centroids: NDArray[np.floating], sizes: NDArray[np.number], *, least: int = 1
) -> tuple[NDArray[np.int64], Linkage]:
    r"""Merge the pair of groups whose cells' walks differ least, again and again.

    Every group has a distribution :math:`P_i` of where a walk of eight steps that starts in it ends. Joining groups of
    masses :math:`p_i, p_j` loses the information :math:`(p_i + p_j)\,\mathrm{JS}(P_i, P_j)` on where a cell goes
    (agglomerative information bottleneck); here with :math:`\sqrt{p_i + p_j}`, half way between the plain
    divergence, which keeps every odd handful of cells apart, and the loss, which would rather cut a large group
    in two. The walk follows neighbour links, so groups need not be round; one step in five goes by a
    Student kernel of the distance between centroids.

    Parameters
    ----------
    links
        Symmetric link counts, (m, m).
    centroids
        Positions of the groups, (m, d).
    sizes
        Cells of each group, (m,).
    least
        Groups of fewer cells are joined to others before anything else, and count as one group with them.

    Returns
    -------
    The number, 0 to m' - 1, of the group that each given one is part of, (m,), and the linkage of the m' groups, with
    non-decreasing heights.

    References
    ----------
    Slonim and Tishby, Agglomerative Information Bottleneck, NeurIPS 1999.
    """
    m = len(links)
    held = np.asarray(sizes, float).copy()
    mass, walk = _walks(links, centroids, held)
    alive, part = np.ones(m, dtype=bool), np.arange(m)
    cost = np.stack([_lost_information(i, np.arange(m), mass, walk) for i in range(m)])
    np.fill_diagonal(cost, np.inf)

    def join(i: int, j: int) -> None:
        share = mass[i] / (mass[i] + mass[j])
        walk[i] = share * walk[i] + (1.0 - share) * walk[j]
        mass[i], held[i], alive[j] = mass[i] + mass[j], held[i] + held[j], False
        part[part == j] = i
        cost[i] = cost[:, i] = cost[j] = cost[:, j] = np.inf
        others = np.flatnonzero(alive)
        others = others[others != i]
        cost[i, others] = cost[others, i] = _lost_information(i, others, mass, walk)

    while alive.sum() > 1 and (small := alive & (held < least)).any():
        i, j = _cheapest(np.where(small[:, None], cost, np.inf))
        join(i, j)
    groups = np.flatnonzero(alive)
    number = np.full(m, -1)
    number[groups] = np.arange(len(groups))
    group = number[part]

    left = len(groups)
    out = np.empty((left - 1, 4))
    label, n_groups, height = number.copy(), np.ones(m), 0.0
    for step in range(left - 1):
        i, j = _cheapest(cost)
        # the divergence of a union may be less than that of its parts
        height = max(height, float(cost[i, j]))
        out[step] = (*sorted((label[i], label[j])), height, n_groups[i] + n_groups[j])
        n_groups[i], label[i] = out[step, 3], left + step
        join(i, j)
    return group, out


def _cheapest(cost: NDArray[np.float64]) -> tuple[int, int]:
    """The pair of least cost, smaller index first."""
    i, j = divmod(int(cost.argmin()), cost.shape[1])
    return min(i, j), max(i, j)


def _walks(
    links: NDArray[np.float64], centroids: NDArray[np.floating], sizes: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mass of each group and the distribution (m, m) of the ends of walks from it."""
    squared = np.square(centroids[:, None] - centroids[None]).sum(-1)
    np.fill_diagonal(squared, np.inf)
    scale = np.median(squared.min(1)) if len(links) > 1 else 1.0
    kernel = np.outer(sizes, sizes) / (1.0 + squared / max(float(scale), 1e-12))
    total = np.maximum(links.sum(1), 1.0).sum()
    weight = (1.0 - FAR_SHARE) * links + FAR_SHARE * total * kernel / max(float(kernel.sum()), 1e-300)
    # every end can be reached, however rarely, so that no logarithm is of zero
    weight += 1e-9 * weight.max()
    degree = weight.sum(1)
    walk = np.linalg.matrix_power(weight / degree[:, None], WALK_STEPS)
    return degree / degree.sum(), walk


def _lost_information(
    i: int, others: NDArray[np.integer], mass: NDArray[np.float64], walk: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Cost of joining group ``i`` with each of some others, (len(others),)."""
    joint = mass[i] + mass[others]
    share = (mass[i] / joint)[:, None]
    middle = share * walk[i] + (1.0 - share) * walk[others]
    divergence = share * walk[i] * np.log(walk[i] / middle) + (1.0 - share) * walk[others] * np.log(
        walk[others] / middle
    )
    return np.sqrt(joint) * divergence.sum(1)


def ward_linkage(centroids: NDArray[np.floating], sizes: NDArray[np.number]) -> Linkage:
    """Ward's minimum variance linkage of groups that hold different numbers of cells.

    Parameters
    ----------
    centroids
        Positions of the groups, (m, d).
    sizes
        Cells of each group, (m,).

    Returns
    -------
    Linkage; heights are the square root of twice the growth in scatter, as SciPy's.

    References
    ----------
    Ward, Hierarchical grouping to optimize an objective function, J. Am. Stat. Assoc. 58, 236 (1963).
    """
    m = len(sizes)
    out = np.empty((m - 1, 4))
    position, mass = np.asarray(centroids, float).copy(), np.asarray(sizes, float).copy()
    n_groups, label = np.ones(m), np.arange(m)
    squared = np.square(position[:, None] - position[None]).sum(-1)
    cost = squared * np.outer(mass, mass) / (mass[:, None] + mass[None])
    np.fill_diagonal(cost, np.inf)
    for step in range(m - 1):
        i, j = sorted(np.unravel_index(cost.argmin(), cost.shape))
        out[step] = (*sorted((label[i], label[j])), np.sqrt(2.0 * cost[i, j]), n_groups[i] + n_groups[j])
        position[i] = (mass[i] * position[i] + mass[j] * position[j]) / (mass[i] + mass[j])
        mass[i], n_groups[i], label[i] = mass[i] + mass[j], out[step, 3], m + step
        squared_i = np.square(position - position[i]).sum(1)
        cost[i] = cost[:, i] = np.where(np.isinf(cost[i]), np.inf, squared_i * mass * mass[i] / (mass + mass[i]))
        cost[i, i] = np.inf
        cost[j] = cost[:, j] = np.inf
    return out


def heap_layout(
    linkage: Linkage, depth: int, sizes: NDArray[np.number]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Lay a linkage out as a binary heap; the heavier child comes first.

    Parameters
    ----------
    linkage
        SciPy linkage of m groups, (m - 1, 4).
    depth
        Number of levels below the root. What would lie deeper is collapsed into one leaf.
    sizes
        Cells of each group, (m,).

    Returns
    -------
    The heap index of the leaf of each group, (m,), and the height of each heap node, (2^(depth + 1) - 1,).
    """
    m = len(linkage) + 1
    mass = np.concatenate([np.asarray(sizes, float), np.zeros(m - 1)])
    for row in range(m - 1):
        mass[m + row] = mass[linkage[row, :2].astype(np.int64)].sum()
    slot = np.empty(2 * m - 1, dtype=np.int64)
    heights = np.zeros(2 ** (depth + 1) - 1)
    slot[-1] = 0
    # parents come after their children in a linkage, so one pass from the end meets each parent first
    for row in range(m - 2, -1, -1):
        here = slot[m + row]
        pair = linkage[row, :2].astype(np.int64)
        if here >= 2**depth - 1 or (here < 0):
            slot[pair] = -here - 1 if here >= 0 else here
            continue
        heights[here] = linkage[row, 2]
        first, second = pair if mass[pair[0]] >= mass[pair[1]] else pair[::-1]
        slot[first], slot[second] = 2 * here + 1, 2 * here + 2
    # collapsed groups carry the negative of their leaf
    leaf = slot[:m]
    return np.where(leaf < 0, -leaf - 1, leaf), heights
