"""Whether a tree says of three leaves which two are closer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from numpy.typing import NDArray

    from hdtree_sc.tree import Tree

    Triplets: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def triplet_accuracy(
    tree_a: Tree, tree_b: Tree, *, n_triplets: int = 100_000, max_exact: int = 200, seed: int | None = 0
) -> float:
    """Share of the triplets of leaves of which two trees say the same pair is closest.

    Only triplets that `tree_a`, the truth, resolves are asked; where `tree_b` does not resolve them (a node with three
    or more children) they count 1/3, as guessing would: 1/3 is chance.

    Parameters
    ----------
    tree_a
        The true tree.
    tree_b
        The tree to judge; leaves are matched by name, those in one tree only are left out.
    n_triplets
        Triplets drawn, with replacement, where there are too many for all.
    max_exact
        Up to so many shared leaves all triplets are asked, and nothing is drawn.
    seed
        Seed of the draw.

    Returns
    -------
    Accuracy in [0, 1].

    Raises
    ------
    ValueError
        Fewer than three shared leaves, or none of their triplets is resolved in `tree_a`.
    """
    known = set(tree_b.leaves)
    shared = [name for name in tree_a.leaves if name in known]
    n = len(shared)
    if n < 3:
        msg = f"tree_a and tree_b share {n} leaf names; a triplet needs three. Name the leaves of both trees alike."
        raise ValueError(msg)
    if n > max_exact and n_triplets < 1:
        msg = f"n_triplets={n_triplets}: one or more wanted."
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    truth_of, said_of = _Meetings(tree_a, shared), _Meetings(tree_b, shared)
    asked, right = 0, 0.0
    for triplet in _all(n) if n <= max_exact else [_draw(n, n_triplets, rng)]:
        truth, said = truth_of.closest(*triplet), said_of.closest(*triplet)
        resolved = truth >= 0
        asked += int(resolved.sum())
        right += (resolved & (truth == said)).sum() + (resolved & (said < 0)).sum() / 3
    if not asked:
        msg = f"tree_a resolves none of the triplets of the {n} shared leaves (they all part at one node)."
        raise ValueError(msg)
    return float(right / asked)


def _all(n: int) -> Iterator[Triplets]:
    """Every set of three leaves, those with the same first leaf at a time."""
    second, third = np.triu_indices(n, 1)
    for first in range(n - 2):
        later = second > first
        yield np.full(later.sum(), first), second[later], third[later]


def _draw(n: int, size: int, rng: np.random.Generator) -> Triplets:
    """Three different leaves, `size` times, every set of three as likely as any other."""
    first, second, third = rng.integers(n, size=size), rng.integers(n - 1, size=size), rng.integers(n - 2, size=size)
    second = second + (second >= first)
    third = third + (third >= np.minimum(first, second))
    third = third + (third >= np.maximum(first, second))
    return first, second, third


class _Meetings:
    """Level of the lowest common ancestor of any two of some leaves, in constant time.

    Between two leaves that stand side by side, the path climbs to one level; of leaves further apart the ancestor is
    at the lowest level climbed to between them. Minima over 1, 2, 4, ... neighbours answer that for any range.
    """

    def __init__(self, tree: Tree, leaves: list[str]) -> None:
        at = tree.index(leaves)
        order = np.argsort(at)
        self.rank = np.argsort(order)
        ordered = at[order]
        # of the nodes after one leaf up to the next, the highest is a child of their common ancestor
        level = np.minimum.reduceat(tree.levels[: ordered[-1] + 1] - 1, ordered[:-1] + 1)
        rows = [level]
        while 2 ** len(rows) <= len(level):
            last, step = rows[-1], 2 ** (len(rows) - 1)
            rows.append(np.minimum(last, np.append(last[step:], np.full(step, last[-1]))))
        self.table = np.stack(rows)

    def level(self, i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.int64]:
        a, b = self.rank[i], self.rank[j]
        low, high = np.minimum(a, b), np.maximum(a, b)
        power = np.frexp(high - low)[1] - 1
        return np.minimum(self.table[power, low], self.table[power, high - 2**power])

    def closest(self, i: NDArray[np.int64], j: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.int8]:
        """Which pair parts last: 0 for (i, j), 1 for (i, k), 2 for (j, k), -1 if all three part at one node."""
        ij, ik, jk = self.level(i, j), self.level(i, k), self.level(j, k)
        # of the three levels two are always equal, and the third is not lower
        answer = np.full(len(ij), -1, dtype=np.int8)
        answer[ij > ik] = 0
        answer[ik > ij] = 1
        answer[(jk > ij) & (jk > ik)] = 2
        return answer
