"""Ends of development by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hdtree_sc._errors import listing
from hdtree_sc.tl._root import cells_of_group

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy import sparse

    from hdtree_sc.tree import Tree


def as_names(names: Sequence[str]) -> list[str]:
    """Names that are unique and may stand in a file: a second one gets ``" (2)"``, ``/`` becomes ``|``.

    Parameters
    ----------
    names
        Any texts.
    """
    out: list[str] = []
    for name in names:
        plain = str(name).replace("/", "|")
        number, unique = 1, plain
        while unique in out:
            number += 1
            unique = f"{plain} ({number})"
        out.append(unique)
    return out


def names_of_ends(
    end: NDArray[np.int64], n_ends: int, shape: Tree, leaf: NDArray[np.int64], groups: pd.Series | None
) -> list[str]:
    """Name of each end: the most frequent group of its cells, without groups their leaf; unique.

    Parameters
    ----------
    end
        End of each cell, -1 for none, (n,).
    n_ends
        Number of ends.
    shape
        The tree.
    leaf
        Position of each cell's leaf in ``shape.nodes``, (n,).
    groups
        Group of each cell.
    """
    out = []
    for number in range(n_ends):
        cells = np.flatnonzero(end == number)
        name = str(shape.nodes[np.bincount(leaf[cells]).argmax()])
        if groups is not None and groups.iloc[cells].notna().any():
            name = str(groups.iloc[cells].dropna().astype(str).value_counts().index[0])
        out.append(name)
    return as_names(out)


def given_ends(
    adata: AnnData,
    shape: Tree,
    leaf: NDArray[np.int64],
    strengths: sparse.csr_matrix,
    terminal: str | Sequence[str] | Mapping[str, str | Sequence[str]],
    groupby: str | None,
) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the ends that a user named, and the end of each cell, -1 for none, (n,).

    Parameters
    ----------
    adata
        Cells on a tree.
    shape
        The tree.
    leaf
        Position of each cell's leaf in ``shape.nodes``, (n,).
    strengths
        Cell graph, (n, n).
    terminal
        See :func:`hdtree_sc.tl.fate_probabilities`.
    groupby
        Column whose groups `terminal` names.
    """
    if isinstance(terminal, str):
        terminal = [terminal]
    parts = terminal if isinstance(terminal, Mapping) else {name: [name] for name in terminal}
    if not parts:
        msg = "terminal: no end was named; leave it out to have ends found."
        raise ValueError(msg)
    if not isinstance(terminal, Mapping) and len(parts) < len(terminal):
        msg = f"terminal: a name was given twice in {listing(terminal, 20)}."
        raise ValueError(msg)
    end = np.full(adata.n_obs, -1, dtype=np.int64)
    around: list[NDArray[np.int64]] = []
    for number, (name, members) in enumerate(parts.items()):
        found = [
            _cells(adata, shape, leaf, str(m), groupby) for m in ([members] if isinstance(members, str) else members)
        ]
        cells = np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)
        if len(cells) == 0:
            msg = f"terminal: {name!r} has no cells of adata; choose another."
            raise ValueError(msg)
        taken = end[cells]
        if (taken >= 0).any():
            other = list(parts)[int(taken[taken >= 0][0])]
            msg = f"terminal: {name!r} and {other!r} share cells; ends must be apart (a node and one below it are not)."
            raise ValueError(msg)
        end[cells] = number
        around.append(
            strengths.indices[slice(*strengths.indptr[[cells[0], cells[0] + 1]])] if len(cells) == 1 else cells
        )
    # a single cell is a small target: its neighbours are the end too, less those of another
    near = np.bincount(
        np.concatenate([np.setdiff1d(cells, np.flatnonzero(end >= 0)) for cells in around]), minlength=len(end)
    )
    for number, cells in enumerate(around):
        free = cells[(end[cells] < 0) & (near[cells] == 1)]
        end[free] = number
    return [str(name) for name in parts], end


def _cells(adata: AnnData, shape: Tree, leaf: NDArray[np.int64], name: str, groupby: str | None) -> NDArray[np.int64]:
    if groupby is not None:
        return cells_of_group(adata, groupby, name, argument="terminal")
    if name in shape:
        start = shape.index(name)
        return np.flatnonzero((leaf >= start) & (leaf < start + shape.sizes[start]))
    if name in adata.obs_names:
        return np.flatnonzero(adata.obs_names == name)
    msg = (
        f"terminal: {name!r} is neither a node nor a cell. Nodes: {listing(shape.nodes)}; "
        "for a group name its column (groupby=)."
    )
    raise ValueError(msg)
