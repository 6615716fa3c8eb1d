"""HDTree's published protocol on our tree, beside the published numbers.

``python -m benchmarks.legacy --data DIR --seeds 5`` writes ``legacy.csv``, ``legacy.md`` and ``legacy.png``. This is
for comparison with what was printed, not how a tree should be scored: see `benchmarks._legacy`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import hdtree_sc as ht
from benchmarks import _hdtree, _legacy, _measures, _report, _run
from benchmarks._cells import NotApplicable
from benchmarks._run import Method
from hdtree_sc.graph._neighbors import nearest_neighbors

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._cells import Cells

SCORED = 10_000
"""Cells that the published code draws for scoring when there are more."""
WINDOWS = (300.0, 500.0)
"""Minutes at which the windows of the published C. elegans table part."""
SETS = ("mnist", "celegans_amphid_embryo")
TIME = "time"
HEAD = """# HDTree's published protocol

Made by `python -m benchmarks.legacy --data DIR`. **These numbers are for comparison with printed ones only**; how
trees are scored properly is in [Trees](trees.md).

The published code splits all images 80/10/10, fits on the 80 %, scores 10,000 images *it was fitted on*, cuts the
tree at level int(√K) + 2 and then merges sibling leaves, those of the smallest leaf first, until K (the number of
labels) are left. Its dendrogram purity gives each leaf the images of the leaf that stands opposite (*DP as
published*); *DP* is the correct one on the same tree. Reconstruction and likelihood are left out: the published ones
are computed on the mean of input and reconstruction. Rows called *published* are quoted, not measured here, and come
from other runs, splits and hardware; rows called *ours* are this package.
"""
TABLES = {
    "all": ("## Trees at K leaves", ("DP as published", "DP", "LP", "ACC", "NMI")),
    TIME: (
        "## Share of neighbours of the same time window\n\n**Published and measured rows are of different cells** and "
        "may not be compared as better or worse: published ones are of seven types of the whole embryo (Packer et al.) "
        "and ours of the 1,444 amphid neurons and their parents; the number of neighbours was not published, "
        "here it is 30. Windows: before 300 minutes, 300 to 500, after 500.",
        ("300-500", "500-750"),
    ),
}


def _only(cells: Cells, name: str) -> None:
    if cells.data.name != name:
        msg = f"published for {name} only"
        raise NotApplicable(msg)


def scored(which: str) -> Callable[[Cells], dict[str, float]]:
    """Our tree under the published rule.

    Parameters
    ----------
    which
        ``"training"``: images it was fitted on; ``"validation"``: half of the images held out; ``"own cut"``: images it
        was fitted on, with our cut in place of the published pruning.
    """

    def measured(cells: Cells) -> dict[str, float]:
        _only(cells, "mnist")
        adata = _hdtree.held_out(cells)
        rows = np.flatnonzero(cells.kept if which != "validation" else ~cells.kept)
        rng = np.random.default_rng(cells.seed)
        rows = rng.choice(rows, min(SCORED if which != "validation" else len(rows) // 2, len(rows)), replace=False)
        labels = cells.labels[rows]
        tree, leaf = ht.Tree.from_adata(adata), adata.obs["hdtree_leaf"].astype(str).to_numpy(object)[rows]
        n_leaves = len(np.unique(labels))
        if which == "own cut":
            scores = _measures.tree_measures(tree, adata.obs["cut"].astype(str).to_numpy(object)[rows], labels)
        else:
            pruned, leaf = _legacy.prune(tree, leaf, n_leaves)
            scores = _measures.tree_measures(pruned, leaf, labels)
            scores["DP as published"] = _legacy.mirrored_purity(pruned, leaf, labels)
        return scores | dict(adata.uns["cost"])

    return measured


def window_shares(points: np.ndarray, time: np.ndarray) -> dict[str, float]:
    """Share of the 30 nearest neighbours in a cell's window, averaged over the cells of each published window.

    Parameters
    ----------
    points
        Positions of the cells.
    time
        Minutes of each cell.
    """
    window = np.digitize(time, WINDOWS)
    neighbors = nearest_neighbors(points, 30)[0]
    same = (window[neighbors] == window[:, None]).mean(axis=1)
    return {"300-500": float(same[window == 1].mean()), "500-750": float(same[window == 2].mean())}


def of_windows(points: Callable[[Cells], np.ndarray]) -> Callable[[Cells], dict[str, float]]:
    """Window shares in a space of the C. elegans cells."""

    def measured(cells: Cells) -> dict[str, float]:
        _only(cells, "celegans_amphid_embryo")
        return window_shares(points(cells), cells.time)

    return measured


def quoted(name: str, source: str, table: str, data: str, values: dict[str, float]) -> Method:
    """A row that somebody else printed.

    Parameters
    ----------
    name
        What was measured.
    source
        Where it was printed.
    table
        Which table the row is in.
    data
        Data set it was printed for.
    values
        Its numbers.
    """

    def run(cells: Cells) -> dict[str, float]:
        _only(cells, data)
        return values

    return Method(f"published: {name} ({source})", run, "published", table)


def _tree(dp: float, lp: float, acc: float, nmi: float, column: str = "DP as published") -> dict[str, float]:
    return {column: dp, "LP": lp, "ACC": acc, "NMI": nmi}


WORM, ARTICLE, README = "celegans_amphid_embryo", "authors' article", "README of the released code"
METHODS = {
    "training": Method("ours, training images", scored("training"), "ours"),
    "validation": Method("ours, 7,000 held-out images", scored("validation"), "ours"),
    "own-cut": Method("ours, training images, own cut instead of their pruning", scored("own cut"), "ours"),
    "paper": quoted("HDTree", ARTICLE, "all", "mnist", _tree(0.919, 0.966, 0.966, 0.924)),
    "released": quoted("HDTree, released run", README, "all", "mnist", _tree(0.9326, 0.9731, 0.9731, 0.93)),
    "released-validation": quoted(
        "HDTree, released run, 7,000 validation images", README, "all", "mnist", _tree(0.9345, 0.9738, 0.9738, 0.9328)
    ),
    # on the 10,000 official test images, and with the correct purity
    "treevae": quoted(
        "TreeVAE, official test images", "its paper", "all", "mnist", _tree(0.879, 0.96, 0.902, 0.9, "DP")
    ),
    "windows-hdtree": Method(
        "ours, amphid cells", of_windows(lambda cells: _hdtree.annotated(cells).obsm["X_hdtree"]), "ours", TIME
    ),
    "windows-pca": Method("PCA, amphid cells", of_windows(lambda cells: cells.space("PCA").points), "peer", TIME),
    "windows-chance": Method(
        "chance, amphid cells", of_windows(lambda cells: cells.shuffled(cells.space("PCA").points)), "reference", TIME
    ),
    "windows-paper": quoted("HDTree, whole embryo", ARTICLE, TIME, WORM, {"300-500": 0.458, "500-750": 0.663}),
}
"""Rows by their names on the command line."""


def main() -> None:
    """Run what is missing and write the tables."""
    arguments = _run.parser(__doc__.splitlines()[0], SETS, METHODS).parse_args()
    rows = _run.run("legacy", METHODS, arguments)
    _report.write("legacy", rows, METHODS, arguments.out, head=HEAD, tables=TABLES, figure=("all", ("ACC", "NMI")))


if __name__ == "__main__":
    main()
