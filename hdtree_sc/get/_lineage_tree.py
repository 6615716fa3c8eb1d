"""The lineage as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hdtree_sc._errors import require_column, require_obs, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.tree import Tree, subtree_sums

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

RUN = "hdtree_sc.tl.lineage_tree(adata, root=...)"


def lineage_tree(adata: AnnData, groupby: str | None = None, key: str = "hdtree") -> Tree:
    """The lineage that :func:`hdtree_sc.tl.lineage_tree` found: a tree whose inner nodes hold cells.

    Parameters
    ----------
    adata
        Annotated data, also if read back from a file.
    groupby
        ``obs`` column of groups: the tree of these then, each at its place on the lineage. A group stands at the
        deepest milestone that has most of its cells at or below it; where groups part at a milestone at which none
        stands, the milestone is a node of its own.
    key
        Key of the tree.

    Returns
    -------
    Tree with ``lengths`` in pseudotime, ``support`` if it was asked for, and ``n_cells`` of each subtree, those of a
    node itself included. A copy: the data are not changed.

    Raises
    ------
    KeyError
        If there is no lineage, or no such column.
    ValueError
        If no cell has a group.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ht.tl.lineage_tree(adata, root_key="cell_type", root_value="Neuroblast_ASG_AWA", groupby="cell_type")
    >>> tree = ht.get.lineage_tree(adata, "cell_type")
    >>> {"ASG", "AWA"} <= set(tree.nodes)
    True
    >>> text = tree.to_newick()
    """
    stones = milestones(adata, key)
    if groupby is not None:
        return _of_groups(adata, stones, groupby, key)
    held = require_obs(adata, Keys(key).milestone, RUN).value_counts()
    shape = shape_of(stones)
    row = stones.loc[list(shape.nodes)]
    own = held.reindex(row.index, fill_value=0).to_numpy()
    return Tree(
        shape.nodes, shape.parents, lengths=_lengths(shape, row["pseudotime"].to_numpy()),
        n_cells=subtree_sums(shape, own), support=row["support"].to_numpy(dtype=float),
    )  # fmt: skip


def milestones(adata: AnnData, key: str) -> pd.DataFrame:
    """Table of the milestones of a lineage.

    Parameters
    ----------
    adata
        Annotated data.
    key
        Key of the tree.

    Raises
    ------
    KeyError
        If there is no lineage; the message says what to run.
    """
    stored = require_uns(adata, key, f"hdtree_sc.tl.tree(adata, model) and {RUN}")
    if "lineage" not in stored:
        msg = f"adata.uns[{key!r}] has no 'lineage': run {RUN} first."
        raise KeyError(msg)
    table: pd.DataFrame = stored["lineage"]["milestones"]
    return table.set_axis([str(name) for name in table.index])


def shape_of(stones: pd.DataFrame) -> Tree:
    """The tree of the milestones, without cells and lengths.

    Parameters
    ----------
    stones
        Their table.
    """
    position = {name: i for i, name in enumerate(stones.index)}
    return Tree(list(stones.index), [position.get(str(name), -1) for name in stones["parent"]])


def milestone_of_cells(adata: AnnData, stones: pd.DataFrame, key: str) -> NDArray[np.int64]:
    """Row of each cell's milestone in the table, (n,); -1 where it has none of these.

    Parameters
    ----------
    adata
        Annotated data.
    stones
        Table of the milestones.
    key
        Key of the tree.

    Raises
    ------
    KeyError
        If cells have no milestones.
    """
    names = require_obs(adata, Keys(key).milestone, RUN).astype(str)
    return np.asarray(stones.index.get_indexer(names), dtype=np.int64)


def _lengths(shape: Tree, time: np.ndarray) -> np.ndarray:
    above = np.where(shape.parents < 0, 0, shape.parents)
    out = np.maximum(time - time[above], 0.0)
    out[0] = np.nan
    return out


def _of_groups(adata: AnnData, stones: pd.DataFrame, groupby: str, key: str) -> Tree:
    keys, groups = Keys(key), require_column(adata, groupby, "groupby")
    table = pd.crosstab(require_obs(adata, keys.milestone, RUN).astype(str), groups)
    table = table.loc[:, table.sum() > 0]
    if table.shape[1] == 0:
        msg = f"groupby: no cell has a value in adata.obs[{groupby!r}]."
        raise ValueError(msg)
    shape = shape_of(stones)
    counts = table.reindex(list(shape.nodes), fill_value=0).to_numpy()
    below = subtree_sums(shape, counts)
    time = adata.obs[keys.pseudotime].groupby(groups, observed=True).median()
    most = 2 * below >= counts.sum(0)
    place = np.array([np.flatnonzero(most[:, i])[shape.levels[most[:, i]].argmax()] for i in range(counts.shape[1])])
    names = [str(name) for name in table.columns]
    leads = subtree_sums(shape, np.bincount(place, minlength=len(shape))) > 0
    onward = np.bincount(shape.parents[1:][leads[1:]], minlength=len(shape))
    stone_time = stones["pseudotime"].loc[list(shape.nodes)].to_numpy()
    held = counts.sum(0)
    # nodes of the new tree: name, parent, time, cells
    rows: list[tuple[str, int, float, int]] = []
    above = np.full(len(shape), -1)
    for node in range(len(shape)):  # parents come first
        up = int(above[shape.parents[node]]) if node else -1
        here = np.flatnonzero(place == node)
        if len(here) > 1 or (len(here) == 0 and onward[node] > 1):
            name = str(shape.nodes[node])
            rows.append((name if name not in names else f"milestone {name}", up, float(stone_time[node]), 0))
            up = len(rows) - 1
        rows += [(names[one], up, float(time.iloc[one]), int(held[one])) for one in here]
        # what comes later comes from the group that stands here alone, or from the milestone
        above[node] = len(rows) - 1 if len(here) == 1 else up
    labels, parents, times, own = zip(*rows, strict=True)
    tree = Tree(labels, parents)
    row = pd.Index(labels).get_indexer(tree.nodes)
    return Tree(
        tree.nodes, tree.parents, lengths=_lengths(tree, np.array(times)[row]),
        n_cells=subtree_sums(tree, np.array(own)[row]),
    )  # fmt: skip
