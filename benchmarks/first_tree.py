"""Which tree builder, and which spaces for the order of cells: the measurements behind HDTree's defaults.

``python -m benchmarks.first_tree --data DIR --seeds 3`` trains HDTree on each data set, builds the tree in the three
ways it can, cuts each at as many leaves as there are labels (labels and their number never enter training) and orders
the cells from the medoid of the earliest, over the expression graph alone, the latent graph alone and the two combined.
Rows for PCA with Ward and for plain distances stand beside. Writes ``first_tree.csv`` and ``first_tree.md``.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import platform
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from scipy.cluster.hierarchy import fcluster, linkage, to_tree
from scipy.stats import spearmanr
from sklearn.metrics import normalized_mutual_info_score

import hdtree_sc as ht
from hdtree_sc.data._neighbors import nearest_neighbors
from hdtree_sc.tl._lineage_graph import cell_graph
from hdtree_sc.tl._pseudotime import order_from
from hdtree_sc.tl._root import medoid

SETS = {
    "celegans_amphid_embryo": {"labels": "cell_type", "time": "time"},
    "mouse_bladder_2100": {"labels": "cell_type"},
    "simulated_tree_e3": {"labels": "branch", "time": "pt"},
    "simulated_tree_b5": {"labels": "branch", "time": "pt"},
    "schlitzer15_dendritic": {"labels": "cell_type", "time": "time", "gene_likelihood": "normal"},
    "guo10_blastocyst": {"labels": "stage", "time": "time", "gene_likelihood": "normal"},
    "moignard15_blood_qpcr": {"labels": "stage", "time": "time", "gene_likelihood": "normal"},
    "olsson16_myeloid": {"labels": "cell_type", "gene_likelihood": "normal"},
}


def read(folder: Path, name: str) -> ad.AnnData:
    """A data set with float values and, of counts, the 2,000 most variable genes."""
    adata = ad.read_h5ad(folder / f"{name}.h5ad")
    adata.X = adata.X.astype(np.float32)
    if adata.n_vars > 2000:
        logged = sc.pp.log1p(sc.pp.normalize_total(adata, target_sum=1e4, copy=True), copy=True)
        sc.pp.highly_variable_genes(logged, n_top_genes=2000)
        adata = adata[:, logged.var["highly_variable"].to_numpy()].copy()
    return adata


def within(pseudotime: np.ndarray, time_: np.ndarray, groups: np.ndarray) -> float:
    """Mean of Spearman's rho within groups of at least 30 cells of more than two times."""
    values = [
        spearmanr(pseudotime[groups == g], time_[groups == g])[0]
        for g in np.unique(groups)
        if (groups == g).sum() >= 30 and len(np.unique(time_[groups == g])) > 2
    ]
    return float(np.mean(values)) if values else np.nan


