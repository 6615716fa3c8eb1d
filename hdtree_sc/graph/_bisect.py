"""Cut a set of micro-codes in two where the cut is most informative about where walks over their links end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hdtree_sc.graph._agglomerate import _walks, information_linkage

if TYPE_CHECKING:
    from numpy.typing import NDArray


def mutual_information(table: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mutual information in nats of joint distributions (..., a, b), which need not be normalised."""
    joint = np.asarray(table, float)
    joint = joint / np.maximum(joint.sum((-2, -1), keepdims=True), 1e-300)
    apart = joint.sum(-1, keepdims=True) * joint.sum(-2, keepdims=True)
    ratio = np.where(joint > 0, joint, 1.0) / np.where(joint > 0, apart, 1.0)
    return (joint * np.log(ratio)).sum((-2, -1))


def two_sides(linkage: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which groups are below each merge of a linkage, bool (m - 1, m)."""
    m = len(linkage) + 1
    below = np.zeros((2 * m - 1, m), dtype=bool)
    below[:m] = np.eye(m, dtype=bool)
    for row, pair in enumerate(linkage[:, :2].astype(int)):
        below[m + row] = below[pair[0]] | below[pair[1]]
    return below[m:]


def best_bisection(
    links: NDArray[np.float64], centroids: NDArray[np.floating], sizes: NDArray[np.number], *, least: int
) -> NDArray[np.bool_] | None:
    """The cut of groups that maximises the information between the sides on which a walk begins and ends.

    The information of a cut is that of its 2 x 2 table of walks of eight steps over neighbour links. Every subtree of
    the agglomerative information tree against all else is a cut; the best of them is bettered a group at a time.

    Parameters
    ----------
    links
        Symmetric link counts, (m, m).
    centroids
        Positions of the groups, (m, d).
    sizes
        Cells of each group, (m,).
    least
        Smallest number of cells of a side.

    Returns
    -------
    Which groups are on the second side, bool (m,); None if there is no cut with ``least`` cells on both.

    References
    ----------
    Slonim and Tishby, Agglomerative information bottleneck, NIPS 12 (1999).
    """
    if len(links) < 2:
        return None
    mass, walk = _walks(links, centroids, np.asarray(sizes, float))
    joint = mass[:, None] * walk
    joint = (joint + joint.T) / 2.0

    def worth(sides: NDArray[np.bool_]) -> NDArray[np.float64]:
        b = sides.astype(float)
        inside, held = np.einsum("ci,ij,cj->c", b, joint, b), b @ mass
        across = held - inside
        table = np.stack([1.0 - held - across, across, across, inside], 1).reshape(-1, 2, 2)
        smaller = np.minimum(b @ sizes, (1.0 - b) @ sizes)
        return np.where(smaller >= least, mutual_information(table.clip(0.0)), -np.inf)

    group, linkage = information_linkage(links, centroids, sizes, least=max(least // 2, 1))
    starts = np.concatenate([two_sides(linkage)[:, group], np.eye(len(links), dtype=bool)])
    found = worth(starts)
    best, value = starts[found.argmax()], found.max()
    while np.isfinite(value):
        moved = best ^ np.eye(len(best), dtype=bool)
        found = worth(moved)
        if found.max() <= value + 1e-9:
            return best
        best, value = moved[found.argmax()], found.max()
    return None
