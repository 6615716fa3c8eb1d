"""Whether the cells that a model generates along a path are like real cells there, and whether the path jumps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from hdtree_sc._errors import listing, require_obsm, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.get import joined_name, stored_name
from hdtree_sc.graph import nearest_neighbors
from hdtree_sc.stats import all_distances, combined_p, energy, energy_floor, energy_test, share_below
from hdtree_sc.tl._lineage_graph import stored_neighbors
from hdtree_sc.tl._path_statistics import MIN_CELLS, Cells, Leaves, Links, at_most, gaps, interpolated, share_far
from hdtree_sc.tree import Tree, node_of_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from hdtree_sc.stats import Points

RUN = "hdtree_sc.tl.tree(adata, model)"
MAX_CELLS = 300
"""Most real cells of a node, or withheld ones, that are compared."""


def validate_path(
    adata: AnnData,
    model: Any,
    path: pd.DataFrame | str | Sequence[str],
    *,
    n_cells: int = 100,
    withheld: AnnData | None = None,
    n_null: int = 999,
    alpha: float = 0.01,
    n_steps: int = 50,
    basis: Literal["pca", "latent"] | None = None,
    key: str = "hdtree",
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the cells that a model generates along a path with real cells, and look for gaps in the path.

    At each node of the path cells are generated and compared with the real cells of the node, in principal components
    of log-normalised expression, which no tree was learned in. Distances are energy distances: unlike a kernel they
    have no width to choose, so that distances of different pairs of nodes are on one scale, and they do not saturate
    between cells that are far apart. They are unbiased, thus around 0 for equal distributions, and may be below it.

    Each step is set beside those between random leaves and between leaves that are neighbours. Whether a step is
    bridged is decided on the level of cells: by how many are nearest neighbours across it.

    Parameters
    ----------
    adata
        Cells with :func:`hdtree_sc.tl.lineage_graph`.
    model
        The model whose tree they are on, after ``train_diffusion``.
    path
        What :func:`hdtree_sc.tl.lineage_path` returns, its name in ``adata.uns[key]["paths"]``, or names of nodes.
    n_cells
        Cells generated at each node.
    withheld
        Cells of a stage on the path that the model was not trained on, with the model's genes.
    n_null
        Permutations, random halves and random paths.
    alpha
        Steps with ``gap_p`` and paths with ``path_p`` below this are flagged.
    n_steps
        Network calls per cell.
    basis
        ``"pca"`` (default), or ``"latent"``, in which the model judges itself.
    key
        Key of the tree.
    seed
        Seed of all that is random.

    Returns
    -------
    One row per node. A small p is bad news in all columns but ``null_p``, ``step_p`` and ``random_p``, in which it is
    good news.

    ``node``, ``order``, ``n_cells``
        Node, its place in the path, and the number of its real cells.
    ``n_real``
        Real cells that it was compared by: its own, at most 300, or if there are fewer than 10 these and the nearest
        to the node's code in the latent, up to 10.
    ``distance``
        Energy distance of generated from real cells.
    ``null_distance``
        The floor: 95th percentile of the distances between random halves of the real cells.
    ``p``
        Permutation test of generated against real cells. Small: they differ. A hard test: a tree is fitted to its own
        cells, and even real cells that it has not seen differ from those of their leaf (in half of the leaves of
        half of the C. elegans cells at .01). Read ``distance`` beside ``null_distance`` and ``null_p``.
    ``null_p``
        Share of random pairs of leaves whose real cells are no farther apart than ``distance``. Small: the generated
        cells are nearer to their node than nodes are to each other.
    ``contrast``
        Share of the other leaves (of those outside the node) whose real cells are no farther from the generated cells
        than those of the node. 0: all others are farther.
    ``far``
        Share of the generated cells with no real cell near them: farther from the nearest one than the cells of its
        leaf are from each other (median). Of real cells that the model has not seen about .06 (C. elegans).
    ``step``
        Energy distance between the real cells of the previous node and of this one; missing in the first row.
    ``step_p``
        Share of random pairs of leaves no farther apart than ``step``. Small: a short step.
    ``neighbor_p``
        Share of neighbouring leaves at least as far apart as ``step``. Small: a long step even among neighbours.
    ``links``
        Pairs of real cells of both nodes that are nearest neighbours.
    ``gap_p``
        Probability of so few links between leaves that the lineage graph joins: for each of them Poisson with its own
        number of links, scaled to the nodes' sizes, and the mean over them. Small: a gap.
    ``gap``
        Whether ``gap_p`` is below ``alpha`` or more than half of the generated cells are ``far``.
    ``path_p``
        All steps' ``gap_p`` in one, the same in all rows: the lower p-value of Fisher's combination, which many
        doubtful steps make small, and of Simes', for which one gap will do, times two. Small: cells do not lie along
        the path.
    ``random_p``
        Permutation test of the mean of ``step`` against paths of as many random leaves, the same in all rows. Small:
        shorter steps than random paths have. Of two or three nodes it is seldom small.
    ``is_null``
        Whether ``path_p`` is below ``alpha``. One gap in a long path may not suffice: look at ``gap`` too.

    With ``withheld``, also:

    ``withheld_share``
        Share of the withheld cells whose nearest node, by the mean of its real cells, is this one of the path.
    ``withheld_distance``, ``withheld_p``
        Energy distance of the node's generated cells from the withheld ones, and permutation test.
    ``interpolation_distance``
        The same for cells on straight lines between random real cells of the node before and the node after (of the
        ends: of the node itself and its neighbour), at the point nearest to the withheld mean: as good as straight
        lines get, since that point is chosen with the withheld cells in hand.
    ``withheld_null_distance``
        The floor: as ``null_distance``, of the withheld cells.

    ``table.attrs`` has ``path_p``, ``random_p``, ``is_null`` and ``name``, with ``withheld`` also ``withheld_node``,
    the node with the largest share.

    A path that :func:`~hdtree_sc.tl.lineage_path` found follows links of the same cells, so that its ``gap_p`` is no
    independent evidence for it. What they find are paths made in other ways, bridges between parts that no cell
    joins, ways over common ancestors and nodes whose cells are missing.

    Sets the following field:

    ``adata.uns["<key>"]["validation"]["<name>"]`` : DataFrame
        The same table; ``<name>`` is that of the path, or its nodes joined by ``" -> "``.

    Raises
    ------
    RuntimeError
        If the model has no generator.
    KeyError
        If the tree, the graph or the named path is missing.
    ValueError
        If a node does not exist, or ``n_cells``, ``n_null``, ``alpha``, ``basis`` or ``withheld`` make no sense.

    References
    ----------
    Energy distance: Szekely and Rizzo, J. Stat. Plan. Inference 143, 1249 (2013). Combined p-values: Fisher (1932);
    Simes, Biometrika 73, 751 (1986).

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> path = ht.tl.lineage_path(adata, "Neuroblast_ASG_AWA", "AWA", groupby="cell_type")
    >>> model.train_diffusion()  # doctest: +SKIP
    >>> table = ht.tl.validate_path(adata, model, path, n_cells=30)
    >>> gaps = table.loc[table["gap"], "node"]
    >>> table["node"].tolist() == path["node"].tolist()
    True
    """
    _check(n_cells, n_null, alpha, basis)
    keys = Keys(key)
    stored = require_uns(adata, key, f"{RUN} and hdtree_sc.tl.lineage_graph(adata)")
    if "graph" not in stored:
        msg = f"adata.uns[{key!r}] has no 'graph': run hdtree_sc.tl.lineage_graph(adata, key={key!r}) first."
        raise KeyError(msg)
    shape = Tree.from_adata(adata, key=key)
    nodes, name = _nodes_of(path, shape, stored.get("paths", {}), key)
    if adata.n_obs < MIN_CELLS:
        msg = f"adata: {adata.n_obs} cells, at least {MIN_CELLS} are needed."
        raise ValueError(msg)
    slot = keys.latent if basis == "latent" else keys.pca
    points = np.asarray(require_obsm(adata, slot, RUN), dtype=np.float64)
    latent = np.asarray(require_obsm(adata, keys.latent, RUN), dtype=np.float64)
    cells = Cells(shape, node_of_cells(adata, shape, key=key), points, latent, stored["codebook"])

    def placed(new: AnnData) -> Points:
        where = model.place(new)
        return np.asarray(where.latent if basis == "latent" else where.standardised_pca, dtype=np.float64)

    rng = np.random.default_rng(seed)
    made = [
        placed(model.generate(n_cells, node=node, n_steps=n_steps, seed=seed + i, keep_mean=False))
        for i, node in enumerate(nodes)
    ]
    if made[0].shape[1] != points.shape[1]:
        msg = (
            f"model: its cells have {made[0].shape[1]} coordinates and adata.obsm[{slot!r}] has {points.shape[1]}: "
            f"run {RUN} with this model first."
        )
        raise ValueError(msg)
    missing = None if withheld is None else _withheld_points(withheld, adata, points, placed, rng)

    n_neighbors = stored_neighbors(adata, keys)
    table = _compare(cells, nodes, made, n_neighbors, n_null, alpha, rng)
    if missing is not None:
        for column, values in _against_withheld(cells, nodes, made, missing, n_null, rng).items():
            table[column] = values
        table.attrs["withheld_node"] = str(table["node"].iloc[int(table["withheld_share"].argmax())])
    table.attrs["name"] = name
    kept = table.copy()
    kept.attrs = {}
    stored.setdefault("validation", {})[name] = kept
    return table


