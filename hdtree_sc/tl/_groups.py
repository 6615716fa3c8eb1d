"""Groups of cells that are nodes of a tree: its leaves, or those of a cut."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hdtree_sc._errors import listing, require_obs, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.tree import Tree

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


@dataclass(frozen=True)
class NodeGroups:
    """Cells by the nodes that hold them."""

    column: str
    """The ``obs`` column."""
    tree: Tree
    values: pd.Categorical
    """Group of each cell, categories in tree order, only those that hold cells."""
    nodes: NDArray[np.int64]
    """Position of each category in ``tree.nodes``, (n_groups,)."""

    @property
    def names(self) -> list[str]:
        """Names of the groups."""
        return [str(name) for name in self.values.categories]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Cells in each group, (n_groups,)."""
        return np.bincount(self.values.codes[self.values.codes >= 0], minlength=len(self.nodes))

    def holder(self) -> NDArray[np.int64]:
        """Group that each node of the tree lies in, (n_nodes,); -1 above the groups and where no cell is."""
        # pre-order: what lies in a group is one slice
        out = np.full(len(self.tree), -1, dtype=np.int64)
        for number, node in enumerate(self.nodes):
            out[node : node + self.tree.sizes[node]] = number
        return out

    def colors(self, adata: AnnData) -> list[str]:
        """One colour a group: those in ``uns`` where they fit, else hues that go round with the tree.

        Parameters
        ----------
        adata
            The cells.
        """
        name = f"{self.column}_colors"
        stored = [str(color) for color in adata.uns[name]] if name in adata.uns else []
        column = adata.obs[self.column]
        before = list(column.cat.categories.astype(str)) if isinstance(column.dtype, pd.CategoricalDtype) else []
        if len(stored) == len(before) > 0:
            by_name = dict(zip(before, stored, strict=True))
            return [by_name[group] for group in self.names]
        return tree_colors(len(self.nodes))

    def write(self, adata: AnnData, colors: list[str]) -> None:
        """Keep the column, without groups that hold no cell, and its colours: scanpy wants one row for each.

        Parameters
        ----------
        adata
            The cells.
        colors
            One a group.
        """
        adata.obs[self.column] = self.values
        adata.uns[f"{self.column}_colors"] = colors


def tree_colors(n: int) -> list[str]:
    """`n` colours in the order of the leaves: hues once round, so that kin look alike, light and dark in turn."""
    pairs = [colorsys.hls_to_rgb(0.92 * i / max(n, 1), (0.42, 0.6)[i % 2], 0.65) for i in range(n)]
    return ["#" + "".join(f"{round(255 * channel):02x}" for channel in rgb) for rgb in pairs]


def node_groups(adata: AnnData, groupby: str | None, *, key: str) -> NodeGroups:
    """Groups of an ``obs`` column that names nodes of the tree.

    Parameters
    ----------
    adata
        Cells on a tree.
    groupby
        The column; None is that of the leaves.
    key
        Key of the tree.

    Raises
    ------
    KeyError
        If the tree or the column is missing.
    ValueError
        If the column names what is no node of the tree, if one group lies within another, or if no cell has a group.
    """
    keys = Keys(key)
    run = "hdtree_sc.tl.tree(adata, model)"
    require_uns(adata, key, run)
    column = groupby or keys.leaf
    needed = {keys.leaf: run, keys.cut: f"hdtree_sc.tl.cut_tree(adata, key={key!r})"}
    given = require_obs(adata, column, needed.get(column, "hdtree_sc.tl.cut_tree(adata, key_added=...)"))
    tree = Tree.from_adata(adata, key=key)
    held = given.dropna().astype(str).unique()
    strange = [name for name in held if name not in tree]
    if strange:
        msg = (
            f"groupby={column!r}: {listing(strange)} are no nodes of the tree adata.uns[{key!r}]. Give the leaves "
            f"({keys.leaf!r}) or a cut ({keys.cut!r}, see hdtree_sc.tl.cut_tree); for other groups use scanpy's own "
            f"function with neighbors_key={keys.neighbors!r}."
        )
        raise ValueError(msg)
    if len(held) == 0:
        msg = f"groupby={column!r}: no cell has a value in adata.obs[{column!r}]."
        raise ValueError(msg)
    nodes = np.sort(tree.index(held))
    inside = np.flatnonzero(nodes[1:] < (nodes + tree.sizes[nodes])[:-1])
    if len(inside):
        upper, lower = tree.nodes[nodes[inside[0]]], tree.nodes[nodes[inside[0] + 1]]
        msg = f"groupby={column!r}: group {lower!r} lies within group {upper!r}; groups have to be apart."
        raise ValueError(msg)
    names = [tree.nodes[node] for node in nodes]
    text = given.astype(object).where(given.notna(), None)
    values = pd.Categorical([None if name is None else str(name) for name in text], categories=names)
    return NodeGroups(column, tree, values, nodes)
