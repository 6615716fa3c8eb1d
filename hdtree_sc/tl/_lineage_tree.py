"""The lineage: the rooted tree that development runs along, with cells on its edges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from hdtree_sc._errors import require_column, require_obsm, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.graph import Backbone, edge_positions, edge_support, medoid, order_along
from hdtree_sc.tl._direction import known_times, measured_time
from hdtree_sc.tl._ends import grown_backbone, milestone_groupings
from hdtree_sc.tl._lineage_graph import lineage_graph
from hdtree_sc.tl._pseudotime import pseudotime, root_cells, write_node_times
from hdtree_sc.tree import Tree, node_of_cells

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

RUN = "hdtree_sc.tl.tree(adata, model)"
EARLIEST = 0.02
"""Share of the cells with a time whose medoid is the root where only times are given."""


def lineage_tree(
    adata: AnnData,
    root: str | None = None,
    *,
    root_key: str | None = None,
    root_value: object = None,
    groupby: str | None = None,
    time_key: str | None = None,
    milestone_key: str | None = None,
    min_cells: int = 10,
    n_boot: int = 0,
    seed: int = 0,
    key: str = "hdtree",
    copy: bool = False,
) -> AnnData | None:
    """Find the lineage: progenitors above their descendants, cells on the edges between.

    The learned tree puts what is alike together, a mother beside her daughters. Here groups of cells (milestones) are
    ordered by pseudotime, and each comes from the earlier one that it has most neighbours with, over those expected of
    groups of their size. A milestone that nothing comes from is an end if its links lead back; where many lead to cells
    beside it, it joins those. Milestones are nodes of the learned tree, at the resolution that explains most links.

    Parameters
    ----------
    adata
        Cells on a tree, see :func:`hdtree_sc.tl.tree`. :func:`lineage_graph` is run if it has not been.
    root
        Name of the root cell, or of a node, whose medoid is the root; see :func:`pseudotime`.
    root_key
        ``obs`` column of groups, in place of ``root``.
    root_value
        Group whose medoid is the root.
    groupby
        ``obs`` column by which milestones are described and named in figures.
    time_key
        ``obs`` column of a measured time, which cells may lack. It counts half in the order of the cells, and without
        a root the medoid of the earliest 2 % of the cells is the root.
    milestone_key
        ``obs`` column of groups to take as milestones, in place of nodes of the learned tree.
    min_cells
        Least number of cells of an end.
    n_boot
        Replicates for the support of edges; 0 for none. 50 are enough.
    seed
        Seed of the replicates.
    key
        Key of the tree.
    copy
        Whether to annotate and return a copy.

    Returns
    -------
    The annotated copy with ``copy=True``, else None.

    Sets the following fields, and those of :func:`pseudotime`:

    ``adata.uns["<key>"]["lineage"]["milestones"]`` : DataFrame
        One milestone a row, each behind its parent: ``parent`` ("" for the root), ``pseudotime`` (median of its
        cells), ``n_cells``, ``is_terminal``, ``branch``, ``support`` (share of the replicates in which it comes from
        the same branch; missing for the root and without ``n_boot``), and with ``groupby`` its commonest group
        (``label``) and the share of its cells that are of it (``label_share``).
    ``adata.uns["<key>"]["lineage"]["composition"]`` : DataFrame
        Cells of each milestone (rows) in each group (columns), with ``groupby``.
    ``adata.uns["<key>"]["lineage"]["params"]`` : dict
        ``root_cell``, ``groupby``, ``time_key``, ``milestone_key``, ``n_boot``, and ``modularity`` of the tree.
    ``adata.obs["<key>_milestone"]``, ``adata.obs["<key>_branch"]`` : categorical
        Milestone, and branch (a stretch between forks, named by the milestones at its ends).
    ``adata.obs["<key>_edge_position"]`` : float64
        Share, 0 to 1, of the edge that the cell is on which lies before it.
    ``adata.obs["<key>_pseudotime"]`` : float64
        Order of the cells, 0 to 1: that of :func:`pseudotime`, by which the tree is built, and where the links between
        milestones agree with the tree, half of it the way along the tree.

    Raises
    ------
    KeyError
        If the tree or a column is missing.
    ValueError
        If the root does not exist or is not given, a column holds nothing that helps, cells lack a milestone of
        ``milestone_key``, or a number is out of range.

    Notes
    -----
    Milestones are found by likeness and their order by pseudotime, so that an end is a state where transcription comes
    to rest among the cells there are: the cell cycle makes none as long as cells go round in it, but a state that all
    cells leave very fast may look like one. What lies behind the root cell counts as the root's own state.

    References
    ----------
    Links over those expected as in PAGA (Wolf et al., Genome Biology 2019); order, ends and resolution are ours.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ht.tl.lineage_tree(adata, root_key="cell_type", root_value="Neuroblast_ASG_AWA", groupby="cell_type")
    >>> milestones = adata.uns["hdtree"]["lineage"]["milestones"]
    >>> ends = milestones.loc[milestones["is_terminal"], "label"]
    """
    keys = Keys(key)
    require_uns(adata, key, RUN)
    for name, value, least in (("n_boot", n_boot, 0), ("min_cells", min_cells, 1)):
        if value < least:
            msg = f"{name}: {value} given, at least {least} wanted."
            raise ValueError(msg)
    shape = Tree.from_adata(adata, key=key)
    leaf = node_of_cells(adata, shape, key=key)
    latent = np.asarray(require_obsm(adata, keys.latent, RUN))
    labels = None if groupby is None else require_column(adata, groupby, "groupby")
    given = None if milestone_key is None else _milestones_of(adata, milestone_key)
    # a column without times is refused also where it does not name the root
    first = None if time_key is None else _earliest(adata, time_key)
    if first is None or root is not None or root_key is not None:
        first = root_cells(adata, shape, leaf, root, root_key, root_value)
    start = medoid(latent, first)

    out = adata.copy() if copy else adata
    if keys.neighbors not in out.uns:
        lineage_graph(out, key)
    pseudotime(out, f"cell:{out.obs_names[start]}", key=key)
    order = out.obs[keys.pseudotime].to_numpy(dtype=float)
    distances, strengths = (sparse.csr_matrix(out.obsp[name]) for name in (keys.distances, keys.connectivities))
    measured = None if time_key is None else measured_time(out, strengths, time_key)
    first_order = _with_time(order, measured)
    groupings = milestone_groupings(shape, leaf, first_order) if given is None else [given]
    grown, plain, neighbors = grown_backbone(out, keys, groupings, first_order, start, min_cells)
    order = _with_time(order_along(distances, strengths, order, grown, start), measured)
    out.obs[keys.pseudotime] = order
    write_node_times(out, keys, shape, leaf, order)
    support = edge_support(grown, neighbors, n_boot, seed) if n_boot else np.full(len(grown.parent), np.nan)
    edge, share = edge_positions(grown, plain)
    table, branch = _described(grown, order, support)
    number = np.empty(len(table), dtype=np.int64)
    number[grown.order] = np.arange(len(table))

    out.obs[keys.milestone] = pd.Categorical.from_codes(number[grown.group], list(table.index))
    names = list(dict.fromkeys(branch[grown.order]))
    out.obs[keys.branch] = pd.Categorical(branch[edge], categories=names)
    out.obs[keys.edge_position] = share
    held = {
        "milestones": table,
        "params": {
            "root_cell": str(out.obs_names[start]), "groupby": groupby or "", "time_key": time_key or "",
            "milestone_key": milestone_key or "", "n_boot": int(n_boot), "modularity": grown.modularity,
        },
    }  # fmt: skip
    if labels is not None:
        counts = pd.crosstab(out.obs[keys.milestone], labels).reindex(table.index, fill_value=0)
        counts.columns = [str(name) for name in counts.columns]
        counts.index.name = None
        held["composition"] = counts
        total = np.maximum(counts.sum(axis=1).to_numpy(), 1)
        held["milestones"] = table.assign(
            label=counts.columns.to_numpy(dtype=object)[counts.to_numpy().argmax(1)],
            label_share=counts.to_numpy().max(1) / total,
        )
    out.uns[key]["lineage"] = held
    return out if copy else None


def _with_time(order: NDArray[np.float64], measured: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Pseudotime in [0, 1], half of it from a measured time if there is one."""
    both = order if measured is None else (order + measured) / 2
    return (both - both.min()) / max(float(np.ptp(both)), 1e-12)


