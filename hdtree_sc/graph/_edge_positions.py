"""Where cells stand on the edges of a tree of milestones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hdtree_sc.graph._agglomerate import group_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hdtree_sc.graph._backbone import Backbone


def edge_positions(grown: Backbone, points: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The edge that each cell is on, and how far along it.

    A cell is put onto the nearest of the edges that touch its milestone, as straight lines between the means of
    milestones.

    Parameters
    ----------
    grown
        Milestones.
    points
        Positions of the cells, (n, d).

    Returns
    -------
    Milestone at the end of the cell's edge, (n,), which for a tree that is its root alone is that; and the share of the
    edge before the cell, in [0, 1], (n,).
    """
    group, parent = grown.group, grown.parent
    centre = group_means(points, group)
    edge, share = group.astype(np.int64), np.zeros(len(group))
    gap = np.full(len(group), np.inf)
    for child in np.flatnonzero(parent >= 0):
        start, step = centre[parent[child]], centre[child] - centre[parent[child]]
        cells = np.flatnonzero((group == child) | (group == parent[child]))
        along = np.clip((points[cells] - start) @ step / max(float(step @ step), 1e-12), 0.0, 1.0)
        off = np.square(points[cells] - (start + along[:, None] * step)).sum(1)
        nearer = off < gap[cells]
        chosen = cells[nearer]
        gap[chosen], edge[chosen], share[chosen] = off[nearer], child, along[nearer]
    return edge, share