def tree_scores(tree: ht.Tree, leaf: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Dendrogram purity and NMI at as many leaves as there are labels."""
    cut = tree.cut(n_leaves=min(len(np.unique(labels)), len(tree.leaves)))
    placed = cut.project(leaf, tree)
    return {
        "DP": ht.metrics.dendrogram_purity(cut, placed, labels),
        "NMI": normalized_mutual_info_score(labels, placed),
        "DP uncut": ht.metrics.dendrogram_purity(tree, leaf, labels),
    }


def ward_on_pca(points: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The plain peer: Ward over all cells in the principal components."""
    merges = linkage(points, "ward")
    k = len(np.unique(labels))
    cluster = fcluster(merges, k, "maxclust")
    top = to_tree(merges, rd=True)[1]
    n = len(points)
    # the upper k - 1 merges are the inner nodes; what they join is named by its cluster
    names, parents = [], []
    stack = [(top[-1], -1)]
    while stack:
        node, parent = stack.pop()
        inner = node.id >= 2 * n - k
        names.append(f"n{node.id}" if inner else str(cluster[node.pre_order()[0]]))
        parents.append(parent)
        if inner:
            here = len(names) - 1
            stack += [(node.left, here), (node.right, here)]
    tree = ht.Tree(names, parents)
    return {
        "DP": ht.metrics.dendrogram_purity(tree, cluster.astype(str), labels),
        "NMI": normalized_mutual_info_score(labels, cluster),
    }


def order_scores(latent: np.ndarray, expression: np.ndarray, adata: ad.AnnData, spec: dict) -> list[dict]:
    """Rho with time, overall and within label, of each way to order the cells."""
    time_ = adata.obs[spec["time"]].to_numpy(float)
    groups = adata.obs[spec["labels"]].astype(str).to_numpy()
    early = np.flatnonzero(time_ <= np.nanpercentile(time_, 2))
    root = medoid(latent, early)
    ways = {}
    for name, far, near in (
        ("expression and latent (default)", expression, latent),
        ("expression only", expression, expression),
        ("latent only", latent, latent),
    ):
        graph = cell_graph(far, near, nearest_neighbors(far, 15)[0])
        ways[name] = order_from(*graph, root)
    ways["distance to the root, PCA"] = np.linalg.norm(expression - expression[root], axis=1)
    return [
        {"what": f"order: {name}", "rho": spearmanr(way, time_)[0], "rho within": within(way, time_, groups)}
        for name, way in ways.items()
    ]


def run(folder: Path, name: str, seed: int) -> list[dict]:
    """All rows of one data set and seed."""
    spec = SETS[name]
    adata = read(folder, name)
    labels = adata.obs[spec["labels"]].astype(str).to_numpy()
    scvi.settings.seed = seed
    ht.HDTree.setup_anndata(adata)
    model = ht.HDTree(adata, gene_likelihood=spec.get("gene_likelihood", "nb"))
    start = time.perf_counter()
    model.train(enable_progress_bar=False)
    cost = time.perf_counter() - start
    latent, expression = model.get_latent(), model.get_expression_pca()
    rows: list[dict] = []
    for builder in ("links", "ward", "bisecting"):
        model.build_tree(builder)
        ht.tl.tree(adata, model)
        leaf = adata.obs["hdtree_leaf"].astype(str).to_numpy()
        scores = tree_scores(model.get_tree(), leaf, labels)
        rows.append(
            {"what": f"tree: HDTree, {builder}", "leaves": len(model.get_tree().leaves), "seconds": cost, **scores}
        )
    if seed == 0:
        rows.append({"what": "tree: Ward on PCA", **ward_on_pca(expression, labels)})
    if "time" in spec:
        rows += order_scores(latent, expression, adata, spec)
    return [{"data": name, "seed": seed, **row} for row in rows]


def main() -> None:
    """Run all and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    table = pd.DataFrame(
        [row for name in arguments.sets for seed in range(arguments.seeds) for row in run(arguments.data, name, seed)]
    )
    table.round(4).to_csv(arguments.out / "first_tree.csv", index=False)
    numbers = ["DP", "NMI", "DP uncut", "rho", "rho within", "leaves", "seconds"]
    grouped = table.groupby(["data", "what"], sort=False)[numbers]
    mean, sd = grouped.mean(), grouped.std()
    text = mean.round(3).astype(str) + " ± " + sd.round(3).astype(str)
    text = text.where(sd.notna(), mean.round(3).astype(str)).where(mean.notna(), "").reset_index()
    lines = [
        f"| {' | '.join(text.columns)} |",
        f"|{'---|' * len(text.columns)}",
        *(f"| {' | '.join(row)} |" for row in text.astype(str).to_numpy()),
    ]
    packages = ", ".join(f"{p} {version(p)}" for p in ("hdtree-sc", "torch", "scvi-tools", "scanpy", "scikit-learn"))
    head = (
        "# Tree builders and the order of cells\n\n"
        f"Mean ± sd over {arguments.seeds} seeds; made by `python -m benchmarks.first_tree` on "
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {platform.machine()}, CPU; {packages}. "
        "DP and NMI at as many leaves as labels; DP uncut is that of the whole tree; seconds are of training.\n\n"
    )
    (arguments.out / "first_tree.md").write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
