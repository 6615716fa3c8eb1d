"""The rooted tree that development runs along: groups of cells, each below the one that it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hdtree_sc.graph._agglomerate import link_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAX_LATERAL = 0.3
"""Largest share of an end's outward links that may lead to cells other than those it comes from."""
SHORTEST = 0.015
"""Least pseudotime that a branch covers."""
ROOT_STATE = 0.2
"""A branch off the root's own that ends before this pseudotime is the root's state: cells behind the root."""


@dataclass(frozen=True)
class Backbone:
    """Milestones (groups of cells) and the one that each comes from.

    Parameters
    ----------
    group
        Milestone of each cell, (n,).
    parent
        Milestone that each comes from, (m,); -1 of the root.
    time
        Median pseudotime of each milestone, (m,); larger than the parent's.
    links
        Links between the cells of milestones, symmetric (m, m).
    """

    group: NDArray[np.int64]
    parent: NDArray[np.int64]
    time: NDArray[np.float64]
    links: NDArray[np.float64]

    @property
    def is_end(self) -> NDArray[np.bool_]:
        """Milestones that nothing comes from, (m,)."""
        return ~np.isin(np.arange(len(self.parent)), self.parent)

    @property
    def order(self) -> NDArray[np.int64]:
        """Milestones, each behind its parent."""
        return np.argsort(np.where(self.parent < 0, -np.inf, self.time), kind="stable")

    @property
    def branch(self) -> NDArray[np.int64]:
        """Branch of each milestone, (m,): a stretch in which each has one child at most."""
        children = np.bincount(self.parent[self.parent >= 0], minlength=len(self.parent))
        out, n = np.zeros(len(self.parent), dtype=np.int64), 0
        for milestone in self.order:
            above = self.parent[milestone]
            if above >= 0 and children[above] == 1:
                out[milestone] = out[above]
            else:
                out[milestone], n = n, n + 1
        return out

    def below(self) -> NDArray[np.bool_]:
        """Whether each milestone is above another or that itself, (m, m)."""
        out = np.eye(len(self.parent), dtype=bool)
        for milestone in self.order[:0:-1]:
            out[self.parent[milestone]] |= out[milestone]
        return out

    @property
    def modularity(self) -> float:
        """Links within milestones and along the tree over those expected by chance.

        Links along the tree are free and those off it are lost: splits along a branch raise it, splits across lower it.
        """
        total, degree = self.links.sum(), self.links.sum(1)
        return float((self.links / total - np.outer(degree, degree) / total**2)[self.along].sum())

    @property
    def along(self) -> NDArray[np.bool_]:
        """Pairs of milestones that are one, or joined by an edge of the tree, (m, m)."""
        out = np.eye(len(self.parent), dtype=bool)
        child = np.flatnonzero(self.parent >= 0)
        out[child, self.parent[child]] = out[self.parent[child], child] = True
        return out

    @property
    def contradicted(self) -> float:
        """Share of the links between milestones that no edge of the tree explains."""
        between = float(self.links.sum() - np.trace(self.links))
        return float(self.links[~self.along].sum()) / max(between, 1e-12)


def backbone(
    groupings: Sequence[NDArray[np.integer]],
    time: NDArray[np.floating],
    neighbors: NDArray[np.integer],
    root: int,
    *,
    min_cells: int = 10,
) -> Backbone:
    """The tree of descent over groups of cells, at the resolution that the data choose.

    Each group comes from the earlier one that it has most links with, over those expected of groups of their size
    (PAGA's ratio), so that progenitors stand above their descendants. A group that no other comes from is an end only
    if its links lead back: what has many links to cells beside it is part of what those are part of, and joins them.
    Of several groupings the one whose tree has the largest modularity is taken.

    Parameters
    ----------
    groupings
        Group of each cell at each resolution, (n,) each.
    time
        Pseudotime of each cell in [0, 1], (n,).
    neighbors
        Neighbours of each cell, (n, k).
    root
        Row of the root cell.
    min_cells
        Least number of cells of an end.
    """
    grown = [_grown(group, time, neighbors, root, min_cells) for group in groupings]
    return max(grown, key=lambda one: one.modularity)


