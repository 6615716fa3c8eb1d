"""Whether the cells that a model generates along a path are like real cells there, and whether the path jumps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from hdtree_sc._errors import listing, require_obs, require_obsm, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.data._neighbors import nearest_neighbors, spread_rows
from hdtree_sc.tl._lineage_graph import MIN_LINKS
from hdtree_sc.tree import Tree
from hdtree_sc.tree._agglomerate import link_counts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    Points = NDArray[np.float64]
    Rows = NDArray[np.intp]

RUN = "hdtree_sc.tl.tree(adata, model)"
MIN_CELLS = 10
"""Fewest generated cells, and fewest real ones that a node is compared by."""
MAX_CELLS = 300
"""Most real cells of a node, or withheld ones, that are compared."""
MAX_LEAVES, MAX_LEAF_CELLS = 60, 100
"""Most leaves, and cells of each, that random pairs of nodes are made of."""
BLOCK = 4_000_000
"""Distances that are held at once."""


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
    One row per node. A small p is bad news in all columns but ``null_p`` and ``random_p``.

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
    cells = _Cells(shape, shape.index(require_obs(adata, keys.leaf, RUN)), points, latent, stored["codebook"])

    def placed(new: AnnData) -> Points:
        where = model.place(new)
        return np.asarray(where.latent if basis == "latent" else where.expression_pca, dtype=np.float64)

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

    n_neighbors = _stored_neighbors(adata, keys)
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
        name = path.replace("/", "|")
        if name not in paths:
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
    return nodes, name or " -> ".join(nodes).replace("/", "|")


def _stored_neighbors(adata: AnnData, keys: Keys) -> int:
    """Number of neighbours that the lineage graph was made with.

    Parameters
    ----------
    adata
        Cells with a lineage graph.
    keys
        Names of its fields.
    """
    return int(adata.uns.get(keys.neighbors, {}).get("params", {}).get("n_neighbors", 15))


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
    return out[_some(np.arange(len(out)), MAX_CELLS, rng)]


# -- cells -------------------------------------------------------------------------------------------------------


@dataclass
class _Cells:
    """Real cells: where they are on the tree and in the space they are compared in."""

    shape: Tree
    leaf: NDArray[np.int64]
    points: Points
    latent: Points
    codebook: NDArray[np.float32]

    def below(self, node: str) -> Rows:
        """Rows of the cells of a node."""
        first = int(self.shape.index(node))
        return np.flatnonzero((self.leaf >= first) & (self.leaf < first + self.shape.sizes[first]))

    def near(self, node: str) -> Rows:
        """Rows of the cells that stand for a node: its own, and if these are too few those nearest to its code."""
        own = self.below(node)
        if len(own) >= MIN_CELLS:
            return own
        code = np.asarray(self.codebook[self.shape.index(node)], dtype=np.float64)
        away = np.square(self.latent - code).sum(1)
        away[own] = -1.0
        return np.sort(np.argpartition(away, MIN_CELLS - 1)[:MIN_CELLS])


def _some(rows: Rows, most: int, rng: np.random.Generator) -> Rows:
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


# -- distances ---------------------------------------------------------------------------------------------------


def _cdist(a: Points, b: Points) -> Points:
    from scipy.spatial.distance import cdist

    return cdist(a, b)


def _parts(n: int, width: int) -> Iterator[slice]:
    size = max(1, BLOCK // max(width, 1))
    return (slice(start, start + size) for start in range(0, n, size))


def _mean_distances(samples: Sequence[Points], others: Sequence[Points]) -> Points:
    """Mean distance of the cells of each sample from those of each other one, (s, t)."""
    joined, first = np.concatenate(others), np.cumsum([0, *(len(other) for other in others[:-1])])
    out = np.zeros((len(samples), len(others)))
    for i, sample in enumerate(samples):
        for rows in _parts(len(sample), len(joined)):
            out[i] += np.add.reduceat(_cdist(sample[rows], joined).sum(0), first)
        out[i] /= len(sample)
    return out / np.array([len(other) for other in others])


def _within(sample: Points) -> float:
    """Mean distance between two different cells of a sample."""
    n = len(sample)
    return float(_cdist(sample, sample).sum() / max(n * (n - 1), 1))


def _energy(a: Points, b: Points, shared: int = 0) -> float:
    """Unbiased energy distance of two samples; ``shared`` cells are in both and are not compared with themselves."""
    pairs = len(a) * len(b) - shared
    return float(2 * _cdist(a, b).sum() / max(pairs, 1) - _within(a) - _within(b))


def _two_sample(distances: Points, n: int, n_null: int, rng: np.random.Generator) -> Points:
    """Energy distances of ``n`` random cells from all others, (n_null,), from the distances of all, squared form."""
    total = len(distances)
    m = total - n
    chosen = np.zeros((n_null, total))
    np.put_along_axis(chosen, rng.random((n_null, total)).argpartition(n - 1, axis=1)[:, :n], 1.0, axis=1)
    within = ((chosen @ distances) * chosen).sum(1)
    across = chosen @ distances.sum(1) - within
    rest = distances.sum() - within - 2 * across
    return 2 * across / (n * m) - within / max(n * (n - 1), 1) - rest / max(m * (m - 1), 1)


def _test(a: Points, b: Points, n_null: int, rng: np.random.Generator) -> tuple[float, float]:
    """Energy distance of two samples and its p-value by permutation."""
    found = _energy(a, b)
    both = np.concatenate([a, b])
    null = _two_sample(_cdist(both, both), len(a), n_null, rng)
    return found, float((1 + (null >= found - 1e-9).sum()) / (n_null + 1))


def _floor(sample: Points, n_null: int, rng: np.random.Generator) -> float:
    """95th percentile of the distances between random halves."""
    return float(np.quantile(_two_sample(_cdist(sample, sample), len(sample) // 2, n_null, rng), 0.95))


def _far(samples: Sequence[Points], cells: _Cells) -> Points:
    """Share of each sample farther from the nearest cell than cells of that cell's leaf are from each other."""
    limits: dict[int, float] = {}
    out = []
    for sample in samples:
        nearest, shortest = np.empty(len(sample), dtype=np.intp), np.empty(len(sample))
        for rows in _parts(len(sample), len(cells.points)):
            away = _cdist(sample[rows], cells.points)
            nearest[rows], shortest[rows] = away.argmin(1), away.min(1)
        leaves = cells.leaf[nearest]
        for leaf in set(leaves.tolist()) - limits.keys():
            own = np.flatnonzero(cells.leaf == leaf)
            inside = cells.points[own[spread_rows(len(own), MAX_LEAF_CELLS)]]
            among = _cdist(inside, inside)[np.triu_indices(len(inside), 1)]
            limits[leaf] = float(np.median(among)) if len(among) else 0.0
        out.append(float((shortest > np.array([limits[leaf] for leaf in leaves.tolist()])).mean()))
    return np.array(out)


