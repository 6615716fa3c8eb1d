"""Figures of merit of trees, orders and spaces, and what a step costs."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

import hdtree_sc as ht

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import ArrayLike, NDArray

TREE_MEASURES = ("DP", "NMI", "LP", "ACC", "ARI")
COST = ("seconds", "CPU seconds", "peak MB")
MIN_CELLS = 30
"""Groups with fewer cells are left out of the mean within groups."""
K_NEIGHBORS = 15


def tree_measures(tree: ht.Tree, leaf: NDArray[np.object_], labels: NDArray[np.object_]) -> dict[str, float]:
    """Agreement of a tree with labels; only comparable at equal numbers of leaves.

    Parameters
    ----------
    tree
        The tree, already cut (or with the cells at the nodes of the cut).
    leaf
        Node of each cell.
    labels
        Label of each cell.

    Returns
    -------
    Dendrogram purity, normalised mutual information, leaf purity, clustering accuracy (Hungarian), adjusted Rand
    index, and the number of leaves that hold cells.
    """
    return {
        "DP": ht.metrics.dendrogram_purity(tree, leaf, labels),
        "NMI": float(normalized_mutual_info_score(labels, leaf)),
        "LP": ht.metrics.leaf_purity(leaf, labels),
        "ACC": ht.metrics.clustering_accuracy(labels, leaf),
        "ARI": float(adjusted_rand_score(labels, leaf)),
        "leaves": len(np.unique(leaf)),
    }


def rho_within(pseudotime: NDArray[np.floating], time_: NDArray[np.floating], groups: NDArray[np.object_]) -> float:
    """Mean of Spearman's rho within groups of at least 30 cells of more than two times; NaN if there is none."""
    values = [
        spearmanr(pseudotime[groups == g], time_[groups == g])[0]
        for g in np.unique(groups)
        if (groups == g).sum() >= MIN_CELLS and len(np.unique(time_[groups == g])) > 2
    ]
    return float(np.mean(values)) if values else np.nan


def order_measures(
    pseudotime: NDArray[np.floating], time_: NDArray[np.floating], groups: NDArray[np.object_]
) -> dict[str, float]:
    """Spearman's rho of an order with real time, overall and within groups.

    Parameters
    ----------
    pseudotime
        The order; cells that a method could not reach (infinite or missing) count as last.
    time_
        Real time of each cell.
    groups
        Label of each cell.
    """
    order = np.asarray(pseudotime, dtype=float).copy()
    reached = np.isfinite(order)
    order[~reached] = order[reached].max()
    return {"rho": float(spearmanr(order, time_)[0]), "rho within": rho_within(order, time_, groups)}


def crossvalidated_labels(points: NDArray, labels: ArrayLike, seed: int) -> NDArray:
    """What nearest neighbours say of the label of cells they do not know, in five folds."""
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    return cross_val_predict(KNeighborsClassifier(K_NEIGHBORS), points, labels, cv=folds)


def crossvalidated_time(points: NDArray, time_: ArrayLike, seed: int) -> NDArray[np.float64]:
    """What nearest neighbours say of the time of cells they do not know, in five folds."""
    folds = KFold(5, shuffle=True, random_state=seed)
    return cross_val_predict(KNeighborsRegressor(K_NEIGHBORS), points, time_, cv=folds)


def carried_over(points: NDArray, known: NDArray[np.bool_], values: NDArray, n_neighbors: int = K_NEIGHBORS) -> NDArray:
    """Values of the cells that are not known, by majority among their nearest known cells.

    Parameters
    ----------
    points
        Positions of all cells.
    known
        Which cells' values are known.
    values
        Values of the known cells.
    n_neighbors
        Known neighbours asked.
    """
    return KNeighborsClassifier(n_neighbors).fit(points[known], values).predict(points[~known])


class Step:
    """Seconds, processor seconds and peak memory of what runs inside ``with Step() as step``.

    Processor seconds are those of all threads: they hardly move when somebody else uses the machine.

    Memory is the highest resident set of this process during the step, interpreter, libraries and data included; NaN
    where the system does not let the mark be reset (anything but Linux).
    """

    _status, _reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def __enter__(self) -> Self:
        self.seconds = self.cpu_seconds = self.peak_mb = np.nan
        try:
            self._reset.write_text("5")  # the kernel's word for: forget the highest resident set so far
            self._can_measure = True
        except OSError:
            self._can_measure = False
        self._start, self._cpu_start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.cpu_seconds = time.perf_counter() - self._start, time.process_time() - self._cpu_start
        if self._can_measure and (found := re.search(r"VmHWM:\s+(\d+) kB", self._status.read_text())):
            self.peak_mb = int(found.group(1)) / 1024

    @property
    def cost(self) -> dict[str, float]:
        """``seconds``, ``CPU seconds`` and ``peak MB``."""
        return dict(zip(COST, (self.seconds, self.cpu_seconds, self.peak_mb), strict=True))


def total_cost(*costs: dict[str, float]) -> dict[str, float]:
    """Cost of steps that follow one another: seconds add up, the peak is the highest."""
    return {name: (max if name == "peak MB" else sum)(cost[name] for cost in costs) for name in COST}