def _described(
    grown: Backbone, time: NDArray[np.float64], support: NDArray[np.float64]
) -> tuple[pd.DataFrame, NDArray[np.object_]]:
    """Table of the milestones, each behind its parent, and the name of each one's branch."""
    order, parent, stretch = grown.order, grown.parent, grown.branch
    middle = pd.Series(time).groupby(grown.group).median().to_numpy()
    for milestone in order[1:]:
        middle[milestone] = max(middle[milestone], middle[parent[milestone]])
    name = np.empty(len(order), dtype=object)
    name[order] = [f"M{i + 1}" for i in range(len(order))]
    branch = np.empty(len(order), dtype=object)
    for number in np.unique(stretch):
        members = order[stretch[order] == number]
        above = parent[members[0]]
        ends = [name[members[0] if above < 0 else above], name[members[-1]]]
        branch[members] = ends[0] if ends[0] == ends[1] else "-".join(ends)
    size = np.bincount(grown.group, minlength=len(order))
    table = pd.DataFrame(
        {
            "parent": [name[parent[i]] if parent[i] >= 0 else "" for i in order],
            "pseudotime": middle[order],
            "n_cells": size[order],
            "is_terminal": grown.is_end[order],
            "branch": branch[order],
            "support": support[order],
        },
        index=pd.Index(name[order], dtype=object),
    )
    return table, branch


def _milestones_of(adata: AnnData, name: str) -> NDArray[np.int64]:
    codes, groups = pd.factorize(require_column(adata, name, "milestone_key"), sort=True)
    if (codes < 0).any():
        msg = f"milestone_key: {(codes < 0).sum()} cells have no value in adata.obs[{name!r}]; each needs a milestone."
        raise ValueError(msg)
    if len(groups) > adata.n_obs // 2:
        msg = f"milestone_key: adata.obs[{name!r}] has {len(groups)} values for {adata.n_obs} cells; groups are wanted."
        raise ValueError(msg)
    return codes.astype(np.int64)


def _earliest(adata: AnnData, time_key: str) -> NDArray[np.int64]:
    """Rows of the earliest cells."""
    time, known = known_times(adata, time_key)
    return np.flatnonzero(known & (time <= np.quantile(time[known], EARLIEST)))
