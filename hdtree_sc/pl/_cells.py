"""What the plots read from an AnnData: one value per cell, and its summary at every node of the tree."""

from __future__ import annotations

import difflib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hdtree_sc._errors import listing, require_obs, require_obsm, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.get import gene_columns
from hdtree_sc.tree import Tree, subtree_sums

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

_RUN_TREE = "hdtree_sc.tl.tree(adata, model)"


@dataclass(frozen=True)
class CellValues:
    """One value per cell: a category or a number.

    Parameters
    ----------
    name
        The ``obs`` column or the gene.
    values
        ``(n_cells,)``: category numbers (int, -1 = missing) or floats (NaN = missing).
    categories
        Names of the categories; empty for numbers.
    is_obs
        Whether it is a categorical ``obs`` column, so that its colours live in ``uns["<name>_colors"]``.
    """

    name: str
    values: NDArray
    categories: tuple[str, ...] = ()
    is_obs: bool = False

    @property
    def is_categorical(self) -> bool:
        """Whether the values are categories."""
        return bool(self.categories)

    @property
    def has_missing(self) -> bool:
        """Whether some cell has no value."""
        return bool((self.values < 0).any() if self.is_categorical else np.isnan(self.values).any())

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which categories some cell has ``(n_categories,)``; the others may be left from cells that are gone."""
        return np.isin(np.arange(len(self.categories)), self.values)


def cell_values(
    adata: AnnData, name: str, *, layer: str | None = None, use_raw: bool | None = None, argument: str = "color"
) -> CellValues:
    """Values of an ``obs`` column or of a gene.

    Parameters
    ----------
    adata
        Annotated data.
    name
        Column of ``adata.obs``, else a gene of ``var_names`` (of ``adata.raw`` where that is used).
    layer
        Layer that holds the gene's values; default ``X``.
    use_raw
        Read genes from ``adata.raw``; by default where it is there and no layer is named, as scanpy does.
    argument
        The argument's name, for the error message.

    Raises
    ------
    KeyError
        Neither a column nor a gene has this name.
    ValueError
        No cell has a value, or there are several genes of this name.

    Warns
    -----
    UserWarning
        A column and a gene have this name: the column is taken, as scanpy does.
    """
    if name not in adata.obs:
        return _gene(adata, name, layer=layer, use_raw=use_raw, argument=argument)
    if name in adata.var_names or (adata.raw is not None and name in adata.raw.var_names):
        msg = (
            f"{argument}={name!r} is a column of adata.obs and a gene: the column is drawn. Rename it to draw the gene."
        )
        warnings.warn(msg, UserWarning, stacklevel=4)
    column = adata.obs[name]
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return _numbers(name, column.to_numpy(dtype=float, na_value=np.nan), f"adata.obs[{name!r}]")
    return _categories(name, column)


def categorical_values(adata: AnnData, name: str, *, argument: str = "groupby") -> CellValues:
    """Values of an ``obs`` column, taken as categories whatever its type.

    Parameters
    ----------
    adata
        Annotated data.
    name
        Column of ``adata.obs``.
    argument
        The argument's name, for the error message.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        No cell has a value.
    """
    if name not in adata.obs:
        msg = f"{argument}={name!r} is not a column of adata.obs. Columns: {listing(adata.obs.columns)}."
        raise KeyError(msg)
    return _categories(name, adata.obs[name])


def _categories(name: str, column: pd.Series) -> CellValues:
    is_obs = isinstance(column.dtype, pd.CategoricalDtype)
    data = pd.Categorical(column)
    names = tuple(str(category) for category in data.categories)
    if (data.codes < 0).all():
        msg = f"adata.obs[{name!r}] holds no values, only missing ones."
        raise ValueError(msg)
    return CellValues(name, np.asarray(data.codes, dtype=np.int64), names, is_obs)


def _numbers(name: str, values: NDArray[np.float64], where: str) -> CellValues:
    finite = np.isfinite(values)
    if not finite.any():
        msg = f"{where} holds no values, only missing or infinite ones."
        raise ValueError(msg)
    return CellValues(name, np.where(finite, values, np.nan))


def _gene(adata: AnnData, name: str, *, layer: str | None, use_raw: bool | None, argument: str) -> CellValues:
    if use_raw is None:
        use_raw = layer is None and adata.raw is not None
    if use_raw and layer is not None:
        msg = f"use_raw=True and layer={layer!r} exclude each other: give one of them."
        raise ValueError(msg)
    if use_raw and adata.raw is None:
        msg = "use_raw=True, but adata.raw is None: set it, or use use_raw=False."
        raise ValueError(msg)
    if layer is not None and layer not in adata.layers:
        msg = f"layer={layer!r} is not in adata.layers. Layers: {listing(adata.layers)}."
        raise KeyError(msg)
    source = adata.raw if use_raw else adata
    genes = "adata.raw.var_names" if use_raw else "adata.var_names"
    if name not in source.var_names:
        close = difflib.get_close_matches(name, [*map(str, adata.obs.columns), *map(str, source.var_names)], n=5)
        hint = f" Did you mean {listing(close)}?" if close else ""
        msg = (
            f"{argument}={name!r} is neither a column of adata.obs nor one of the {len(source.var_names)} genes of "
            f"{genes}.{hint} Columns: {listing(adata.obs.columns)}."
        )
        raise KeyError(msg)
    column = gene_columns(source.var_names, [name], argument, genes)
    matrix = adata.layers[layer] if layer is not None else source.X
    values = matrix[:, column]
    values = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    return _numbers(name, values.ravel().astype(float), f"gene {name!r}")


def embedding(adata: AnnData, basis: str | None, *, key: str) -> tuple[NDArray, str]:
    """Two-dimensional positions ``(n_cells, 2)`` of the cells, and the name for the axes.

    Parameters
    ----------
    adata
        Annotated data.
    basis
        ``"umap"`` or ``"X_umap"``; ``None`` is the model's own map ``X_<key>_2d``.
    key
        The tree's key.

    Raises
    ------
    KeyError
        There is no such ``obsm`` entry.
    ValueError
        It has fewer than two columns.
    """
    if basis is None:
        name = Keys(key).map_2d
        values = require_obsm(adata, name, f"{_RUN_TREE} or pass basis= (a name in adata.obsm)")
    else:
        name = basis if basis in adata.obsm else f"X_{basis}"
        if name not in adata.obsm:
            msg = f"basis={basis!r} is not in adata.obsm, nor is 'X_{basis}'. It has: {listing(adata.obsm)}."
            raise KeyError(msg)
        values = adata.obsm[name]
    values = np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=float)
    if values.ndim != 2 or values.shape[1] < 2:
        msg = f"adata.obsm[{name!r}] has shape {values.shape}: a plot needs at least two columns."
        raise ValueError(msg)
    return values[:, :2], name.removeprefix("X_")


def stored_tree(adata: AnnData, key: str) -> Tree:
    """The tree in ``adata.uns[key]``.

    Raises
    ------
    KeyError
        There is none; the message says what to run.
    """
    require_uns(adata, key, _RUN_TREE)
    return Tree.from_adata(adata, key)


def node_of_cell(adata: AnnData, tree: Tree, full: Tree, *, key: str) -> NDArray[np.int64]:
    """Index in `tree` of the node that holds each cell ``(n_cells,)``; -1 where the cell has no leaf.

    Parameters
    ----------
    adata
        Annotated data.
    tree
        The tree that is drawn: the stored one or a cut of it.
    full
        The stored tree.
    key
        The tree's key.

    Raises
    ------
    KeyError
        The leaf column is missing, or names a node that the tree does not have.
    """
    column = pd.Categorical(require_obs(adata, Keys(key).leaf, _RUN_TREE))
    names = [str(name) for name in column.categories]
    unknown = [name for name in names if name not in full]
    if unknown:
        msg = (
            f"adata.obs[{Keys(key).leaf!r}] names {listing(unknown)}, not nodes of adata.uns[{key!r}]: run {_RUN_TREE}."
        )
        raise KeyError(msg)
    held = tree.index(tree.project(names, within=full)) if names else np.zeros(0, dtype=np.int64)
    return np.append(held, -1)[column.codes]


@dataclass(frozen=True)
class TreeData:
    """A tree as it is drawn: structure, cells and, per node, what it is coloured and labelled by."""

    tree: Tree
    node: NDArray[np.int64]
    n_cells: NDArray[np.int64]


def tree_data(adata: AnnData, *, key: str, max_leaves: int | None = None, min_cells: int | None = None) -> TreeData:
    """The stored tree with the cells that `adata` holds now, cut to what is to be drawn.

    Parameters
    ----------
    adata
        Annotated data with ``uns[key]`` and the cells' leaves; a subset of the cells is fine.
    key
        The tree's key.
    max_leaves
        Cut to at most so many leaves.
    min_cells
        Cut until every leaf has so many cells.

    Raises
    ------
    KeyError
        There is no tree.
    ValueError
        A number to cut to is below 1.
    """
    for name, value in (("max_leaves", max_leaves), ("min_cells", min_cells)):
        if value is not None and value < 1:
            msg = f"{name}={value}: it has to be at least 1."
            raise ValueError(msg)
    stored = stored_tree(adata, key)
    node = node_of_cell(adata, stored, stored, key=key)
    n_cells = node_sizes(stored, node)
    full = Tree(stored.nodes, stored.parents, heights=stored.heights, n_cells=n_cells)
    tree = full
    if min_cells is not None and n_cells[0] > 0:
        tree = tree.cut(min_cells=min(min_cells, int(n_cells[0])))
    if max_leaves is not None and max_leaves < len(tree.leaves):
        tree = tree.cut(n_leaves=max_leaves)
    node = node_of_cell(adata, tree, full, key=key)
    return TreeData(tree, node, tree.n_cells)


def node_sizes(tree: Tree, node: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of cells in each node's subtree ``(n_nodes,)``."""
    own = np.bincount(node[node >= 0], minlength=len(tree))
    return subtree_sums(tree, own).astype(np.int64)


