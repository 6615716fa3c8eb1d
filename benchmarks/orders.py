"""Pseudotime against real time, and whether neighbours are of one time: HDTree, peers, plain distances, chance.

``python -m benchmarks.orders --data DIR --seeds 5`` writes ``orders.csv``, ``orders.md`` and ``orders.png``. Time is
used to find the root (the medoid of the earliest 2 % of cells in principal components, the same for every method) and
to score, but for the supervised row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import hdtree_sc as ht
from benchmarks import _data, _hdtree, _measures, _orders, _report, _run
from benchmarks._run import Method

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._cells import Cells

SPACES = "spaces"
HEAD = """# Orders of cells

Made by `python -m benchmarks.orders --data DIR`. Mean ± sd over seeds; the best peer of each column is in bold.
*rho*: Spearman correlation of pseudotime with real time; *rho within*: its mean within labels of at least 30 cells
and more than two times.

Every method gets the same cells and genes (the 2,000 most variable) and starts from the same cell: the medoid of the
earliest 2 % of cells in 30 principal components. No method sees any other time, but for the rows that say so.
Palantir: 10 components, 500 waypoints. scFates: a principal tree of 200 nodes, its width found by its own search;
*width told by time* is the best of seven widths, which is in its favour. *PAGA tree*: cells projected on the edges of
PAGA's tree over Leiden clusters at resolution 1, which is our construction, since PAGA orders no cells. *First
component* is turned so that the root is low. *Supervised*: what 15 nearest neighbours in PCA say of cells whose time
they do not know, in five folds. CPU seconds hold all that a method needs from the values on; peak MB is the highest
memory of the process, libraries included (about 400 MB before anything is done). HDTree's are training, tree and
order.
"""
TABLES = {
    "all": ("## Pseudotime", ("rho", "rho within", "CPU seconds", "peak MB")),
    SPACES: (
        "## Neighbourhoods\n\nTNR: share of a cell's 30 nearest neighbours that are of its time bin, averaged over the "
        "cells of a bin, then over bins. Chance is the same with bins dealt out at random.",
        ("TNR",),
    ),
}


def of_space(space: str, order: Callable[[np.ndarray, Cells], np.ndarray]) -> Callable[[Cells], dict[str, float]]:
    """A peer: a space, and an order of cells in it.

    Parameters
    ----------
    space
        Key of `benchmarks._cells.SPACES`.
    order
        From positions and cells to a number per cell.
    """

    def measured(cells: Cells) -> dict[str, float]:
        time = cells.time
        coordinates = cells.space(space)
        with _measures.Step() as step:
            found = order(coordinates.points, cells)
        cost = _measures.total_cost(coordinates.cost, step.cost)
        return _measures.order_measures(found, time, cells.labels) | cost

    return measured


def hdtree(cells: Cells) -> dict[str, float]:
    """HDTree, as it comes."""
    time = cells.time
    adata = _hdtree.annotated(cells)
    cost = dict(adata.uns.pop("cost"))
    with _measures.Step() as step:
        ht.tl.lineage_graph(adata)
        ht.tl.pseudotime(adata, root=str(adata.obs_names[cells.root]))
    order = adata.obs["hdtree_pseudotime"].to_numpy(float)
    return _measures.order_measures(order, time, cells.labels) | _measures.total_cost(cost, step.cost)


def chance(cells: Cells) -> dict[str, float]:
    """A random order."""
    return _measures.order_measures(cells.shuffled(np.arange(len(cells.time))), cells.time, cells.labels)


def supervised(cells: Cells) -> dict[str, float]:
    """What neighbours with known times say."""
    said = _measures.crossvalidated_time(cells.space("PCA").points, cells.time, cells.seed)
    return _measures.order_measures(said, cells.time, cells.labels)


def ratio(space: str) -> Callable[[Cells], dict[str, float]]:
    """Time neighbourhood ratio of a space."""

    def measured(cells: Cells) -> dict[str, float]:
        bins = cells.bins  # first: without bins the space need not be made
        return {"TNR": ht.metrics.time_neighborhood_ratio(cells.space(space).points, bins)}

    return measured


def ratio_hdtree(cells: Cells) -> dict[str, float]:
    """Time neighbourhood ratio of HDTree's latent."""
    bins = cells.bins
    return {"TNR": ht.metrics.time_neighborhood_ratio(_hdtree.annotated(cells).obsm["X_hdtree"], bins)}


def ratio_chance(cells: Cells) -> dict[str, float]:
    """Time neighbourhood ratio of bins dealt out at random."""
    bins = cells.shuffled(cells.bins)
    return {"TNR": ht.metrics.time_neighborhood_ratio(cells.space("PCA").points, bins)}


METHODS = {
    "hdtree": Method("HDTree", hdtree, "ours"),
    "dpt": Method("DPT", of_space("PCA", _orders.dpt)),
    "dpt-scvi": Method("DPT on scVI", of_space("scVI", _orders.dpt)),
    "palantir": Method("Palantir", of_space("PCA", _orders.palantir)),
    "scfates": Method("scFates", of_space("PCA", _orders.scfates)),
    "scfates-told": Method("scFates, width told by time", of_space("PCA", _orders.scfates_told)),
    "paga": Method("PAGA tree", of_space("PCA", _orders.paga_path)),
    "distance": Method("distance to the root, PCA", of_space("PCA", _orders.distance_to_root)),
    "pc1": Method("first component", of_space("PCA", _orders.first_component)),
    "chance": Method("chance", chance, "reference"),
    "supervised": Method("supervised: kNN", supervised, "reference"),
    "ratio-hdtree": Method("HDTree's latent", ratio_hdtree, "ours", SPACES),
    "ratio-pca": Method("PCA", ratio("PCA"), table=SPACES),
    "ratio-diffmap": Method("diffusion map", ratio("diffusion map"), table=SPACES),
    "ratio-scvi": Method("scVI", ratio("scVI"), table=SPACES),
    "ratio-chance": Method("chance", ratio_chance, "reference", SPACES),
}
"""Rows by their names on the command line."""


def main() -> None:
    """Run what is missing and write the tables."""
    arguments = _run.parser(__doc__.splitlines()[0], _data.TIMED, METHODS).parse_args()
    rows = _run.run("orders", METHODS, arguments)
    figure = ("all", ("rho", "rho within"))
    _report.write("orders", rows, METHODS, arguments.out, head=HEAD, tables=TABLES, figure=figure)


if __name__ == "__main__":
    main()
