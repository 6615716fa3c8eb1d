"""Orders of cells from a root, by other packages and by plain distances; each returns a number per cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scanpy as sc
from scipy.sparse.csgraph import breadth_first_order
from scipy.stats import spearmanr
from sklearn.decomposition import PCA

from benchmarks import _clusters
from hdtree_sc.graph._agglomerate import group_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks._cells import Cells


SIGMAS = (1000, 300, 100, 30, 10, 3, 1)
"""Widths of the principal tree of scFates that are tried when it is told the time."""


def distance_to_root(points: NDArray, cells: Cells) -> NDArray[np.floating]:
    """Straight distance to the root."""
    return np.linalg.norm(points - points[cells.root], axis=1)


def first_component(points: NDArray, cells: Cells) -> NDArray[np.floating]:
    """The first principal component, turned so that the root is below its mean."""
    component = PCA(1, random_state=cells.seed).fit_transform(points)[:, 0]
    return component * (-1.0 if component[cells.root] > 0 else 1.0)


def dpt(points: NDArray, cells: Cells) -> NDArray[np.floating]:
    """Scanpy's diffusion pseudotime; infinite for cells that cannot be reached."""
    graph = _clusters.neighbors(points)
    sc.tl.diffmap(graph, random_state=cells.seed)
    graph.uns["iroot"] = cells.root
    sc.tl.dpt(graph)
    return graph.obs["dpt_pseudotime"].to_numpy(float)


def palantir(points: NDArray, cells: Cells) -> NDArray[np.floating]:
    """Palantir with 10 components and 500 waypoints; terminal states are its own."""
    import palantir as package

    adata = _clusters.neighbors(points)
    package.utils.run_diffusion_maps(adata, n_components=10, pca_key=_clusters.SPACE, seed=cells.seed)
    package.utils.determine_multiscale_space(adata)
    package.core.run_palantir(
        adata, adata.obs_names[cells.root], num_waypoints=min(500, adata.n_obs), use_early_cell_as_start=True,
        n_jobs=1, seed=cells.seed,
    )  # fmt: skip
    return adata.obs["palantir_pseudotime"].to_numpy(float)


def scfates(points: NDArray, cells: Cells, sigma: float | None = None) -> NDArray[np.floating]:
    """scFates: a principal tree of 200 nodes (fewer for few cells), rooted at the node of the root cell.

    Parameters
    ----------
    points
        Positions of the cells.
    cells
        The data set.
    sigma
        Width of the principal tree; without it scFates' own search finds one. Its default fits no components.
    """
    import scFates as package

    adata = _clusters.neighbors(points)
    options = {"Nodes": min(200, adata.n_obs // 2), "use_rep": _clusters.SPACE, "seed": cells.seed}
    if sigma is None:
        sigma = package.tl.explore_sigma(adata, **options)
    package.tl.tree(adata, method="ppt", ppt_sigma=sigma, **options)
    package.tl.root(adata, int(np.asarray(adata.obsm["X_R"])[cells.root].argmax()))
    package.tl.pseudotime(adata, n_jobs=1, n_map=1, seed=cells.seed)
    return adata.obs["t"].to_numpy(float)


def scfates_told(points: NDArray, cells: Cells) -> NDArray[np.floating]:
    """The order of scFates that agrees best with real time, over all widths: more than an honest user could have."""
    found, failed = [], []
    for sigma in SIGMAS:
        try:
            order = scfates(points, cells, sigma)
        except (IndexError, ValueError, ZeroDivisionError) as error:  # what scFates raises where its tree collapses
            failed.append(error)
            continue
        found.append((spearmanr(order, cells.time)[0], order))
    if not found:
        raise failed[-1]
    return max(found, key=lambda pair: pair[0])[1]


def paga_path(points: NDArray, cells: Cells) -> NDArray[np.floating]:
    """Way along PAGA's tree over Leiden's clusters: each cell stands on the nearest edge of its cluster.

    PAGA itself orders no cells. Edges are as long as the means of their clusters are apart.
    """
    graph = _clusters.neighbors(points)
    cluster = _clusters.leiden_clusters(graph, 1.0, cells.seed)
    sc.tl.paga(graph, groups="leiden")
    edges = graph.uns["paga"]["connectivities_tree"]
    edges = (edges + edges.T).tocsr()
    means, start = group_means(points, cluster), cluster[cells.root]
    order, before = breadth_first_order(edges, start, directed=False)
    way = np.full(len(means), np.inf)
    way[start] = 0.0
    out, gap = np.full(len(points), np.inf), np.full(len(points), np.inf)
    # a cluster that is alone in its tree: its cells stand at its mean
    out[cluster == start] = 0.0
    for child in order[1:]:
        parent = before[child]
        step = means[child] - means[parent]
        length = float(np.linalg.norm(step))
        way[child] = way[parent] + length
        near = np.flatnonzero((cluster == child) | (cluster == parent))
        share = np.clip((points[near] - means[parent]) @ step / max(length**2, 1e-12), 0.0, 1.0)
        off = np.linalg.norm(points[near] - (means[parent] + share[:, None] * step), axis=1)
        closer = off < gap[near]
        gap[near[closer]] = off[closer]
        out[near[closer]] = (way[parent] + share * length)[closer]
    return out