# -- what is asked for -------------------------------------------------------------------------------------------


def _check(n_cells: int, n_null: int, alpha: float, basis: str | None) -> None:
    if int(n_cells) != n_cells or n_cells < MIN_CELLS:
        msg = f"n_cells: {n_cells} given, a whole number of at least {MIN_CELLS} is needed to compare distributions."
        raise ValueError(msg)
    if not 0 < alpha < 1:
        msg = f"alpha: {alpha} is outside 0 to 1, it is the level of the tests."
        raise ValueError(msg)
    if int(n_null) != n_null or n_null + 1 < 1 / alpha:
        msg = (
            f"n_null: {n_null} given, below p = {alpha} (alpha) gets only who draws {int(np.ceil(1 / alpha))} or more."
        )
        raise ValueError(msg)
    if basis not in (None, "pca", "latent"):
        msg = f"basis: {basis!r} is none of 'pca', 'latent'; generated cells have coordinates in these."
        raise ValueError(msg)


def _nodes_of(
    path: pd.DataFrame | str | Sequence[str], shape: Tree, paths: dict[str, pd.DataFrame], key: str
) -> tuple[list[str], str]:
    """Nodes of a path, and its name."""
    name = None
    if isinstance(path, str):
        name = stored_name(path, paths)
        if name is None:
            msg = (
                f"path: adata.uns[{key!r}]['paths'] has no {path!r}. It has: {listing(paths)}; "
                "hdtree_sc.tl.lineage_path writes them."
            )
            raise KeyError(msg)
        path = paths[name]
    if isinstance(path, pd.DataFrame):
        if "node" not in path:
            msg = f"path: the table has no column 'node'. It has: {listing(path.columns)}."
            raise ValueError(msg)
        nodes = [str(node) for node in path["node"]]
        # of several paths over the same nodes the latest
        name = name or next((known for known in reversed(paths) if list(paths[known]["node"]) == nodes), None)
    else:
        nodes = [str(node) for node in path]
    if not nodes:
        msg = "path: it has no nodes."
        raise ValueError(msg)
    unknown = [node for node in nodes if node not in shape]
    if unknown:
        msg = f"path: {listing(unknown)} are no nodes of the tree. Nodes: {listing(shape.nodes, 30)}."
        raise ValueError(msg)
    return nodes, name or joined_name(nodes)