def node_counts(tree: Tree, node: NDArray[np.int64], values: CellValues) -> pd.DataFrame:
    """Cells of each category in each node's subtree: rows nodes, columns categories and last, ``NA``, cells without."""
    k = len(values.categories) + 1
    keep = node >= 0
    column = np.where(values.values < 0, k - 1, values.values)
    own = np.bincount(node[keep] * k + column[keep], minlength=len(tree) * k).reshape(len(tree), k)
    return pd.DataFrame(subtree_sums(tree, own), index=list(tree.nodes), columns=[*values.categories, "NA"])


def node_means(tree: Tree, node: NDArray[np.int64], values: CellValues) -> NDArray:
    """Mean of a number over each node's subtree ``(n_nodes,)``; NaN where no cell has a value."""
    keep = (node >= 0) & ~np.isnan(values.values)
    n = np.bincount(node[keep], minlength=len(tree))
    s = np.bincount(node[keep], weights=values.values[keep], minlength=len(tree))
    total = subtree_sums(tree, np.column_stack([n, s]))
    return np.divide(total[:, 1], total[:, 0], out=np.full(len(tree), np.nan), where=total[:, 0] > 0)


def shares(data: TreeData, values: CellValues) -> NDArray:
    """Fractions of each node's cells: a column per category and one for the cells without."""
    counts = node_counts(data.tree, data.node, values).to_numpy()
    return counts / np.maximum(data.n_cells, 1)[:, None]


