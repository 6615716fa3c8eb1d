"""Lowest common ancestors of many leaves at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hdtree_sc.tree import Tree


class Meetings:
    """Lowest common ancestor of any two of some leaves, in constant time.

    Between two leaves that stand side by side, the path climbs to one node; of leaves further apart the ancestor is
    the one at the lowest level climbed to between them. Minima over 1, 2, 4, ... neighbours answer that for any range.

    Parameters
    ----------
    tree
        The tree.
    leaves
        Names of two or more of its leaves.
    """

    def __init__(self, tree: Tree, leaves: list[str]) -> None:
        at = tree.index(leaves)
        order = np.argsort(at)
        self.rank = np.argsort(order)
        self.n_nodes = len(tree)
        ordered = at[order]
        # of the nodes after one leaf up to the next, the highest is a child of their common ancestor; level and node
        # in one number, so that a minimum over levels gives the node
        above = tree.parents[: ordered[-1] + 1]
        marked = (tree.levels[: ordered[-1] + 1] - 1) * self.n_nodes + above
        rows = [np.minimum.reduceat(marked, ordered[:-1] + 1)]
        while 2 ** len(rows) <= len(rows[0]):
            last, step = rows[-1], 2 ** (len(rows) - 1)
            rows.append(np.minimum(last, np.append(last[step:], np.full(step, last[-1]))))
        self.table = np.stack(rows)

    def _marks(self, i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.int64]:
        """Level and node of the ancestor of two different leaves; the deeper, the larger, the same node the same."""
        a, b = self.rank[i], self.rank[j]
        low, high = np.minimum(a, b), np.maximum(a, b)
        power = np.frexp(high - low)[1] - 1
        return np.minimum(self.table[power, low], self.table[power, high - 2**power])

    def node(self, i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.int64]:
        """Position in the tree of the lowest common ancestor of leaves ``i`` and ``j``, numbers in the list given."""
        return self._marks(i, j) % self.n_nodes

    def closest(self, i: NDArray[np.int64], j: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.int8]:
        """Which pair parts last: 0 for (i, j), 1 for (i, k), 2 for (j, k), -1 if all three part at one node."""
        ij, ik, jk = self._marks(i, j), self._marks(i, k), self._marks(j, k)
        # of the three ancestors two are always the same, and the third is not above them
        answer = np.full(len(ij), -1, dtype=np.int8)
        answer[ij > ik] = 0
        answer[ik > ij] = 1
        answer[(jk > ij) & (jk > ik)] = 2
        return answer
