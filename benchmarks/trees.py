"""Trees at as many leaves as there are labels: HDTree, plain clusterings, scVI, chance and a supervised reference.

``python -m benchmarks.trees --data DIR --seeds 5`` writes ``trees.csv``, ``trees.md`` and ``trees.png``. Labels and
their number never enter training: every method's tree is cut afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmarks import _clusters, _data, _hdtree, _measures, _report, _run
from benchmarks._run import Method
from hdtree_sc import Tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._cells import Cells

    Build = Callable[[np.ndarray, int, int], _clusters.Clustered]

HELD_OUT = "held out"
MEASURES = (*_measures.TREE_MEASURES, "leaves", "CPU seconds", "peak MB")
HEAD = """# Trees

Made by `python -m benchmarks.trees --data DIR`. Mean ± sd over seeds; the best peer of each column is in bold.
DP: dendrogram purity; NMI; LP: leaf purity; ACC: share of the cells that are right when leaves are named by labels one
to one (Hungarian); ARI.

Every method gets the same cells and genes (the 2,000 most variable of the log-normalised counts, chosen once over all
cells) and is cut at K leaves, K being the number of labels; neither labels nor K enter any training, but for Leiden,
whose resolution is searched until it gives K clusters. Components are 30 of log-normalised counts, or of the values
as they are where these are no counts. Neighbour graphs have 15 neighbours. Leiden's clusters are joined to a tree by
Ward on their means. scVI is trained as it comes (400 epochs) and needs counts. HDTree is trained with its defaults;
no method gets batches. *Chance* is HDTree's peer PCA + Ward with the leaves dealt out at random. The *supervised* row
is what 15 nearest neighbours in PCA say of cells whose label they do not know, in five folds. CPU seconds hold all
that a method needs from the values on; peak MB is the highest memory of the process, libraries and data included
(about 400 MB before anything is done).
"""
TABLES = {
    "all": ("## All cells", MEASURES),
    HELD_OUT: (
        "## Held-out cells\n\nFitted on 80 % of the cells (drawn by the seed, the same for every method), measured on "
        "the other 20 %, which are placed without retraining. Peers place a cell by the majority of its 15 nearest "
        "fitted cells. Type accuracy is that of 15 nearest fitted cells and their labels.",
        ("DP", "NMI", "type accuracy", "CPU seconds", "peak MB"),
    ),
}


def _ward(points: np.ndarray, n_leaves: int, seed: int) -> _clusters.Clustered:
    del seed  # Ward draws nothing
    return _clusters.ward(points, n_leaves)


def of_space(space: str, build: Build) -> Callable[[Cells], dict[str, float]]:
    """A peer: a space, and a tree in it.

    Parameters
    ----------
    space
        Key of `benchmarks._cells.SPACES`.
    build
        From positions, number of leaves and seed to a tree.
    """

    def measured(cells: Cells) -> dict[str, float]:
        coordinates = cells.space(space)
        with _measures.Step() as step:
            tree, leaf = build(coordinates.points, cells.n_labels, cells.seed)
        cost = _measures.total_cost(coordinates.cost, step.cost)
        return _measures.tree_measures(tree, leaf, cells.labels) | cost

    return measured


def hdtree(cells: Cells) -> dict[str, float]:
    """HDTree, as it comes."""
    adata = _hdtree.annotated(cells)
    tree, leaf = _hdtree.at_k_leaves(adata, cells.n_labels)
    return _measures.tree_measures(tree, leaf, cells.labels) | dict(adata.uns["cost"])


def chance(cells: Cells) -> dict[str, float]:
    """A tree of the right shape with the cells dealt out at random."""
    tree, leaf = _clusters.ward(cells.space("PCA").points, cells.n_labels)
    return _measures.tree_measures(tree, cells.shuffled(leaf), cells.labels)


def supervised(cells: Cells) -> dict[str, float]:
    """What neighbours with known labels say of each cell, as a tree over the labels."""
    points = cells.space("PCA").points
    said = pd.factorize(_measures.crossvalidated_labels(points, cells.labels, cells.seed))[0]
    tree, leaf = _clusters.tree_over(points, said, int(said.max()) + 1)
    return _measures.tree_measures(tree, leaf, cells.labels)


def placed(points: np.ndarray, tree: Tree, leaf: np.ndarray, cells: Cells) -> dict[str, float]:
    """Measures of the cells that a method was not fitted on.

    Parameters
    ----------
    points
        Positions of all cells.
    tree
        The tree.
    leaf
        Node of each held-out cell.
    cells
        The data set.
    """
    new = cells.labels[~cells.kept]
    said = _measures.carried_over(points, cells.kept, cells.labels[cells.kept])
    scores = _measures.tree_measures(tree, leaf, new)
    return {"DP": scores["DP"], "NMI": scores["NMI"], "type accuracy": float((said == new).mean())}


def held_out_space(space: str) -> Callable[[Cells], dict[str, float]]:
    """A peer for cells it has not seen: Ward on the kept cells of a space, the others by their neighbours there."""

    def measured(cells: Cells) -> dict[str, float]:
        coordinates = cells.space(space, held_out=True)
        with _measures.Step() as step:
            tree, leaf = _clusters.ward(coordinates.points[cells.kept], cells.n_labels)
            new = _measures.carried_over(coordinates.points, cells.kept, leaf)
        cost = _measures.total_cost(coordinates.cost, step.cost)
        return placed(coordinates.points, tree, new, cells) | cost

    return measured


def held_out_hdtree(cells: Cells) -> dict[str, float]:
    """HDTree, for cells it has not seen."""
    adata = _hdtree.held_out(cells)
    leaf = adata.obs["cut"].astype(str).to_numpy(object)[~cells.kept]
    tree = Tree.from_adata(adata)
    return placed(adata.obsm["X_hdtree"], tree, leaf, cells) | dict(adata.uns["cost"])


def held_out_chance(cells: Cells) -> dict[str, float]:
    """Held-out cells dealt out at random, and labels drawn from the kept cells."""
    points = cells.space("PCA", held_out=True).points
    tree, leaf = _clusters.ward(points[cells.kept], cells.n_labels)
    rng, new = np.random.default_rng(cells.seed), cells.labels[~cells.kept]
    scores = _measures.tree_measures(tree, rng.choice(leaf, len(new)), new)
    accuracy = float((rng.choice(cells.labels[cells.kept], len(new)) == new).mean())
    return {"DP": scores["DP"], "NMI": scores["NMI"], "type accuracy": accuracy}


METHODS = {
    "hdtree": Method("HDTree", hdtree, "ours"),
    "pca-ward": Method("PCA + Ward", of_space("PCA", _ward)),
    "pca-leiden": Method("PCA + Leiden", of_space("PCA", _clusters.leiden)),
    "diffmap-ward": Method("diffusion map + Ward", of_space("diffusion map", _ward)),
    "diffmap-leiden": Method("diffusion map + Leiden", of_space("diffusion map", _clusters.leiden)),
    "umap-ward": Method("UMAP + Ward", of_space("UMAP", _ward)),
    "scvi-ward": Method("scVI + Ward", of_space("scVI", _ward)),
    "scvi-leiden": Method("scVI + Leiden", of_space("scVI", _clusters.leiden)),
    "chance": Method("chance", chance, "reference"),
    "supervised": Method("supervised: kNN", supervised, "reference"),
    "placed-hdtree": Method("HDTree", held_out_hdtree, "ours", HELD_OUT),
    "placed-pca": Method("PCA + Ward, kNN", held_out_space("PCA"), table=HELD_OUT),
    "placed-scvi": Method("scVI + Ward, kNN", held_out_space("scVI"), table=HELD_OUT),
    "placed-chance": Method("chance", held_out_chance, "reference", HELD_OUT),
}
"""Rows by their names on the command line."""


def main() -> None:
    """Run what is missing and write the tables."""
    arguments = _run.parser(__doc__.splitlines()[0], _data.CELLS, METHODS).parse_args()
    rows = _run.run("trees", METHODS, arguments)
    _report.write("trees", rows, METHODS, arguments.out, head=HEAD, tables=TABLES, figure=("all", ("DP", "NMI")))


if __name__ == "__main__":
    main()
