"""Whether two trees agree on how far apart leaves are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy.stats import pearsonr, spearmanr

from hdtree_sc.metrics._ancestors import Meetings
from hdtree_sc.tree import Tree

if TYPE_CHECKING:
    from numpy.typing import NDArray


def cophenetic_correlation(
    tree_a: Tree,
    tree_b: Tree | pd.DataFrame,
    *,
    method: Literal["spearman", "pearson"] = "spearman",
    n_pairs: int = 1_000_000,
    seed: int | None = 0,
) -> float:
    """Correlation of the cophenetic distances of leaves in two trees, or of a tree with any other distances.

    The cophenetic distance of two leaves is the height of their lowest common ancestor. Heights of a tree without
    lengths are edges down to the deepest leaf.

    Parameters
    ----------
    tree_a
        A tree.
    tree_b
        Another tree, or a square table of distances with names of leaves as index and columns. Leaves are matched by
        name, those in one of the two only are left out.
    method
        ``"spearman"`` asks for the order of the distances alone, as heights of different trees have no common unit;
        ``"pearson"`` is the classic coefficient of a tree with the distances it was made from (Sokal and Rohlf 1962).
    n_pairs
        Pairs drawn, with replacement, where there are more; all of them otherwise.
    seed
        Seed of the draw.

    Returns
    -------
    Correlation in [-1, 1]; 0 on average by chance. NaN if all distances of one of the two are the same.

    Raises
    ------
    ValueError
        Fewer than three shared leaves, a table that is not square, not symmetric or not finite, or an unknown method.

    References
    ----------
    Sokal and Rohlf, The comparison of dendrograms by objective methods, Taxon 11, 33 (1962).

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> a = ht.Tree.from_newick("((A:1,B:1):1,(C:1,D:1):1);")
    >>> b = ht.Tree.from_newick("((A:2,B:2):3,(C:2,D:2):3);")
    >>> round(ht.metrics.cophenetic_correlation(a, b), 6)
    1.0
    """
    if method not in ("spearman", "pearson"):
        msg = f"method: {method!r} is unknown; choose 'spearman' or 'pearson'."
        raise ValueError(msg)
    if not isinstance(tree_b, Tree):
        _refuse(tree_b)
        tree_b = tree_b.set_axis(tree_b.index.astype(str), axis=0).set_axis(tree_b.columns.astype(str), axis=1)
    known = set(tree_b.leaves if isinstance(tree_b, Tree) else tree_b.index)
    shared = [name for name in tree_a.leaves if name in known]
    m = len(shared)
    if m < 3:
        msg = f"tree_a and tree_b share {m} leaf names; three or more wanted. Name the leaves of both alike."
        raise ValueError(msg)
    if m * (m - 1) // 2 <= n_pairs:
        i, j = np.triu_indices(m, 1)
    else:
        rng = np.random.default_rng(seed)
        i, j = rng.integers(m, size=n_pairs), rng.integers(m - 1, size=n_pairs)
        j = j + (j >= i)
    a, b = _distances(tree_a, shared, i, j), _distances(tree_b, shared, i, j)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float((spearmanr if method == "spearman" else pearsonr)(a, b)[0])


def _distances(
    tree: Tree | pd.DataFrame, names: list[str], i: NDArray[np.int64], j: NDArray[np.int64]
) -> NDArray[np.float64]:
    if isinstance(tree, Tree):
        return tree.heights[Meetings(tree, names).node(i, j)]
    return tree.loc[names, names].to_numpy(dtype=float)[i, j]


def _refuse(distances: pd.DataFrame) -> None:
    """Refuse what is no table of distances."""
    if not isinstance(distances, pd.DataFrame):
        msg = f"tree_b: a Tree or a DataFrame of distances wanted, got {type(distances).__name__}."
        raise ValueError(msg)
    rows, columns = distances.index.astype(str), distances.columns.astype(str)
    if not rows.is_unique or len(rows) != len(columns) or set(rows) != set(columns):
        msg = f"tree_b: the same unique names wanted as index and columns, got shape {distances.shape}."
        raise ValueError(msg)
    values = distances.set_axis(columns, axis=1).loc[:, list(rows)].to_numpy(dtype=float)
    if not np.isfinite(values).all() or not np.allclose(values, values.T):
        msg = "tree_b: distances must be finite and symmetric."
        raise ValueError(msg)