def _withheld_points(
    withheld: AnnData, adata: AnnData, points: Points, placed: Any, rng: np.random.Generator
) -> Points:
    if withheld.n_obs < MIN_CELLS:
        msg = f"withheld: {withheld.n_obs} cells, at least {MIN_CELLS} are needed."
        raise ValueError(msg)
    out = placed(withheld)
    there = adata.obs_names.get_indexer(withheld.obs_names) if adata.obs_names.is_unique else np.full(len(out), -1)
    # names alone may agree by chance
    same = (there >= 0) & np.isclose(points[there], out, rtol=1e-3, atol=1e-3).all(1)
    if same.any():
        msg = (
            f"withheld: {same.sum()} of its cells are in adata too, among them {listing(withheld.obs_names[same], 3)}."
        )
        raise ValueError(msg)
    return out[at_most(np.arange(len(out)), MAX_CELLS, rng)]


# -- the table ---------------------------------------------------------------------------------------------------


def _compare(
    cells: Cells,
    nodes: list[str],
    made: list[Points],
    n_neighbors: int,
    n_null: int,
    alpha: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    rows = [cells.near(node) for node in nodes]
    picked = [at_most(part, MAX_CELLS, rng) for part in rows]
    real = [cells.points[part] for part in picked]
    tests = [energy_test(a, b, n_null, rng) for a, b in zip(made, real, strict=True)]
    distance = np.array([test[0] for test in tests])

    k = min(n_neighbors, len(cells.points) - 1)
    neighbors, _ = nearest_neighbors(cells.points.astype(np.float32), k)
    links = Links(cells, neighbors)
    leaves = Leaves(cells, links, made, rng)
    far = share_far(made, cells)

    pairs = [(i, i + 1) for i in range(len(nodes) - 1)]
    shared = [len(np.intersect1d(picked[i], picked[j])) for i, j in pairs]
    step = np.array([np.nan, *(energy(real[i], real[j], both) for (i, j), both in zip(pairs, shared, strict=True))])
    counted = np.array([np.nan, *(links.between(rows[i], rows[j]) for i, j in pairs)])
    gap_p = np.array([np.nan, *(links.p(counted[j], len(rows[i]), len(rows[j])) for i, j in pairs)])
    path_p, random_p = combined_p(gap_p[1:]), leaves.random_p(step[1:], n_null, rng)
    is_null = bool(path_p < alpha)
    table = pd.DataFrame(
        {
            "node": nodes,
            "order": np.arange(len(nodes)),
            "n_cells": [len(cells.below(node)) for node in nodes],
            "n_real": [len(part) for part in real],
            "distance": distance,
            "null_distance": [energy_floor(part, n_null, rng) for part in real],
            "p": [test[1] for test in tests],
            "null_p": share_below(leaves.apart, distance),
            "contrast": [leaves.contrast(i, nodes[i], distance[i]) for i in range(len(nodes))],
            "far": far,
            "step": step,
            "step_p": share_below(leaves.apart, step),
            "neighbor_p": share_below(-leaves.neighbors_apart, -step),
            "links": counted,
            "gap_p": gap_p,
            "gap": gaps(gap_p, far, alpha),
            "path_p": path_p,
            "random_p": random_p,
            "is_null": is_null,
        }
    )
    table.attrs.update(path_p=path_p, random_p=random_p, is_null=is_null)
    return table


def _against_withheld(
    cells: Cells, nodes: list[str], made: list[Points], withheld: Points, n_null: int, rng: np.random.Generator
) -> dict[str, Any]:
    real = [cells.points[at_most(cells.near(node), MAX_CELLS, rng)] for node in nodes]
    nearest = all_distances(withheld, np.array([part.mean(0) for part in real])).argmin(1)
    tests = [energy_test(part, withheld, n_null, rng) for part in made]
    last = len(nodes) - 1
    between = [
        energy(interpolated(real[max(i - 1, 0)], real[min(i + 1, last)], withheld, len(made[i]), rng), withheld)
        if last
        else np.nan
        for i in range(len(nodes))
    ]
    return {
        "withheld_share": np.bincount(nearest, minlength=len(nodes)) / len(withheld),
        "withheld_distance": [test[0] for test in tests],
        "interpolation_distance": between,
        "withheld_null_distance": energy_floor(withheld, n_null, rng),
        "withheld_p": [test[1] for test in tests],
    }
