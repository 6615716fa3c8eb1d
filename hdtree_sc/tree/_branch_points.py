"""At which noise level the branches of a tree become one: branch points found in data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hdtree_sc.tree._tree import Tree

MIXED = 0.5
"""Discriminability ``d'`` at which two classes count as mixed: the best classifier is right for 60 % of the cells."""
BOUND = 30.0
"""Noise levels are looked for between minus and plus this."""


def mixing_levels(
    means: NDArray[np.float64], covariance: NDArray[np.float64], mixed: float = MIXED
) -> NDArray[np.float64]:
    """Noise level at which each pair of normal classes is mixed.

    At a signal-to-noise ratio ``r`` the squared discriminability of classes ``i`` and ``j`` is
    ``sum_k r delta_k^2 / (r lambda_k + 1)``, with ``delta`` the difference of their means on the eigenvectors of the
    covariance and ``lambda`` its eigenvalues. It grows with ``r``, so that one level answers.

    Parameters
    ----------
    means
        Means, (n, d); a row of NaN for classes without data.
    covariance
        Covariance within classes, (d, d).
    mixed
        Discriminability below which classes count as mixed.

    Returns
    -------
    Noise levels ``-log SNR`` (n, n): symmetric, minus infinity on the diagonal, for classes without data, and for pairs
    that are mixed without noise.
    """
    values, vectors = np.linalg.eigh(covariance)
    values = values.clip(min=1e-12)
    turned = means @ vectors
    n = len(means)
    first, second = np.triu_indices(n, 1)
    squared = np.square(turned[first] - turned[second])
    known = np.isfinite(squared).all(1)
    found = np.full(len(first), -np.inf)
    squared = squared[known]
    low, high = np.full(len(squared), -BOUND), np.full(len(squared), BOUND)
    for _ in range(50):
        middle = 0.5 * (low + high)
        apart = (squared / (values + np.exp(middle)[:, None])).sum(1) > mixed**2
        low, high = np.where(apart, middle, low), np.where(apart, high, middle)
    level = 0.5 * (low + high)
    found[known] = np.where(level < -BOUND + 1e-6, -np.inf, level)
    out = np.full((n, n), -np.inf)
    out[first, second] = out[second, first] = found
    return out


def node_heights(tree: Tree, levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Branch points of a tree: the noise that mixes the last pair of cells' leaves that a node parts.

    The last pair and not the first (complete linkage): above its height all that is below a node must be one, or a path
    begun there could belong to another class.

    Parameters
    ----------
    tree
        The tree.
    levels
        Noise level that mixes each pair of leaves, in the order of ``tree.leaves``, as :func:`mixing_levels` has it.

    Returns
    -------
    Height of each node in noise levels, (n_nodes,): minus infinity at leaves, never below that of a child.
    """
    heights = np.full(len(tree), -np.inf)
    # in tree order the leaves below a node are neighbours
    is_leaf = tree.is_leaf_mask
    before: NDArray[np.int64] = np.cumsum(is_leaf) - is_leaf
    for node in np.flatnonzero(~is_leaf):
        first = int(before[node])
        below = slice(first, first + int(is_leaf[node : node + tree.sizes[node]].sum()))
        heights[node] = levels[below, below].max()
    return heights


def cosine_levels(
    means: NDArray[np.float64], squared_norms: NDArray[np.float64], epsilon: float
) -> NDArray[np.float64]:
    """Noise level at which classes are as alike as they are within themselves, by the cosine of their means.

    The published criterion in closed form, for classes of their mean squared norm: where
    ``SNR * |mean difference|^2 / 2 = epsilon * (SNR * norm + d)``. It sees means alone.

    Parameters
    ----------
    means
        Means of centred data, (n, d).
    squared_norms
        Mean squared norm of each class, (n,).
    epsilon
        Difference of cosines that counts as none.

    Returns
    -------
    Noise levels ``-log SNR`` (n, n); minus infinity where means never differ so much.

    References
    ----------
    arXiv 2212.10777, branch-point discovery.
    """
    apart = 0.5 * np.square(means[:, None] - means[None]).sum(-1)
    norm = 0.5 * (squared_norms[:, None] + squared_norms[None])
    excess = apart - epsilon * norm
    ratio = np.divide(excess, epsilon * means.shape[1], out=np.zeros_like(excess), where=excess > 0)
    with np.errstate(divide="ignore"):
        return np.log(ratio)