# -- the path among the leaves -----------------------------------------------------------------------------------


def _compare(
    cells: _Cells,
    nodes: list[str],
    made: list[Points],
    n_neighbors: int,
    n_null: int,
    alpha: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    rows = [cells.near(node) for node in nodes]
    picked = [_some(part, MAX_CELLS, rng) for part in rows]
    real = [cells.points[part] for part in picked]
    tests = [_test(a, b, n_null, rng) for a, b in zip(made, real, strict=True)]
    distance = np.array([test[0] for test in tests])

    k = min(n_neighbors, len(cells.points) - 1)
    neighbors, _ = nearest_neighbors(cells.points.astype(np.float32), k)
    links = _Links(cells, neighbors)
    leaves = _Leaves(cells, links, made, rng)
    far = _far(made, cells)

    pairs = [(i, i + 1) for i in range(len(nodes) - 1)]
    shared = [len(np.intersect1d(picked[i], picked[j])) for i, j in pairs]
    step = np.array([np.nan, *(_energy(real[i], real[j], both) for (i, j), both in zip(pairs, shared, strict=True))])
    counted = np.array([np.nan, *(links.between(rows[i], rows[j]) for i, j in pairs)])
    gap_p = np.array([np.nan, *(links.p(counted[j], len(rows[i]), len(rows[j])) for i, j in pairs)])
    path_p, random_p = _combined(gap_p[1:]), leaves.random_p(step[1:], n_null, rng)
    is_null = bool(path_p < alpha)
    table = pd.DataFrame(
        {
            "node": nodes,
            "order": np.arange(len(nodes)),
            "n_cells": [len(cells.below(node)) for node in nodes],
            "n_real": [len(part) for part in real],
            "distance": distance,
            "null_distance": [_floor(part, n_null, rng) for part in real],
            "p": [test[1] for test in tests],
            "null_p": _share(leaves.apart, distance),
            "contrast": [leaves.contrast(i, nodes[i], distance[i]) for i in range(len(nodes))],
            "far": far,
            "step": step,
            "step_p": _share(leaves.apart, step),
            "neighbor_p": _share(-leaves.neighbors_apart, -step),
            "links": counted,
            "gap_p": gap_p,
            "gap": (np.nan_to_num(gap_p, nan=1.0) < alpha) | (far > 0.5),
            "path_p": path_p,
            "random_p": random_p,
            "is_null": is_null,
        }
    )
    table.attrs.update(path_p=path_p, random_p=random_p, is_null=is_null)
    return table


def _share(null: Points, values: Points) -> Points:
    """Share of a null at most as large as each value, the value itself counted; missing values stay missing."""
    below = np.searchsorted(np.sort(null), values, side="right")
    return np.where(np.isnan(values), np.nan, (1 + below) / (1 + len(null)))


def _combined(p: Points) -> float:
    """One p-value of several: Fisher's or Simes', whichever is lower, times two."""
    from scipy.stats import combine_pvalues

    if len(p) < 2:
        return float(p[0]) if len(p) else float("nan")
    several = float(combine_pvalues(np.maximum(p, 1e-300), method="fisher").pvalue)
    one = float((np.sort(p) * len(p) / np.arange(1, len(p) + 1)).min())
    return min(1.0, 2 * min(several, one))


class _Links:
    """Pairs of cells that are nearest neighbours, and how many of them leaves have that are joined.

    Parameters
    ----------
    cells
        Real cells.
    neighbors
        Neighbours of each cell, (n, k).
    """

    def __init__(self, cells: _Cells, neighbors: NDArray[np.integer]) -> None:
        n, self.k = neighbors.shape
        one_way = sparse.csr_matrix(
            (np.ones(neighbors.size), (np.repeat(np.arange(n), self.k), neighbors.ravel())), shape=(n, n)
        )
        self.pairs = one_way.maximum(one_way.T).tocsr()
        self.held, group, size = np.unique(cells.leaf, return_inverse=True, return_counts=True)
        scale = self._scale(size[:, None], size[None])
        # as in the lineage graph, but of the cells that are here now
        near = np.triu(link_counts(neighbors, group, len(size)) >= MIN_LINKS * self.k * scale, 1)
        self.joined = np.argwhere(near)
        member = sparse.csr_matrix((np.ones(n), (np.arange(n), group)), shape=(n, len(size)))
        counts = (member.T @ self.pairs @ member).toarray()
        self._counts, self._scales = counts[near], scale[near]

    def _scale(self, a: Any, b: Any) -> Any:
        return np.sqrt(np.maximum(np.minimum(a, b) / self.k, 1.0))

    def between(self, a: Rows, b: Rows) -> float:
        """Pairs of a cell of each; of nodes that share cells each pair once per direction."""
        return float(self.pairs[a][:, b].sum())

    def p(self, count: float, size: int, other: int) -> float:
        """Probability of so few pairs between joined leaves, if they had the sizes given."""
        from scipy.stats import poisson

        if not len(self._counts):
            return float(poisson.cdf(count, MIN_LINKS * self.k * self._scale(size, other)))
        scaled = np.floor(count * self._scales / self._scale(size, other) + 1e-9)
        return float(poisson.cdf(scaled, self._counts).mean())


class _Leaves:
    """Distances between leaves, and of the generated cells from them.

    Parameters
    ----------
    cells
        Real cells.
    links
        Their links.
    made
        Generated cells of each node of a path.
    rng
        Random numbers: which cells stand for large leaves.
    """

    def __init__(self, cells: _Cells, links: _Links, made: list[Points], rng: np.random.Generator) -> None:
        sizes = np.bincount(cells.leaf, minlength=len(cells.shape))[links.held]
        enough = np.flatnonzero(sizes >= 2)
        kept = enough[spread_rows(len(enough), MAX_LEAVES)] if len(enough) > MAX_LEAVES else enough
        self._shape, self._positions = cells.shape, links.held[kept]
        samples = [
            cells.points[_some(np.flatnonzero(cells.leaf == leaf), MAX_LEAF_CELLS, rng)] for leaf in self._positions
        ]
        within = np.array([_within(sample) for sample in samples])
        self._all = np.empty((0, 0))
        self._from_made = np.empty((len(made), 0))
        if samples:
            self._all = 2 * _mean_distances(samples, samples) - within[:, None] - within[None]
            own = np.array([_within(part) for part in made])
            self._from_made = 2 * _mean_distances(made, samples) - own[:, None] - within[None]
        self.apart = self._all[np.triu_indices(len(samples), 1)]
        place = np.full(len(links.held), -1)
        place[kept] = np.arange(len(kept))
        both = place[links.joined] if len(links.joined) else np.empty((0, 2), dtype=int)
        both = both[(both >= 0).all(1)]
        self.neighbors_apart = self._all[both[:, 0], both[:, 1]]

    def contrast(self, i: int, node: str, distance: float) -> float:
        """Share of the leaves outside a node that are no farther from its generated cells than the node itself is."""
        first = int(self._shape.index(node))
        outside = (self._positions < first) | (self._positions >= first + self._shape.sizes[first])
        return float((self._from_made[i, outside] <= distance).mean()) if outside.any() else float("nan")

    def random_p(self, step: Points, n_null: int, rng: np.random.Generator) -> float:
        """Share of paths over random leaves, none twice if there are enough, with a mean step as short."""
        n, length = len(self._all), len(step) + 1
        if not len(step) or n < 2:
            return float("nan")
        if length <= n:
            order = rng.random((n_null, n)).argsort(1)[:, :length]
        else:
            # each step leads to another leaf
            order = np.cumsum(rng.integers(1, n, (n_null, length)), 1) % n
        null = self._all[order[:, :-1], order[:, 1:]].mean(1)
        return float((1 + (null <= step.mean() + 1e-9).sum()) / (n_null + 1))


# -- cells that were withheld ------------------------------------------------------------------------------------


def _against_withheld(
    cells: _Cells, nodes: list[str], made: list[Points], withheld: Points, n_null: int, rng: np.random.Generator
) -> dict[str, Any]:
    real = [cells.points[_some(cells.near(node), MAX_CELLS, rng)] for node in nodes]
    nearest = _cdist(withheld, np.array([part.mean(0) for part in real])).argmin(1)
    tests = [_test(part, withheld, n_null, rng) for part in made]
    last = len(nodes) - 1
    between = [
        _energy(_interpolated(real[max(i - 1, 0)], real[min(i + 1, last)], withheld, len(made[i]), rng), withheld)
        if last
        else np.nan
        for i in range(len(nodes))
    ]
    return {
        "withheld_share": np.bincount(nearest, minlength=len(nodes)) / len(withheld),
        "withheld_distance": [test[0] for test in tests],
        "interpolation_distance": between,
        "withheld_null_distance": _floor(withheld, n_null, rng),
        "withheld_p": [test[1] for test in tests],
    }


def _interpolated(a: Points, b: Points, onto: Points, n: int, rng: np.random.Generator) -> Points:
    """Points between random cells of two samples, all at the share of the way that is nearest to a third mean."""
    way = b.mean(0) - a.mean(0)
    share = float(np.clip((onto.mean(0) - a.mean(0)) @ way / max(float(way @ way), 1e-12), 0.0, 1.0))
    return (1 - share) * a[rng.integers(len(a), size=n)] + share * b[rng.integers(len(b), size=n)]
