"""How stable trees are when a fifth of the cells is left out, and where the cells go that were left out.

``python -m benchmarks.stability --data DIR --seeds 3`` writes ``stability.csv``, ``stability.md`` and
``stability.png``. The fits are those of the held-out rows of ``benchmarks.trees``, and are kept on disk with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import adjusted_rand_score

from benchmarks import _clusters, _data, _hdtree, _measures, _report, _run
from benchmarks._cells import Cells
from benchmarks._run import Method

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Fit = Callable[[Cells], NDArray[np.object_]]

PLACED = "placed"
SETS = ("celegans_amphid_embryo", "olsson16_myeloid", "guo10_blastocyst")
"""What is run unless asked for otherwise: sets with labels, small enough for many fits."""
HEAD = """# Stability

Made by `python -m benchmarks.stability --data DIR`. Mean ± sd over seeds; the best peer of each column is in bold.

Two fits on random 80 % of the cells each, drawn and trained under two seeds that follow one another (a row of seed 0
compares those of 0 and 1), share 64 % of the cells. Each tree is cut at K leaves, K being the number of labels, and
*ARI* is the adjusted Rand index of the two cuts on the shared cells. *ARI, all cells*: the fifth that either fit has
not seen is placed first, by our model as a query and in the peers by the majority of its 15 nearest fitted cells in
the space of that fit. Neither labels nor K enter any training, but for Leiden, whose resolution is searched until it
gives K clusters. Components are fitted on the same cells as the tree. *Chance* deals the leaves of PCA + Ward out at
random.
"""
TABLES = {
    "all": ("## Trees from 80 % of the cells", ("ARI", "ARI, all cells")),
    PLACED: (
        "## Placing the other 20 %\n\n*Type accuracy*: of the majority of 15 nearest fitted cells in the space named, "
        "with their labels. *By leaf*: of the most frequent label of the fitted cells of the leaf that the cell was "
        "placed in, with the whole tree for HDTree, and for the peer Leiden at resolution 1.",
        ("type accuracy", "by leaf"),
    ),
}


def neighbour(cells: Cells) -> Cells:
    """The same data under the next seed."""
    return Cells(cells._folder, cells.data.name, cells.seed + 1, cells.cache)


def agreement(fit: Fit) -> Callable[[Cells], dict[str, float]]:
    """Rand indices of two fits on 80 %.

    Parameters
    ----------
    fit
        From cells to the node of each, those that were not fitted on placed.
    """

    def measured(cells: Cells) -> dict[str, float]:
        other = neighbour(cells)
        first, second = fit(cells), fit(other)
        shared = cells.kept & other.kept
        return {
            "ARI": float(adjusted_rand_score(first[shared], second[shared])),
            "ARI, all cells": float(adjusted_rand_score(first, second)),
        }

    return measured


def cut_hdtree(cells: Cells) -> NDArray[np.object_]:
    """Our tree at K leaves."""
    return _hdtree.held_out(cells).obs["cut"].astype(str).to_numpy(object)


def cut_peer(space: str, build: Callable[[NDArray, int, int], _clusters.Clustered]) -> Fit:
    """A peer's tree at K leaves; cells it was not fitted on go with their neighbours.

    Parameters
    ----------
    space
        Key of `benchmarks._cells.SPACES`.
    build
        From positions, number of leaves and seed to a tree.
    """

    def fit(cells: Cells) -> NDArray[np.object_]:
        points = cells.space(space, held_out=True).points
        _, leaf = build(points[cells.kept], cells.n_labels, cells.seed)
        return filled(points, cells.kept, leaf)

    return fit


def filled(points: NDArray, known: NDArray[np.bool_], leaf: NDArray) -> NDArray[np.object_]:
    """Leaves of all cells: of those known, and what neighbours say of the others."""
    out = np.empty(len(points), dtype=object)
    out[known], out[~known] = leaf, _measures.carried_over(points, known, leaf)
    return out


def cut_chance(cells: Cells) -> NDArray[np.object_]:
    """Leaves dealt out at random."""
    return cells.shuffled(cut_peer("PCA", _ward)(cells))


def _ward(points: NDArray, n_leaves: int, seed: int) -> _clusters.Clustered:
    del seed  # Ward draws nothing
    return _clusters.ward(points, n_leaves)


def placed(points: NDArray, leaf: NDArray[np.object_], cells: Cells) -> dict[str, float]:
    """How often the label of a cell that was not fitted on is told.

    Parameters
    ----------
    points
        Positions of all cells.
    leaf
        Leaf of all cells.
    cells
        The data set.
    """
    known, new = cells.labels[cells.kept], cells.labels[~cells.kept]
    near = _measures.carried_over(points, cells.kept, known)
    return {"type accuracy": float((near == new).mean()), "by leaf": by_leaf(leaf, cells.labels, cells.kept)}


def by_leaf(leaf: NDArray[np.object_], labels: NDArray[np.object_], known: NDArray[np.bool_]) -> float:
    """Share of the cells that are not known whose label is the most frequent of the known cells of their leaf."""
    most = {one: _most(labels[known & (leaf == one)]) for one in set(leaf)}
    said = np.array([most[one] for one in leaf[~known]], dtype=object)
    return float((said == labels[~known]).mean())


def _most(labels: NDArray[np.object_]) -> str | None:
    names, count = np.unique(labels.astype(str), return_counts=True)
    return str(names[count.argmax()]) if len(names) else None


def placed_hdtree(cells: Cells) -> dict[str, float]:
    """HDTree: new cells by its query model."""
    adata = _hdtree.held_out(cells)
    leaf = adata.obs["hdtree_leaf"].astype(str).to_numpy(object)
    return placed(adata.obsm["X_hdtree"], leaf, cells)


def placed_peer(space: str) -> Callable[[Cells], dict[str, float]]:
    """A peer: neighbours in a space, and Leiden at resolution 1 carried over by them."""

    def measured(cells: Cells) -> dict[str, float]:
        points = cells.space(space, held_out=True).points
        cluster = _clusters.leiden_clusters(_clusters.neighbors(points[cells.kept]), 1.0, cells.seed)
        return placed(points, filled(points, cells.kept, cluster), cells)

    return measured


def placed_chance(cells: Cells) -> dict[str, float]:
    """Labels drawn from the fitted cells."""
    new = cells.labels[~cells.kept]
    said = np.random.default_rng(cells.seed).choice(cells.labels[cells.kept], len(new))
    return {"type accuracy": float((said == new).mean()), "by leaf": float((said == new).mean())}


METHODS = {
    "hdtree": Method("HDTree", agreement(cut_hdtree), "ours"),
    "pca-ward": Method("PCA + Ward", agreement(cut_peer("PCA", _ward))),
    "pca-leiden": Method("PCA + Leiden", agreement(cut_peer("PCA", _clusters.leiden))),
    "chance": Method("chance", agreement(cut_chance), "reference"),
    "placed-hdtree": Method("HDTree", placed_hdtree, "ours", PLACED),
    "placed-pca": Method("PCA, kNN", placed_peer("PCA"), table=PLACED),
    "placed-chance": Method("chance", placed_chance, "reference", PLACED),
}
"""Rows by their names on the command line."""


def main() -> None:
    """Run what is missing and write the tables."""
    parser = _run.parser(__doc__.splitlines()[0], _data.CELLS, METHODS)
    parser.set_defaults(sets=list(SETS), seeds=3)
    arguments = parser.parse_args()
    rows = _run.run("stability", METHODS, arguments)
    figure = ("all", ("ARI", "ARI, all cells"))
    _report.write("stability", rows, METHODS, arguments.out, head=HEAD, tables=TABLES, figure=figure)


if __name__ == "__main__":
    main()
