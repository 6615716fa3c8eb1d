"""Whether a tree says of three leaves which two are closer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hdtree_sc.metrics._ancestors import Meetings

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

    References
    ----------
    Triplets correct: Jones et al. (Cassiopeia), Genome Biol. 21, 92 (2020).

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> truth = ht.Tree.from_newick("((A,B),C);")
    >>> ht.metrics.triplet_accuracy(truth, ht.Tree.from_newick("((A,B),C);"))
    1.0
    >>> ht.metrics.triplet_accuracy(truth, ht.Tree.from_newick("((A,C),B);"))
    0.0
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
    truth_of, said_of = Meetings(tree_a, shared), Meetings(tree_b, shared)
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
