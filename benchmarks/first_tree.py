"""Which tree builder, and which spaces for the order of cells: the measurements behind HDTree's defaults.

``python -m benchmarks.first_tree --data DIR --seeds 3`` trains HDTree on each data set, builds the tree in the three
ways it can, cuts each at as many leaves as there are labels (labels and their number never enter training) and orders
the cells from the medoid of the earliest, over the expression graph alone, the latent graph alone and the two combined.
Rows for PCA with Ward and for plain distances stand beside. Writes ``first_tree.csv`` and ``first_tree.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import hdtree_sc as ht
from benchmarks import _clusters, _data, _hdtree, _measures, _report, _run
from hdtree_sc.data._neighbors import nearest_neighbors
from hdtree_sc.tl._lineage_graph import cell_graph
from hdtree_sc.tl._pseudotime import order_from
from hdtree_sc.tl._root import medoid

if TYPE_CHECKING:
    from pathlib import Path

    import anndata as ad

COLUMNS = ("DP", "NMI", "DP uncut", "rho", "rho within", "leaves", "CPU seconds")


def order_scores(latent: np.ndarray, expression: np.ndarray, adata: ad.AnnData, data: _data.DataSet) -> list[dict]:
    """Rho with time, overall and within label, of each way to order the cells."""
    time = adata.obs[data.time].to_numpy(float)
    groups = adata.obs[data.labels].astype(str).to_numpy()
    root = medoid(latent, _data.earliest(time))
    ways = {}
    for name, far, near in (
        ("expression and latent (default)", expression, latent),
        ("expression only", expression, expression),
        ("latent only", latent, latent),
    ):
        graph = cell_graph(far, near, nearest_neighbors(far, 15)[0])
        ways[name] = order_from(*graph, root)
    ways["distance to the root, PCA"] = np.linalg.norm(expression - expression[root], axis=1)
    return [{"what": f"order: {name}", **_measures.order_measures(way, time, groups)} for name, way in ways.items()]


def run(folder: Path, name: str, seed: int) -> list[dict]:
    """All rows of one data set and seed."""
    data, adata = _data.SETS[name], _data.read(folder, name)
    labels = adata.obs[data.labels].astype(str).to_numpy()
    n_labels = len(np.unique(labels))
    with _measures.Step() as step:
        model = _hdtree.train(adata, data.likelihood, seed)
    latent, expression = model.get_latent(), model.get_expression_pca()
    rows: list[dict] = []
    for builder in ("links", "ward", "bisecting"):
        model.build_tree(builder)
        ht.tl.tree(adata, model)
        whole = ht.metrics.dendrogram_purity(model.get_tree(), adata.obs["hdtree_leaf"].astype(str), labels)
        scores = _measures.tree_measures(*_hdtree.at_k_leaves(adata, n_labels), labels)
        scores |= {"DP uncut": whole, "leaves": len(model.get_tree().leaves), **step.cost}
        rows.append({"what": f"tree: HDTree, {builder}", **scores})
    if seed == 0:
        scores = _measures.tree_measures(*_clusters.ward(expression, n_labels), labels)
        rows.append({"what": "tree: Ward on PCA", **scores})
    if data.time:
        rows += order_scores(latent, expression, adata, data)
    return [{"data": name, "seed": seed, **row} for row in rows]


def main() -> None:
    """Run all and write the tables."""
    parser = _run.parser(__doc__.splitlines()[0], _data.CELLS)
    parser.set_defaults(seeds=3)
    arguments = parser.parse_args()
    _run.quiet()
    frame = pd.DataFrame(
        [row for name in arguments.sets for seed in range(arguments.seeds) for row in run(arguments.data, name, seed)]
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    frame.round(4).to_csv(arguments.out / "first_tree.csv", index=False)
    frame = frame.rename(columns={"what": "method"}).assign(kind="ours", **{_run.REASON: np.nan})
    parts = [
        "# Tree builders and the order of cells",
        f"Mean ± sd over {arguments.seeds} seeds; made by `python -m benchmarks.first_tree`. "
        f"{_report.circumstances([{'circumstances': _run.circumstances()}])} DP and NMI at as many leaves as labels; "
        "DP uncut is that of the whole tree, which has the leaves given; CPU seconds are of training.",
    ]
    for name, group in frame.groupby("data", sort=False):
        parts += [f"## {name}", _report.markdown(group, COLUMNS)]
    (arguments.out / "first_tree.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