def dominant(counts: pd.DataFrame) -> pd.DataFrame:
    """Most frequent category of each row and its share; columns ``name`` (``""`` where the row is empty), ``share``."""
    total = counts.sum(axis=1).to_numpy()
    values = counts.to_numpy()
    best = values.argmax(axis=1)
    share = np.divide(values[np.arange(len(values)), best], total, out=np.zeros(len(total)), where=total > 0)
    names = np.where(total > 0, np.asarray(counts.columns, dtype=object)[best], "")
    return pd.DataFrame({"name": names, "share": share}, index=counts.index)


def node_positions(tree: Tree, node: NDArray[np.int64], xy: NDArray) -> NDArray:
    """Positions of the nodes on an embedding ``(n_nodes, 2)``; NaN for nodes without cells.

    A node that holds cells itself sits at their medoid (the cell nearest to the median), so that it never falls between
    two islands of its cells; a node above sits at the mean of its children, weighted by their cells.

    Parameters
    ----------
    tree
        The tree.
    node
        Node of each cell ``(n_cells,)``, -1 for none.
    xy
        Positions of the cells ``(n_cells, 2)``.
    """
    keep = (node >= 0) & np.isfinite(xy).all(axis=1)
    cells = pd.DataFrame({"node": node[keep], "x": xy[keep, 0], "y": xy[keep, 1]})
    centre = cells.groupby("node")[["x", "y"]].transform("median")
    cells["off"] = (cells["x"] - centre["x"]) ** 2 + (cells["y"] - centre["y"]) ** 2
    medoid = cells.loc[cells.groupby("node")["off"].idxmin()]
    weight = np.bincount(node[keep], minlength=len(tree)).astype(float)
    moment = np.zeros((len(tree), 2))
    held = medoid["node"].to_numpy()
    moment[held] = medoid[["x", "y"]].to_numpy() * weight[held, None]
    total = subtree_sums(tree, np.column_stack([moment, weight]))
    out = np.full((len(tree), 2), np.nan)
    np.divide(total[:, :2], total[:, 2:], out=out, where=total[:, 2:] > 0)
    return out
