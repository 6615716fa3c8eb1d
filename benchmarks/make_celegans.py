"""How ``hdtree_sc/datasets/celegans.h5ad`` was made from the monocle3 file (GSE126954), run once.

``python -m benchmarks.make_celegans --data DIR`` with ``celegans_amphid_embryo.h5ad`` in DIR.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import scanpy as sc

LIMIT = 2_000_000
"""Most bytes the packaged file may have."""

OBS = ["cell_type", "lineage", "time", "embryo_time_bin", "batch", "time_point"]

# Mother cells are the darker or greyer shade of their daughters' hue: ASG and AWA (greens) share a neuroblast, AWC_ON
# is a state of AWC (purples), ADL has its own parent (oranges), AWB stands alone (blue).
COLORS = {
    "ADL_parent": "#8c3b08",
    "ADL": "#f58518",
    "AWB": "#2f78b7",
    "AWC": "#7b4ab0",
    "AWC_ON": "#d884d8",
    "Neuroblast_ASG_AWA": "#14532d",
    "ASG_AWA": "#5f8f3e",
    "ASG": "#a6d854",
    "AWA": "#1fb59a",
}


def variability_rank(counts: ad.AnnData) -> np.ndarray:
    """Rank of each gene (0 = most variable) by scanpy's normalised dispersion of log-normalised counts."""
    log = ad.AnnData(counts.X.astype("float32"), var=counts.var[[]].copy())
    sc.pp.normalize_total(log, target_sum=1e4)
    sc.pp.log1p(log)
    sc.pp.highly_variable_genes(log, n_top_genes=log.n_vars)
    score = log.var["dispersions_norm"].fillna(-np.inf).to_numpy()
    rank = np.empty(log.n_vars, dtype="int32")
    rank[np.argsort(-score, kind="stable")] = np.arange(log.n_vars, dtype="int32")
    return rank


def main() -> None:
    """Write the largest file below ``LIMIT`` that holds all cells and the most variable genes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with celegans_amphid_embryo.h5ad")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "hdtree_sc/datasets/celegans.h5ad")
    args = parser.parse_args()

    source = ad.read_h5ad(args.data / "celegans_amphid_embryo.h5ad")
    rank = variability_rank(source)
    order = [name for name in COLORS if name in set(source.obs["cell_type"])]
    for n_genes in range(source.n_vars, 0, -100):
        keep = rank < n_genes
        small = ad.AnnData(source.X[:, keep].astype("uint16"), obs=source.obs[OBS].copy(), var=source.var[keep].copy())
        small.obs["cell_type"] = small.obs["cell_type"].cat.reorder_categories(order)
        small.obs["total_counts"] = np.asarray(source.X.sum(axis=1, dtype="int64")).ravel().astype("float32")
        small.var["highly_variable_rank"] = rank[keep]
        small.uns["cell_type_parent"] = source.uns["cell_type_parent"]
        small.uns["cell_type_colors"] = np.array([COLORS[name] for name in order], dtype=object)
        small.write_h5ad(args.out, compression="gzip", compression_opts=9)
        size = args.out.stat().st_size
        print(f"{n_genes} genes: {size:,} bytes")
        if size <= LIMIT:
            return
    msg = "not even 100 genes fit; is --data the right file?"
    raise SystemExit(msg)


if __name__ == "__main__":
    main()
