"""Names of nodes by their paths, and names to positions, a whole column of cells at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hdtree_sc._errors import listing
from hdtree_sc._keys import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


def find(lookup: pd.Index, names: Iterable[str]) -> NDArray[np.int64]:
    """``(m,)``: position in `lookup` of each of ``m`` names; a KeyError names those that are not there."""
    values = names.array if isinstance(names, pd.Series | pd.Index) else names
    if isinstance(values, pd.Categorical):
        # one look-up a category, not one a cell; the extra row at the end takes code -1, a missing name
        of_category = np.append(lookup.get_indexer(values.categories.astype(object)), -1)
        found = of_category[values.codes]
    else:
        listed = values if isinstance(values, Sequence | np.ndarray) else list(values)
        values = np.asarray(listed, dtype=object).ravel()
        found = lookup.get_indexer(values)
    if (found < 0).any():
        missing = pd.unique(np.asarray(values, dtype=object)[found < 0])
        msg = f"names: no such node: {listing(missing)}. The tree's nodes are {listing(lookup, 30)}."
        raise KeyError(msg)
    return found.astype(np.int64, copy=False)


def path_names(parents: Sequence[int], *, longest: int | None = None) -> list[str]:
    """Names of nodes: child numbers from the root down, joined by dots.

    Parameters
    ----------
    parents
        Position of each node's parent, -1 for the root, which is first. Parents come before children.
    longest
        Most characters of a name: a node with a longer one is called ``"node<position>"``, and names below start from
        there. The names of a tree then take memory in proportion to its nodes, however deep it is.
    """
    out, children = [ROOT], [0] * len(parents)
    for position, parent in enumerate(parents[1:], start=1):
        name = str(children[parent]) if parent == 0 else f"{out[parent]}.{children[parent]}"
        out.append(name if longest is None or len(name) <= longest else f"node{position}")
        children[parent] += 1
    return out
