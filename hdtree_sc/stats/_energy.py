"""Energy distances of samples of points, and what is expected of them by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


Points = NDArray[np.float64]
"""Positions, or distances between them."""
BLOCK = 4_000_000
"""Distances that are held at once."""


def all_distances(a: Points, b: Points) -> Points:
    """Distance of each point of one sample from each of the other, (n, m)."""
    from scipy.spatial.distance import cdist

    return cdist(a, b)


def row_blocks(n: int, width: int) -> Iterator[slice]:
    """Parts of ``n`` rows, each with so many that their distances from ``width`` points may be held at once."""
    size = max(1, BLOCK // max(width, 1))
    return (slice(start, start + size) for start in range(0, n, size))


def mean_distances(samples: Sequence[Points], others: Sequence[Points]) -> Points:
    """Mean distance of the cells of each sample from those of each other one, (s, t)."""
    joined, first = np.concatenate(others), np.cumsum([0, *(len(other) for other in others[:-1])])
    out = np.zeros((len(samples), len(others)))
    for i, sample in enumerate(samples):
        for rows in row_blocks(len(sample), len(joined)):
            out[i] += np.add.reduceat(all_distances(sample[rows], joined).sum(0), first)
        out[i] /= len(sample)
    return out / np.array([len(other) for other in others])


def mean_within(sample: Points) -> float:
    """Mean distance between two different cells of a sample."""
    n = len(sample)
    return float(all_distances(sample, sample).sum() / max(n * (n - 1), 1))


def energy(a: Points, b: Points, shared: int = 0) -> float:
    """Unbiased energy distance of two samples; ``shared`` cells are in both and are not compared with themselves.

    References
    ----------
    Szekely and Rizzo, Energy statistics: a class of statistics based on distances, J. Stat. Plan. Inference 143, 1249
    (2013).
    """
    pairs = len(a) * len(b) - shared
    return float(2 * all_distances(a, b).sum() / max(pairs, 1) - mean_within(a) - mean_within(b))


def two_sample(distances: Points, n: int, n_null: int, rng: np.random.Generator) -> Points:
    """Energy distances of ``n`` random cells from all others, (n_null,), from the distances of all, squared form."""
    total = len(distances)
    m = total - n
    chosen = np.zeros((n_null, total))
    np.put_along_axis(chosen, rng.random((n_null, total)).argpartition(n - 1, axis=1)[:, :n], 1.0, axis=1)
    within = ((chosen @ distances) * chosen).sum(1)
    across = chosen @ distances.sum(1) - within
    rest = distances.sum() - within - 2 * across
    return 2 * across / (n * m) - within / max(n * (n - 1), 1) - rest / max(m * (m - 1), 1)


def energy_test(a: Points, b: Points, n_null: int, rng: np.random.Generator) -> tuple[float, float]:
    """Energy distance of two samples and its p-value by permutation."""
    found = energy(a, b)
    both = np.concatenate([a, b])
    null = two_sample(all_distances(both, both), len(a), n_null, rng)
    return found, float((1 + (null >= found - 1e-9).sum()) / (n_null + 1))


def energy_floor(sample: Points, n_null: int, rng: np.random.Generator) -> float:
    """95th percentile of the distances between random halves."""
    return float(np.quantile(two_sample(all_distances(sample, sample), len(sample) // 2, n_null, rng), 0.95))
