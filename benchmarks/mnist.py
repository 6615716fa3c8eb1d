"""MNIST: fitted on the 60,000 training images, scored on the official 10,000.

``python -m benchmarks.mnist --data DIR --seeds 5`` writes ``mnist.csv``, ``mnist.md`` and ``mnist.png``. Labels and
their number never enter training; the tree is cut at ten leaves afterwards.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

import hdtree_sc as ht
from benchmarks import _clusters, _hdtree, _measures, _report, _run
from benchmarks._run import Method

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks._cells import Cells

MEASURES = ("ACC", "NMI", "DP", "LP", "seconds", "CPU seconds", "place s", "peak MB")
N_PCS = 50
HEAD = """# MNIST

Made by `python -m benchmarks.mnist --data DIR`. Mean ± sd over seeds; the best peer of each column is in bold.
Fitted on the 60,000 training images, scored on the 10,000 official test images at ten leaves: ACC (Hungarian), NMI,
DP (dendrogram purity), LP (leaf purity). *seconds*, *CPU seconds*: training and its tree, neighbour search included;
*place s*: the test images. *Chance* deals the test images out at random among HDTree's peer's leaves; *supervised* is
what the 15 nearest training images in 50 components say.
"""


def parts(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the official training and test images."""
    inside = (cells.adata.obs["split"] == "train").to_numpy()
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def hdtree(
    cells: Cells,
    accelerator: str = "cpu",
    options: Mapping[str, Any] = MappingProxyType({}),
    n_fitted: int | None = None,
    **train_kwargs: Any,
) -> dict[str, float]:
    """HDTree, as it comes or with options.

    Parameters
    ----------
    cells
        The images.
    accelerator
        Lightning's accelerator.
    options
        Options of the model.
    n_fitted
        Number of training images that it is fitted on, drawn by the seed; all if None.
    **train_kwargs
        Further arguments of ``train``.
    """
    import scvi

    scvi.settings.seed = cells.seed
    train, test = parts(cells)
    if n_fitted is not None:
        train = np.sort(np.random.default_rng(cells.seed).choice(train, n_fitted, replace=False))
    fitted, query = cells.adata[train].copy(), cells.adata[test].copy()
    with _measures.Step() as fit:
        ht.HDTree.setup_anndata(fitted)
        model = ht.HDTree(fitted, gene_likelihood=cells.data.likelihood, **options)
        model.train(accelerator=accelerator, enable_progress_bar=False, **train_kwargs)
    ht.tl.tree(fitted, model)
    tree, cut = _hdtree.at_k_leaves(fitted, cells.n_labels)
    with _measures.Step() as place:
        ht.tl.tree(query, ht.HDTree.load_query_data(query, model))
    leaf = _hdtree.follow(tree, set(cut), query.obs["hdtree_leaf"].astype(str).to_numpy())
    return _measures.tree_measures(tree, leaf, cells.labels[test]) | fit.cost | {"place s": place.seconds}


def components(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of all images, fitted on the training images."""
    train, test = parts(cells)
    pca = PCA(N_PCS, random_state=cells.seed).fit(cells.adata.X[train])
    return pca.transform(cells.adata.X[train]), pca.transform(cells.adata.X[test])


def k_means(cells: Cells) -> dict[str, float]:
    """Ten means in components, with a tree over them."""
    with _measures.Step() as fit:
        train, test = components(cells)
        means = KMeans(cells.n_labels, n_init=10, random_state=cells.seed).fit(train)
        tree, leaf_of_train = _clusters.tree_over(train, means.labels_, cells.n_labels)
        leaf_of = dict(zip(means.labels_.tolist(), leaf_of_train, strict=True))
    with _measures.Step() as place:
        leaf = np.array([leaf_of[mean] for mean in means.predict(test).tolist()], dtype=object)
    labels = cells.labels[parts(cells)[1]]
    return _measures.tree_measures(tree, leaf, labels) | fit.cost | {"place s": place.seconds}


def chance(cells: Cells) -> dict[str, float]:
    """A tree of the right shape with the test images dealt out at random."""
    test = parts(cells)[1]
    points = np.random.default_rng(cells.seed).normal(size=(1000, 2))
    tree, leaf = _clusters.ward(points, cells.n_labels)
    drawn = np.random.default_rng(cells.seed).choice(leaf, len(test))
    return _measures.tree_measures(tree, drawn, cells.labels[test])


def supervised(cells: Cells) -> dict[str, float]:
    """What the nearest training images say."""
    train, test = parts(cells)
    points = np.empty((len(cells.labels), N_PCS), dtype=np.float32)
    points[train], points[test] = components(cells)
    known = np.zeros(len(cells.labels), dtype=bool)
    known[train] = True
    said = np.unique(_measures.carried_over(points, known, cells.labels[train]), return_inverse=True)[1]
    tree, leaf = _clusters.tree_over(points[test], said, int(said.max()) + 1)
    return _measures.tree_measures(tree, leaf, cells.labels[test])


METHODS = {
    "hdtree": Method("HDTree", hdtree, "ours"),
    "k-means": Method("PCA + 10-means + Ward", k_means),
    "chance": Method("chance", chance, "reference"),
    "supervised": Method("supervised: kNN", supervised, "reference"),
}
"""Rows by their names on the command line."""
TABLES = {"all": ("## Test images", MEASURES)}


def each_seed(rows: Sequence[dict[str, Any]]) -> str:
    """HDTree's rows one by one, as a markdown table."""
    shown = [row for row in rows if row["method"] == "hdtree" and "ACC" in row]
    lines = [f"| seed | {' | '.join(MEASURES)} |", f"|{'---|' * (len(MEASURES) + 1)}"]
    for row in shown:
        values = pd.to_numeric(pd.Series(row).reindex(MEASURES))
        told = [_report.spread(values[[name]], _report.DIGITS.get(name, 3)) for name in MEASURES]
        lines.append(f"| {row['seed']} | {' | '.join(told)} |")
    return "## HDTree, each seed\n\n" + "\n".join(lines) if shown else ""


def main() -> None:
    """Run what is missing and write the tables."""
    arguments = _run.parser(__doc__.splitlines()[0], ["mnist"], METHODS).parse_args()
    rows = _run.run("mnist", METHODS, arguments)
    _report.write(
        "mnist", rows, METHODS, arguments.out, head=f"{HEAD}\n{each_seed(rows)}", tables=TABLES,
        figure=("all", ("ACC", "DP")),
    )  # fmt: skip


if __name__ == "__main__":
    main()
