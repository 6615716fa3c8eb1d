"""What the demo measures: the tree against annotated types, pseudotime against embryo time, and the run itself."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hdtree_sc import metrics
from hdtree_sc.demo._figures import components
from hdtree_sc.pl import training_curves
from hdtree_sc.tree import Tree

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.model import HDTree

MIN_CELLS = 30
"""Types with fewer cells are left out of the mean within types."""
PACKAGES = (
    "hdtree-sc", "torch", "scvi-tools", "lightning", "anndata", "scanpy", "numpy", "pandas", "scipy", "scikit-learn",
    "networkx", "matplotlib",
)  # fmt: skip


@dataclass(frozen=True)
class Results:
    """All that the report says in numbers.

    Parameters
    ----------
    n_leaves, depth
        Leaves and levels of the tree.
    trees
        One row per tree: agreement with the annotated types.
    orders
        One row per order of the cells: Spearman's rho with embryo time, overall and within types.
    types
        One row per type: cells, mean time and rho of both orders within it.
    path
        The lineage path with mean embryo time and pseudotime of its nodes.
    losses
        Components of the loss in the last epoch.
    root_cell, root_type
        The root of pseudotime and its type.
    """

    n_leaves: int
    depth: int
    trees: pd.DataFrame
    orders: pd.DataFrame
    types: pd.DataFrame
    path: pd.DataFrame
    losses: pd.DataFrame
    root_cell: str
    root_type: str


def measure(adata: AnnData, model: HDTree, path: pd.DataFrame) -> Results:
    """Compare the annotated cells with what is known about them, and with plain methods.

    Parameters
    ----------
    adata
        Cells with tree, pseudotime and path.
    model
        The trained model.
    path
        The lineage path.
    """
    tree = Tree.from_adata(adata)
    labels = adata.obs["cell_type"].astype(str).to_numpy()
    components = adata.obsm["X_hdtree_pca_plain"]
    plain = ward_tree(components)
    cells = np.array([str(i) for i in range(adata.n_obs)], dtype=object)
    small = plain.cut(n_leaves=len(tree.leaves))
    leaf = adata.obs["hdtree_leaf"].astype(str).to_numpy(dtype=object)
    trees = pd.DataFrame(
        {
            "HDTree": agreement(tree, leaf, labels),
            f"Ward on {components.shape[1]} PCs": agreement(small, small.project(cells, within=plain), labels),
        }
    ).T
    root_cell = str(adata.uns["hdtree"]["pseudotime"]["root_cell"])
    root = adata.obs_names.get_loc(root_cell)
    orders = {
        "HDTree pseudotime": adata.obs["hdtree_pseudotime"].to_numpy(),
        "Distance to the root cell in PCA": np.linalg.norm(components - components[root], axis=1),
    }
    types = by_type(orders, adata.obs["time"], adata.obs["cell_type"])
    counted = types["Cells"] >= MIN_CELLS
    return Results(
        n_leaves=len(tree.leaves),
        depth=tree.depth,
        trees=trees,
        orders=pd.DataFrame(
            {
                "All cells": {name: spearman(order, adata.obs["time"]) for name, order in orders.items()},
                "Within types": {name: float(types.loc[counted, name].mean()) for name in orders},
            }
        ),
        types=types,
        path=describe_path(adata, tree, path),
        losses=last_losses(model),
        root_cell=root_cell,
        root_type=str(adata.obs["cell_type"].iloc[root]),
    )


def ward_tree(points: NDArray[np.floating]) -> Tree:
    """Ward's tree of points, (n, d); its leaves are named ``"0"`` to ``"<n - 1>"``."""
    from scipy.cluster.hierarchy import linkage

    merges = linkage(points, method="ward")
    n = len(points)
    parents = np.full(2 * n - 1, -1)
    parents[merges[:, :2].astype(int).T] = np.arange(n, 2 * n - 1)
    heights = np.concatenate([np.zeros(n), merges[:, 2]])
    sizes = np.concatenate([np.ones(n), merges[:, 3]])
    return Tree([str(i) for i in range(2 * n - 1)], parents, heights=heights, n_cells=sizes.astype(int))


def agreement(tree: Tree, leaf: NDArray[np.object_], labels: NDArray) -> dict[str, float]:
    """How well subtrees agree with labels: purity over all levels, and three measures with one leaf per label.

    Parameters
    ----------
    tree
        The tree.
    leaf
        Leaf of each cell, (n,).
    labels
        Label of each cell, (n,).
    """
    from sklearn.metrics import normalized_mutual_info_score

    n_labels = len(np.unique(labels))
    cut = tree.cut(n_leaves=min(n_labels, len(tree.leaves)))
    groups = cut.project(leaf, within=tree).astype(str)
    return {
        "Leaves": len(tree.leaves),
        "Dendrogram purity": metrics.dendrogram_purity(tree, leaf, labels),
        "Groups": len(cut.leaves),
        "NMI": float(normalized_mutual_info_score(labels, groups)),
        "Purity": metrics.leaf_purity(groups, labels),
        "Accuracy": metrics.clustering_accuracy(labels, groups),
    }


def spearman(a: Any, b: Any) -> float:
    """Spearman's rank correlation; NaN where one of the two is constant."""
    frame = pd.DataFrame({"a": np.asarray(a, dtype=float), "b": np.asarray(b, dtype=float)}).rank()
    return float(frame["a"].corr(frame["b"])) if frame.nunique().min() > 1 else float("nan")


def by_type(orders: dict[str, NDArray], time: pd.Series, types: pd.Series) -> pd.DataFrame:
    """Rank correlation of orders with time within each type, types by their mean time."""
    frame = pd.DataFrame(orders).assign(time=time.to_numpy())
    rows = {}
    for name, part in frame.groupby(types.astype(str).to_numpy()):
        rho = {order: spearman(part[order], part["time"]) for order in orders}
        rows[name] = {"Cells": len(part), "Mean embryo time": part["time"].mean(), **rho}
    table = pd.DataFrame.from_dict(rows, orient="index").sort_values("Mean embryo time")
    return table.astype({"Cells": int})


def describe_path(adata: AnnData, tree: Tree, path: pd.DataFrame) -> pd.DataFrame:
    """The path with the mean embryo time and pseudotime of the cells in each node."""
    position = tree.index(adata.obs["hdtree_leaf"])
    start = tree.index(path["node"])
    below = [(position >= node) & (position < node + tree.sizes[node]) for node in start]
    return path.assign(
        time=[float(adata.obs["time"][cells].mean()) for cells in below],
        pseudotime=[float(adata.obs["hdtree_pseudotime"][cells].mean()) for cells in below],
    )


def last_losses(model: HDTree) -> pd.DataFrame:
    """Each component of the loss in the last epoch, on training and held-out cells."""
    curves = training_curves(model.history)
    splits = ("train", "validation")
    rows = {
        name.replace("_", " "): {
            split: float(curves[name][split].iloc[-1]) if split in curves[name] else np.nan for split in splits
        }
        for name in components(model)
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(splits))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that did the work."""
    return {"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def machine(model: HDTree) -> dict[str, str]:
    """What the run was made on."""
    import torch

    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    device = model.module.device
    return {
        "System": platform.platform(terse=True),
        "Processor": platform.machine(),
        "Cores available": str(len(allowed)),
        "Threads of torch": str(torch.get_num_threads()),
        "Device of the model": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
    }


def peak_memory() -> float | None:
    """Largest memory of this process so far in MiB; None on systems that do not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # bytes on macOS, KiB elsewhere
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
