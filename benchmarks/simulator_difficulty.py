"""Is ``ht.datasets.branching`` as hard as the simulations in the literature? Prints and writes a table.

``python -m benchmarks.simulator_difficulty --data DIR --seeds 5`` with ``simulated_tree_e3.h5ad`` and
``simulated_tree_b5.h5ad`` (made with PROSSTT) in DIR; about a minute. Everything is measured in 30 principal
components of log-normalised counts, with the true number of branches as the number of clusters.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import normalized_mutual_info_score, r2_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.neighbors import KNeighborsRegressor

from hdtree_sc.datasets import branching

REFERENCE = {"simulated_tree_e3": "easy", "simulated_tree_b5": "hard"}


def components(adata: ad.AnnData) -> np.ndarray:
    """Principal components (n_cells, 30) of counts scaled to 10,000 per cell and logged."""
    counts = np.asarray(adata.X.astype("float64").todense())
    log = np.log1p(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 1e4)
    return PCA(30, random_state=0).fit_transform(log)


def measure(adata: ad.AnnData) -> dict[str, float]:
    """Cheap numbers that say how hard a simulated tree is."""
    pcs = components(adata)
    pt = adata.obs["pt"].to_numpy()
    branch = adata.obs["branch"].to_numpy()
    distance = np.linalg.norm(pcs - pcs[np.argmin(pt)], axis=1)
    within = [spearmanr(distance[branch == b], pt[branch == b])[0] for b in np.unique(branch)]
    n_branches = len(np.unique(branch))
    kmeans = KMeans(n_branches, n_init=5, random_state=0).fit_predict(pcs)
    ward = AgglomerativeClustering(n_branches).fit_predict(pcs)
    # How far along its branch a cell has gone, told by its neighbours.
    ends = adata.obs.groupby("branch", observed=True)["pt"].agg(["min", "max"]).loc[branch].to_numpy()
    gone = (pt - ends[:, 0]) / (ends[:, 1] - ends[:, 0])
    told = cross_val_predict(KNeighborsRegressor(10), pcs, gone, cv=KFold(5, shuffle=True, random_state=0))
    library = np.asarray(adata.X.sum(axis=1)).ravel()
    return {
        "branches": n_branches,
        "rho": spearmanr(distance, pt)[0],
        "rho_within": float(np.mean(within)),
        "nmi_kmeans": normalized_mutual_info_score(branch, kmeans),
        "nmi_ward": normalized_mutual_info_score(branch, ward),
        "progress_r2": r2_score(gone, told),
        "zeros": 1 - adata.X.nnz / np.prod(adata.shape),
        "library_median": float(np.median(library)),
        "library_log_sd": float(np.std(np.log(np.maximum(library, 1)))),
    }


def main() -> None:
    """Measure the references and the presets, print the table, write csv and markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the simulated_tree_*.h5ad files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs/benchmarks")
    args = parser.parse_args()

    rows = []
    for name in REFERENCE:
        rows.append({"data": name, "seed": -1, **measure(ad.read_h5ad(args.data / f"{name}.h5ad"))})
    for preset, n_cells in {"easy": 2000, "medium": 3000, "hard": 3000}.items():
        for seed in range(args.seeds):
            rows.append({"data": preset, "seed": seed, **measure(branching(n_cells, difficulty=preset, seed=seed))})
    runs = pd.DataFrame(rows)
    columns = [c for c in runs.columns if c not in ("data", "seed")]
    mean = runs.groupby("data", sort=False)[columns].mean()
    sd = runs.groupby("data", sort=False)[columns].std()

    lines = [f"| data | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in mean.index:
        cells = []
        for column in columns:
            digits = 0 if column in ("branches", "library_median") else 3
            spread = sd.loc[name, column]
            show_spread = np.isfinite(spread) and column != "branches"
            cells.append(f"{mean.loc[name, column]:.{digits}f}" + (f" ± {spread:.{digits}f}" if show_spread else ""))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    print(table)

    args.out.mkdir(parents=True, exist_ok=True)
    runs.to_csv(args.out / "simulator_difficulty.csv", index=False, float_format="%.4f")
    text = [
        "# How hard the simulator's presets are",
        "",
        f"`python -m benchmarks.simulator_difficulty --data DIR --seeds {args.seeds}`; presets are mean ± sd over "
        f"{args.seeds} seeds, `simulated_tree_*` are one PROSSTT run each. `easy` is meant to be as hard as "
        "`simulated_tree_e3`, `hard` as `simulated_tree_b5`, `medium` as a larger `e3` (PROSSTT's `e6`, not shipped: "
        "rho 0.825, rho_within 0.423, Ward NMI 0.856).",
        "",
        table,
        "",
        "All in 30 principal components of log-normalised counts. `rho`: Spearman correlation of the Euclidean "
        "distance from the earliest cell with true pseudotime; `rho_within`: the same within branches, averaged. "
        "`nmi_*`: k-means and Ward clusters (as many as branches) against branches. "
        "`progress_r2`: variance explained of how far along its branch a cell has gone, by 10 neighbours. "
        "`zeros`: share of zero counts.",
        "",
    ]
    (args.out / "simulator_difficulty.md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
