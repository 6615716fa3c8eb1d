"""Which end each cell is on the way to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import entropy

from hdtree_sc._errors import listing, require_column, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.graph import Peaks, absorption, find_peaks, on_bridge, resolution, tip_cells, without_bridges
from hdtree_sc.tl._direction import forward_time
from hdtree_sc.tl._ends import lineage_ends
from hdtree_sc.tl._parts import bridge_cells
from hdtree_sc.tl._terminal import as_names, given_ends, names_of_ends
from hdtree_sc.tree import Tree, node_of_cells, subtree_sums

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

Name = str | float
Method = Literal["lineage", "peaks"]
Terminal = Name | Sequence[Name] | Mapping[str, Name | Sequence[Name]]


def fate_probabilities(
    adata: AnnData,
    terminal: Terminal | None = None,
    key: str = "hdtree",
    *,
    groupby: str | None = None,
    root: Name | Sequence[Name] | None = None,
    time_key: str | None = None,
    n_terminal: int | None = None,
    min_significance: float = 3.0,
    method: Method = "lineage",
    copy: bool = False,
) -> AnnData | None:
    """Find the ends of development, and the probability of each cell to come to each of them.

    Ends are those of the lineage tree: milestones that nothing comes from and whose links lead back. Cells then walk
    at random over the graph, steps back in pseudotime being rarer the farther they go, until they come to the later
    half of such a milestone.

    Parameters
    ----------
    adata
        Cells with :func:`hdtree_sc.tl.lineage_graph` and :func:`hdtree_sc.tl.pseudotime`.
    terminal
        The ends, if they are known: names of nodes, of cells, or with `groupby` of its groups; one name, a list, or a
        mapping of an end's name to one or several of them. A node or group is an end with all its cells, a single cell
        with its neighbours. What is the name of a cell and of a node needs ``"cell:<name>"`` or ``"node:<name>"``. By
        default ends are found, see `method`.
    key
        Key of the tree.
    groupby
        ``obs`` column whose groups `terminal` and `root` name. Ends that are found are named after the most frequent
        group of their cells.
    root
        One or several starts: cells, nodes, or groups of `groupby`. Pseudotime is then the way from the nearest of
        them and ``obs["<key>_pseudotime"]`` is not read. It is not written either.
    time_key
        ``obs`` column of a measured time (numbers, or categories that read as numbers; missing for some cells is fine)
        that says which way is forward. It is averaged over neighbours, and with pseudotime, if there is any, for the
        order within one time.
    n_terminal
        How many ends to find: the most significant so many peaks, whatever `method` and `min_significance`.
    min_significance
        Standard errors by which a peak has to rise above its saddle, for ``method="peaks"``. On 17 simulated trees, 2
        to 4 made no difference to speak of.
    method
        How ends are found. ``"lineage"``: those of :func:`lineage_tree`, or if it was not run for this order of the
        cells, of the tree that it would find. ``"peaks"``: peaks of pseudotime on the cell graph, from which every way
        leads back, that rise above the saddle to a higher one by `min_significance` standard errors.
    copy
        Whether to annotate and return a copy.

    Returns
    -------
    The annotated copy with ``copy=True``, else None.

    Sets the following fields:

    ``adata.obsm["<key>_fates"]`` : DataFrame (n_cells, n_ends)
        Probability of each cell to come to each end; columns are named after the ends, latest first. Rows sum to 1.
        Ends are named after the leaf that holds most of their cells, or after the group (see `groupby`); a second end
        of the same name gets ``" (2)"``, and ``/`` in a name becomes ``|``, since files do not allow it.
    ``adata.obs["<key>_fate"]`` : categorical
        The most likely end.
    ``adata.obs["<key>_fate_entropy"]`` : float64
        Entropy of the probabilities, natural logarithm as in Palantir: 0 where all is decided, ``log(n_ends)`` where
        nothing is.
    ``adata.obs["<key>_terminal"]`` : categorical
        End that the cell is a terminal cell of, missing for all others.
    ``adata.uns["<key>"]["node_fates"]`` : DataFrame (n_nodes, n_ends)
        Mean over the cells of each node; missing for nodes without cells.
    ``adata.uns["<key>"]["fates"]`` : dict
        ``"terminal"`` (DataFrame, a row for each end: ``node``, ``n_cells``, ``time``, and for ends that are peaks
        ``saddle``, ``persistence`` in widths of the walk, ``significance``), ``"peaks"`` (the same for all peaks with a
        significance of 1 or more, whether they count, ``is_terminal``, or not; empty where ends are no peaks),
        ``"found"`` (whether ends were found), ``"direction"`` (what says where forward is: ``"pseudotime"``, ``"root"``
        or the name of `time_key`), ``"width"``, ``"min_significance"``, ``"residual"`` (the largest of the equations of
        the walk) and ``"error"`` (a bound of the error of every probability).

    Raises
    ------
    KeyError
        If the graph, the pseudotime, `groupby` or `time_key` is missing.
    ValueError
        If an end or a root does not exist, two ends share cells, or a number is out of its range.
    RuntimeError
        If the equations of the walk could not be solved to 0.001.

    Notes
    -----
    The walk is that of CellRank's pseudotime kernel (Lange et al., Nature Methods 2022) and Palantir (Setty et al.,
    Nature Biotechnology 2019), with a soft bias as in VIA: a step of ``back`` towards the start is
    ``exp(-back / width)`` times as likely. ``width`` is the root of the mean square difference of pseudotime between
    neighbours: what is closer, pseudotime cannot distinguish. Edges are as strong as ``exp(-d**2 / 2)``, of a latent
    distance ``d`` in units of that to the last neighbour. The probability of every end is solved for by itself; a peak
    of pseudotime that is no end holds walks for very long and is left in the end, to where its saddles lead. Time and
    memory grow with the edges of the graph.

    An end that is not later than the branch point it comes from is not found, nor is one whose cells the graph joins
    to those of another, nor one of a handful of cells.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ht.tl.pseudotime(adata, root_key="cell_type", root_value="Neuroblast_ASG_AWA")
    >>> ht.tl.fate_probabilities(adata)
    >>> ht.tl.fate_probabilities(adata, ["ASG", "AWA"], groupby="cell_type")
    >>> sorted(adata.obsm["hdtree_fates"])
    ['ASG', 'AWA']
    """
    keys = Keys(key)
    stored = require_uns(adata, key, "hdtree_sc.tl.tree(adata, model) and hdtree_sc.tl.lineage_graph(adata)")
    require_uns(adata, keys.neighbors, f"hdtree_sc.tl.lineage_graph(adata, key={key!r})")
    _check(adata, terminal, groupby, n_terminal, min_significance, method)
    shape = Tree.from_adata(adata, key=key)
    leaf = node_of_cells(adata, shape, key=key)
    strengths = walk_strengths(adata, key=key)
    time, direction = forward_time(adata, shape, strengths, root=root, groupby=groupby, time_key=time_key, key=key)
    width = resolution(strengths, time)

    groups = None if groupby is None else adata.obs[groupby]
    table = pd.DataFrame()
    if terminal is not None:
        names, end = given_ends(adata, shape, leaf, strengths, terminal, groupby)
    elif method == "peaks" or n_terminal is not None:
        peaks = find_peaks(strengths, time)
        tips = _chosen(peaks, n_terminal, min_significance)
        end = tip_cells(peaks, tips)
        names = names_of_ends(end, len(tips), shape, leaf, groups)
        table = _peak_table(peaks, names, tips, shape, leaf, width)
    else:
        end, n_ends = lineage_ends(adata, shape, leaf, time, direction, key=key)
        names = names_of_ends(end, n_ends, shape, leaf, groups)
    order = np.argsort([-float(time[end == number].max()) for number in range(len(names))], kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    end, names = np.where(end >= 0, rank[end], -1), as_names([names[i] for i in order])
    walk = absorption(strengths, time, end, len(names), width)
    found = walk.probability

    held = np.bincount(leaf, minlength=len(shape))
    sums = np.stack([np.bincount(leaf, weights=column, minlength=len(shape)) for column in found.T], 1)
    total, count = subtree_sums(shape, sums), subtree_sums(shape, held)
    mean = np.divide(total, count[:, None], out=np.full(total.shape, np.nan), where=count[:, None] > 0)

    out = adata.copy() if copy else adata
    out.obsm[keys.fates] = pd.DataFrame(found, index=adata.obs_names, columns=names)
    out.obs[keys.fate] = pd.Categorical.from_codes(found.argmax(1), names)
    out.obs[keys.fate_entropy] = entropy(found, axis=1)
    out.obs[keys.terminal] = pd.Categorical.from_codes(end, names)
    stored = out.uns[key]
    stored["node_fates"] = pd.DataFrame(mean, index=list(shape.nodes), columns=names)
    stored["fates"] = {
        "terminal": _terminal_table(names, end, time, shape, leaf, table),
        "peaks": table,
        "found": terminal is None,
        "direction": direction,
        "width": width,
        "min_significance": float(min_significance),
        "residual": walk.residual,
        "error": walk.error,
    }
    return out if copy else None


def walk_strengths(adata: AnnData, *, key: str) -> sparse.csr_matrix:
    """Cell graph that cells walk over: symmetric, (n, n), float64.

    Parameters
    ----------
    adata
        Cells with :func:`lineage_graph`.
    key
        Key of the tree.
    """
    keys = Keys(key)
    strengths = sparse.csr_matrix(adata.obsp[keys.connectivities], dtype=np.float64)
    strengths.setdiag(0.0)
    strengths.eliminate_zeros()
    strengths.sort_indices()
    # exp(-d ** 2) as a Gaussian of standard deviation 1: the tail keeps what a contrastive latent tears apart together
    strengths.data = np.sqrt(strengths.data)
    bridges = bridge_cells(adata, key)
    if len(bridges) == 0:
        return strengths
    if adata.uns[key].get("pseudotime", {}).get("disconnected") == "separate":
        return without_bridges(strengths, bridges)
    # the only way is as good as any
    strengths.data = np.where(on_bridge(strengths, bridges), np.median(strengths.data), strengths.data)
    return strengths


def _check(
    adata: AnnData,
    terminal: Terminal | None,
    groupby: str | None,
    n_terminal: int | None,
    min_significance: float,
    method: str,
) -> None:
    if method not in get_args(Method):
        msg = f"method: {method!r} is unknown; choose one of {listing(get_args(Method))}."
        raise ValueError(msg)
    if groupby is not None:
        require_column(adata, groupby, "groupby")
    if not min_significance > 0:
        msg = f"min_significance: {min_significance} given, a positive number of standard errors wanted."
        raise ValueError(msg)
    if n_terminal is None:
        return
    if terminal is not None:
        msg = "n_terminal and terminal exclude each other: name the ends or say how many to find."
        raise ValueError(msg)
    if n_terminal < 1:
        msg = f"n_terminal: {n_terminal} given, at least 1 wanted."
        raise ValueError(msg)


def _chosen(peaks: Peaks, n_terminal: int | None, min_significance: float) -> NDArray[np.int64]:
    """Peaks that are tips; there is always one."""
    if n_terminal is None:
        return np.arange(max(1, int((peaks.significance >= min_significance).sum())))
    if n_terminal > len(peaks):
        msg = f"n_terminal: {n_terminal} wanted, but pseudotime has only {len(peaks)} peaks; name the ends (terminal=)."
        raise ValueError(msg)
    return np.arange(n_terminal)


def _peak_table(
    peaks: Peaks, names: list[str], tips: NDArray[np.int64], shape: Tree, leaf: NDArray[np.int64], width: float
) -> pd.DataFrame:
    """Peaks that count, or nearly do; the name of an end is "" for those that do not."""
    is_tip = np.zeros(len(peaks), dtype=bool)
    is_tip[tips] = True
    name = np.full(len(peaks), "", dtype=object)
    name[tips] = names
    table = pd.DataFrame(
        {
            "name": name,
            "node": np.array(shape.nodes, dtype=object)[leaf[peaks.cell]],
            "n_cells": peaks.n_cells,
            "time": peaks.height,
            "saddle": peaks.saddle,
            "persistence": (peaks.height - peaks.saddle) / max(width, 1e-12),
            "significance": peaks.significance,
            "is_terminal": is_tip,
        },
        index=[str(number) for number in range(len(peaks))],
    )
    return table[(table["significance"] >= 1.0) | table["is_terminal"]].copy()


def _terminal_table(
    names: list[str],
    end: NDArray[np.int64],
    time: NDArray[np.float64],
    shape: Tree,
    leaf: NDArray[np.int64],
    peaks: pd.DataFrame,
) -> pd.DataFrame:
    members = [np.flatnonzero(end == number) for number in range(len(names))]
    table = pd.DataFrame(
        {
            "node": [str(shape.nodes[np.bincount(leaf[cells]).argmax()]) for cells in members],
            "n_cells": [len(cells) for cells in members],
            "time": [float(time[cells].max()) for cells in members],
        },
        index=names,
    )
    if len(peaks):
        of_end = peaks[peaks["is_terminal"]].set_index("name")
        table = table.join(of_end[["saddle", "persistence", "significance"]])
    return table
