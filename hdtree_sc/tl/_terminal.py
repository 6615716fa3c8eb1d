"""Ends of development by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hdtree_sc._errors import listing
from hdtree_sc.get import text_groups
from hdtree_sc.tl._root import named_cells

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy import sparse

    from hdtree_sc.tree import Tree


def as_names(names: Sequence[object]) -> list[str]:
    """Names that are unique and may stand in a file: ``/`` becomes ``|``, and a second one gets ``" (2)"``.

    Parameters
    ----------
    names
        Any texts. One that may stay as it is keeps its name, whatever comes before it.
    """
    texts = [str(name) for name in names]
    out: dict[int, str] = {}
    taken: set[str] = set()
    for number, text in sorted(enumerate(texts), key=lambda item: "/" in item[1]):
        plain = text.replace("/", "|")
        count, unique = 1, plain
        while unique in taken:
            count += 1
            unique = f"{plain} ({count})"
        taken.add(unique)
        out[number] = unique
    return [out[number] for number in range(len(texts))]


def names_in(given: object) -> list[object]:
    """Names that a user gave, one by itself or several."""
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]


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
            held = text_groups(groups.iloc[cells])
            name = held.categories[np.bincount(held.codes[held.codes >= 0]).argmax()]
        out.append(name)
    return as_names(out)


def given_ends(
    adata: AnnData,
    shape: Tree,
    leaf: NDArray[np.int64],
    strengths: sparse.csr_matrix,
    terminal: object,
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
    given = list(terminal) if isinstance(terminal, Mapping) else names_in(terminal)
    parts = dict(terminal) if isinstance(terminal, Mapping) else {name: name for name in given}
    if not parts:
        msg = "terminal: no end was named; leave it out to have ends found."
        raise ValueError(msg)
    if len(parts) < len(given):
        msg = f"terminal: a name was given twice in {listing(given, 20)}."
        raise ValueError(msg)
    end = np.full(adata.n_obs, -1, dtype=np.int64)
    around: list[NDArray[np.int64]] = []
    for number, (name, members) in enumerate(parts.items()):
        found = [
            named_cells(adata, shape, leaf, one, groupby=groupby, argument="terminal") for one in names_in(members)
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
