"""Cells by name: where a development starts, and what a path or an end is named after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from hdtree_sc._errors import listing
from hdtree_sc.get import cells_of_group

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.tree import Tree

Kind = Literal["cell", "node"]


def meaning(adata: AnnData, shape: Tree, name: object, *, argument: str) -> tuple[Kind, int]:
    """Whether a name is that of a cell or of a node, and the row of the cell or the position of the node.

    ``"cell:<name>"`` and ``"node:<name>"`` say which; a plain name has to be one of the two only.

    Parameters
    ----------
    adata
        The cells.
    shape
        The tree.
    name
        The name.
    argument
        Name of the caller's argument, for messages.

    Raises
    ------
    ValueError
        If the name is a cell's and a node's, that of several cells, or neither.
    """
    text = str(name)
    kinds: tuple[Kind, ...] = ("cell", "node")
    said = [(kind, text.removeprefix(f"{kind}:")) for kind in kinds if text.startswith(f"{kind}:")]
    found = [place for kind, rest in said for place in _places(adata, shape, kind, rest)]
    found = found or [place for kind in kinds for place in _places(adata, shape, kind, text)]
    if len(found) == 1:
        return found[0]
    if not found:
        msg = (
            f"{argument}: {text!r} is neither a node nor a cell (adata.obs_names). Nodes: {listing(shape.nodes)}; "
            f"for a group name its column ({'root_key= and root_value=' if argument == 'root' else 'groupby='})."
        )
    elif {kind for kind, _ in found} == {"cell"}:
        msg = f"{argument}: {len(found)} cells are called {text!r}: run adata.obs_names_make_unique()."
    else:
        msg = f"{argument}: {text!r} is a cell and a node of the tree; give 'cell:{text}' or 'node:{text}'."
    raise ValueError(msg)


def _places(adata: AnnData, shape: Tree, kind: Kind, name: str) -> list[tuple[Kind, int]]:
    if kind == "node":
        return [(kind, shape.index(name))] if name in shape else []
    return [(kind, int(row)) for row in np.flatnonzero(adata.obs_names == name)]


def named_cells(
    adata: AnnData, shape: Tree, leaf: NDArray[np.int64], name: object, *, groupby: str | None, argument: str
) -> NDArray[np.int64]:
    """Rows of the cells that a name stands for: those of a group, those at or below a node, or one cell.

    Parameters
    ----------
    adata
        Cells on a tree.
    shape
        The tree.
    leaf
        Position of each cell's leaf in ``shape.nodes``, (n,); -1 for none.
    name
        A group of ``groupby``; without it a cell or a node, see :func:`meaning`.
    groupby
        ``obs`` column of groups.
    argument
        Name of the caller's argument, for messages.
    """
    if groupby is not None:
        return cells_of_group(adata, groupby, name, argument=argument)
    kind, place = meaning(adata, shape, name, argument=argument)
    if kind == "cell":
        return np.array([place])
    return np.flatnonzero((leaf >= place) & (leaf < place + shape.sizes[place]))


def start_cells(
    adata: AnnData, shape: Tree, leaf: NDArray[np.int64], name: object, *, groupby: str | None, argument: str
) -> NDArray[np.int64]:
    """Rows of the cells whose medoid a development starts from; at least one.

    Parameters are those of :func:`named_cells`.
    """
    cells = named_cells(adata, shape, leaf, name, groupby=groupby, argument=argument)
    if len(cells) == 0:
        msg = f"{argument}: node {str(name)!r} holds no cell of adata; choose another node."
        raise ValueError(msg)
    return cells
