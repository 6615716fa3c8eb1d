"""Order cells from a root."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd

from hdtree_sc._errors import listing, require_obsm, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.graph import (
    Interval,
    bootstrap,
    consensus_order,
    finished,
    links_of_starts,
    medoid,
    order_from,
    parts_of,
    within,
    without_bridges,
)
from hdtree_sc.tl._lineage_graph import measured_positions, stored_neighbors
from hdtree_sc.tl._parts import bridges_of, starts_of
from hdtree_sc.tl._root import start_cells
from hdtree_sc.tree import Tree, node_of_cells, subtree_sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

Method = Literal["consensus", "geodesic", "distance"]
RESOLUTIONS = (8, 12, 16, 24, 32)
"""Numbers of groups of the consensus, as far as the tree has so many leaves and groups have cells enough."""
CELLS_PER_GROUP = 25
"""Groups of fewer cells have too few links to count."""


def pseudotime(
    adata: AnnData,
    root: str | None = None,
    *,
    root_key: str | None = None,
    root_value: object = None,
    key: str = "hdtree",
    n_boot: int = 0,
    seed: int = 0,
    disconnected: Literal["bridge", "separate"] = "bridge",
    method: Method = "consensus",
    copy: bool = False,
) -> AnnData | None:
    """Order cells by their way from a root.

    Ways run over the cell graph of :func:`lineage_graph`, are as long as expression says, and are averaged over
    neighbours in the latent: expression carries the order between types, the latent that within one. A shortest way
    trusts the weakest link, so that by default the order is the median over many graphs: between groups of cells that
    are hardly linked links go, at several resolutions of the tree, and of all others a random half stays. Those from
    the root to its nearest cells always stay.

    Parameters
    ----------
    adata
        Cells with :func:`hdtree_sc.tl.lineage_graph`.
    root
        Name of the root cell, or of a node, whose medoid is the root. Where a cell and a node have one name,
        ``"cell:<name>"`` or ``"node:<name>"``.
    root_key
        ``obs`` column of groups, in place of ``root``.
    root_value
        Group whose medoid is the root. Numbers match as text; a missing value is no group.
    key
        Key of the tree.
    n_boot
        Replicates of the order, on resampled cells and edges of the graph and from a resampled root, nothing being
        trained again; 0 for none. 50 are enough for an interval.
    seed
        Seed of the replicates.
    disconnected
        What to do with data that fall into parts: groups of leaves between which there are only bridges, or too few
        spurious edges for any two leaves to be neighbours. ``"bridge"``: one order over these; a warning says so.
        ``"separate"``: each part has an order of its own from 0 to 1, the root's part from the root, the others from
        the cell at which the way from the root enters them.
    method
        ``"consensus"``: the median described above. ``"geodesic"``: the one shortest way over the links that
        :func:`lineage_graph` trusts. ``"distance"``: the straight distance in expression (and in predicted
        time, for a model with ``time_key``).
    copy
        Whether to annotate and return a copy.

    Returns
    -------
    The annotated copy with ``copy=True``, else None.

    Sets the following fields:

    ``adata.obs["<key>_pseudotime"]`` : float64
        From 0 at the root to 1; finite for every cell.
    ``adata.obs["<key>_pseudotime_low"]``, ``["<key>_pseudotime_high"]``, ``["<key>_pseudotime_sd"]`` : float64
        Interval that holds 95 % of the replicates and the estimate, in [0, 1], and their standard deviation. Only
        with ``n_boot``. It says how much the order depends on which cells were sampled, and not how far pseudotime
        is from time: see the notes.
    ``adata.obs["<key>_part"]`` : categorical
        Part of each cell; ``"0"`` holds the root, the others are numbered by size. Of data in one part only with
        ``disconnected="separate"``.
    ``adata.uns["<key>"]["nodes"]["pseudotime"]`` : float64
        Mean over the cells of each node, missing for nodes without cells. ``n_cells`` is counted again beside it.
    ``adata.uns["<key>"]["pseudotime"]`` : dict
        ``root_cell`` and ``root_node`` (its leaf), ``n_parts``, ``disconnected``, ``starts`` (cell that each order
        starts from), ``method`` and ``n_boot``.

    Raises
    ------
    KeyError
        If the graph is missing.
    ValueError
        If the root does not exist, is not given, or is the name of both a cell and a node, if cells are on no node, if
        ``n_boot`` is 1 or negative, or ``disconnected`` or ``method`` are unknown.

    Notes
    -----
    Time grows with the edges of the cell graph, of which the consensus has about forty to go over and each replicate
    of ``n_boot`` one. Replicates run over the links that :func:`lineage_graph` trusts, whatever the method.

    A bootstrap sees the scatter of an estimate and not its bias: pseudotime measures change of expression, which need
    not be in proportion to time, and no resampling of cells can correct that. On simulated trees the 95 % interval of a
    cell's rank held the true rank of 48 to 87 % of the cells, and wide intervals were where errors were large (rank
    correlation 0.2 to 0.7).

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ht.tl.pseudotime(adata, root_key="cell_type", root_value="Neuroblast_ASG_AWA")
    >>> root = adata.uns["hdtree"]["pseudotime"]["root_cell"]
    >>> float(adata.obs.loc[root, "hdtree_pseudotime"])
    0.0
    """
    keys = Keys(key)
    require_uns(adata, key, "hdtree_sc.tl.tree(adata, model) and hdtree_sc.tl.lineage_graph(adata)")
    require_uns(adata, keys.neighbors, "hdtree_sc.tl.lineage_graph(adata)")
    if n_boot < 0 or n_boot == 1:
        msg = f"n_boot: {n_boot} given; 0 for no interval, or two replicates or more (50 are enough)."
        raise ValueError(msg)
    if disconnected not in ("bridge", "separate"):
        msg = f"disconnected: {disconnected!r} is unknown; choose 'bridge' or 'separate'."
        raise ValueError(msg)
    if method not in get_args(Method):
        msg = f"method: {method!r} is unknown; choose one of {listing(get_args(Method))}."
        raise ValueError(msg)
    shape = Tree.from_adata(adata, key=key)
    leaf = node_of_cells(adata, shape, key=key)
    latent = np.asarray(require_obsm(adata, keys.latent, "hdtree_sc.tl.tree(adata, model)"))
    group = root_cells(adata, shape, leaf, root, root_key, root_value)
    start = medoid(latent, group)
    links, connectivities = adata.obsp[keys.distances].tocsr(), adata.obsp[keys.connectivities].tocsr()
    distances = within(links, connectivities)
    bridges = bridges_of(adata, distances, shape, leaf, key=key)
    part = parts_of(distances, bridges, start)
    n_parts = int(part.max()) + 1
    one_order = disconnected == "bridge"
    if n_parts > 1 and one_order:
        msg = (
            f"The cells fall into {n_parts} parts that hardly any neighbours join (adata.obs[{keys.part!r}]): the "
            "order between them is over bridges and means little. disconnected='separate' orders each part by itself."
        )
        warnings.warn(msg, UserWarning, stacklevel=2)
    if one_order:
        starts, of_order = np.array([start]), np.zeros_like(part)
    else:
        starts, of_order = starts_of(adata, distances, part, start, key=key), part
        links, distances, connectivities = (
            without_bridges(graph, bridges) for graph in (links, distances, connectivities)
        )
        bridges = bridges[:0]
    if method == "consensus":
        first = links_of_starts(measured_positions(adata, keys), starts, of_order, stored_neighbors(adata, keys))
        time = consensus_order(links, connectivities, resolutions(shape, leaf), starts, of_order, first)
    elif method == "geodesic":
        time = order_from(distances, connectivities, starts, of_order)
    else:
        points = measured_positions(adata, keys)
        time = finished(np.linalg.norm(points - points[starts][of_order], axis=1), connectivities, starts, of_order)
    interval = None
    if n_boot:
        interval = bootstrap(
            distances, connectivities, bridges, starts, of_order, time,
            root_group=group if len(group) > 1 else None, latent=latent, n_boot=n_boot, seed=seed,
        )  # fmt: skip

    out = adata.copy() if copy else adata
    _write_cells(out, keys, time, interval, part if n_parts > 1 or not one_order else None)
    write_node_times(out, keys, shape, leaf, time)
    out.uns[key]["pseudotime"] = {
        "root_cell": str(adata.obs_names[start]),
        "root_node": str(shape.nodes[leaf[start]]),
        "n_parts": n_parts,
        "disconnected": disconnected,
        "method": method,
        "starts": adata.obs_names[starts].to_numpy(dtype=object),
        "n_boot": int(n_boot),
    }
    return out if copy else None


def write_node_times(out: AnnData, keys: Keys, shape: Tree, leaf: NDArray[np.int64], time: NDArray[np.float64]) -> None:
    """Write the mean pseudotime of each node's cells, and their number, to the table of nodes.

    Parameters
    ----------
    out
        Cells on the tree.
    keys
        Names of the fields.
    shape
        The tree.
    leaf
        Position of each cell's leaf in it, (n,).
    time
        Pseudotime of each cell, (n,).
    """
    total = subtree_sums(shape, np.bincount(leaf, weights=time, minlength=len(shape)))
    count = subtree_sums(shape, np.bincount(leaf, minlength=len(shape)))
    mean = np.divide(total, count, out=np.full(len(shape), np.nan), where=count > 0)
    stored = out.uns[keys.key]
    order = shape.index([str(name) for name in stored["nodes"].index])
    stored["nodes"] = stored["nodes"].assign(n_cells=shape.n_cells[order], pseudotime=mean[order])


def resolutions(shape: Tree, leaf: NDArray[np.int64], n_groups: Sequence[int] = RESOLUTIONS) -> list[NDArray[np.int64]]:
    """Group of each cell, (n,), in the tree cut to some numbers of leaves; the whole tree where it has fewer.

    Numbers that leave fewer than 25 cells to a group are left out, but for the lowest.

    Parameters
    ----------
    shape
        The tree.
    leaf
        Position of each cell's leaf in it, (n,).
    n_groups
        Numbers of groups.
    """
    held, code = np.unique(leaf, return_inverse=True)
    names = np.array(shape.nodes, dtype=object)[held]
    numbers = sorted({min(n, len(shape.leaves)) for n in n_groups})
    most = max(numbers[0], len(leaf) // CELLS_PER_GROUP)
    cuts = [shape.cut(n_leaves=n) for n in numbers if n <= most]
    return [np.unique(cut.index(cut.project(names, within=shape)), return_inverse=True)[1][code] for cut in cuts]


def root_cells(
    adata: AnnData, shape: Tree, leaf: NDArray[np.int64], root: str | None, root_key: str | None, root_value: object
) -> NDArray[np.int64]:
    """Rows of the cells whose medoid is the root."""
    if (root is None) == (root_key is None):
        msg = "root: name one start: a cell or a node (root=), or a group (root_key= and root_value=)."
        raise ValueError(msg)
    if root_key is None:
        return start_cells(adata, shape, leaf, root, groupby=None, argument="root")
    if root_value is None:
        msg = f"root_value: say which group of adata.obs[{root_key!r}] is the root."
        raise ValueError(msg)
    return start_cells(adata, shape, leaf, root_value, groupby=root_key, argument="root_value")


def _write_cells(
    out: AnnData,
    keys: Keys,
    time: NDArray[np.float64],
    interval: Interval | None,
    part: NDArray[np.int64] | None,
) -> None:
    # what an earlier call said of interval and parts does not stand
    earlier = [keys.pseudotime_low, keys.pseudotime_high, keys.pseudotime_sd, keys.part]
    out.obs.drop(columns=earlier, errors="ignore", inplace=True)
    out.obs[keys.pseudotime] = time
    if interval is not None:
        out.obs[keys.pseudotime_low] = interval.low
        out.obs[keys.pseudotime_high] = interval.high
        out.obs[keys.pseudotime_sd] = interval.sd
    if part is not None:
        names = [str(number) for number in range(int(part.max()) + 1)]
        out.obs[keys.part] = pd.Categorical.from_codes(part, names)