def edge_support(grown: Backbone, neighbors: NDArray[np.integer], n_boot: int, seed: int) -> NDArray[np.float64]:
    """Share of replicates in which each milestone comes from the same branch, (m,); NaN of the root.

    A replicate draws cells with replacement, with their links; milestones stay.

    Parameters
    ----------
    grown
        The tree.
    neighbors
        Neighbours of each cell, (n, k).
    n_boot
        Replicates.
    seed
        Seed of the draws.
    """
    rng = np.random.default_rng(seed)
    m, n = len(grown.parent), len(grown.group)
    pair = (grown.group[:, None] * m + grown.group[neighbors]).ravel()
    order, branch, same = grown.order, grown.branch, np.zeros(m)
    for _ in range(n_boot):
        weight = np.repeat(rng.poisson(1.0, n), neighbors.shape[1])
        links = np.bincount(pair, weights=weight, minlength=m * m).reshape(m, m).astype(float)
        parent = _parents(links + links.T, grown.time, order)
        same += branch[parent] == branch[grown.parent]
    out = same / n_boot
    out[grown.parent < 0] = np.nan
    return out


def _grown(
    group: NDArray[np.integer], time: NDArray[np.floating], neighbors: NDArray[np.integer], root: int, min_cells: int
) -> Backbone:
    _, group = np.unique(group, return_inverse=True)
    links = link_counts(neighbors, group, int(group.max()) + 1)
    while True:
        middle = np.array([np.median(time[group == one]) for one in range(len(links))])
        now = _rooted(group, links, middle, root)
        joined = _lateral_end(now, min_cells) or _short_branch(now, time)
        if joined is None:
            return now
        gone, into = joined
        group, links = _merged(group, links, gone, into)


def _rooted(group: NDArray[np.integer], links: NDArray[np.float64], middle: NDArray[np.float64], root: int) -> Backbone:
    first = group[root]
    # the root's own milestone is the first, whatever lies behind it
    middle[first] = min(middle[first], middle.min())
    order = np.argsort(np.where(np.arange(len(middle)) == first, -np.inf, middle), kind="stable")
    return Backbone(group.astype(np.int64), _parents(links, middle, order), middle, links)


def _parents(links: NDArray[np.float64], middle: NDArray[np.float64], order: NDArray[np.integer]) -> NDArray[np.int64]:
    """For each milestone the earlier one with most links over those expected; the latest before it if it has none."""
    ratio = _for_size(links)
    parent = np.full(len(middle), -1)
    for i, milestone in enumerate(order[1:], start=1):
        earlier = order[:i]
        links = ratio[milestone, earlier]
        parent[milestone] = earlier[links.argmax()] if links.max() > 0 else earlier[-1]
    return parent


def _for_size(links: NDArray[np.float64]) -> NDArray[np.float64]:
    """Links between milestones for the number of links that each has, (m, m)."""
    degree = links.sum(1)
    return links / np.maximum(np.outer(degree, degree), 1e-12)


def _lateral_end(now: Backbone, min_cells: int) -> tuple[list[int], int] | None:
    """An end that is none, and the milestone that it joins: of all such the pair with most links for their size."""
    links, below = now.links, now.below()
    size, ratio = np.bincount(now.group, minlength=len(links)), _for_size(links)
    outward = links.sum(1) - np.diag(links)
    best, found = -1.0, None
    for end in np.flatnonzero(now.is_end & (now.parent >= 0)):
        beside = np.flatnonzero(~below[:, end])
        if size[end] >= min_cells and links[end, beside].sum() <= MAX_LATERAL * outward[end]:
            continue
        near = np.append(beside, now.parent[end])
        into = int(near[ratio[end, near].argmax()])
        if ratio[end, into] > best:
            best, found = float(ratio[end, into]), ([int(end)], into)
    return found


def _short_branch(now: Backbone, time: NDArray[np.floating]) -> tuple[list[int], int] | None:
    """A branch that ends where it begins, or is of the root's own state, and the milestone that it joins."""
    branch = now.branch
    root = int(np.flatnonzero(now.parent < 0)[0])
    ends = np.flatnonzero(now.is_end)
    if len(ends) < 2:
        return None
    for end in ends:
        members = np.flatnonzero(branch == branch[end])
        fork = int(now.parent[members[now.time[members].argmin()]])
        reach = np.quantile(time[np.isin(now.group, members)], 0.9)
        behind = branch[fork] == branch[root] and reach < ROOT_STATE
        if behind or reach - now.time[fork] < SHORTEST:
            return [int(one) for one in members], fork
    return None


def _merged(
    group: NDArray[np.integer], links: NDArray[np.float64], gone: list[int], into: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    number = np.arange(len(links))
    number[gone] = into
    _, number = np.unique(number, return_inverse=True)
    member = np.zeros((len(links), number.max() + 1))
    member[np.arange(len(links)), number] = 1.0
    return number[group], member.T @ links @ member
