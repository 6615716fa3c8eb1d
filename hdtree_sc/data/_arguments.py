"""What users may write for rows and for numbers, and what is made of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from hdtree_sc._errors import is_number, listing, shown, whole_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Rows: TypeAlias = "int | str | slice | Sequence[int | str | bool] | NDArray[Any] | pd.Series | None"
"""Rows of an AnnData: see :func:`rows_of`."""
ROWS = "positions, names of cells, a slice or a mask with a value for each cell"


def rows_of(indices: Any, names: pd.Index, *, argument: str = "indices") -> NDArray[np.int64]:
    """Positions of the cells that an argument names.

    Parameters
    ----------
    indices
        One position or several (negative ones count from the end), one name or several, a slice, a boolean mask (a
        Series is taken by its index where that holds the names of the cells), or None for all.
    names
        Names of all cells.
    argument
        What messages call it.

    Raises
    ------
    ValueError
        If it is none of these, holds no cell, a position or a name that does not exist, or is a mask of another length.
    """
    n = len(names)
    if indices is None:
        return np.arange(n)
    if isinstance(indices, pd.Series) and indices.dtype.kind == "b" and not indices.index.equals(names):
        # a mask may have been made of the same cells in another order
        indices = indices.reindex(names) if set(indices.index) == set(names) else indices
    given = _one_dimension(indices, n, argument)
    kind = pd.api.types.infer_dtype(given, skipna=False)
    if kind == "boolean":
        if len(given) != n or pd.isna(given).any():
            msg = f"{argument}: a mask of {len(given)} values for {n} cells; it needs True or False for each cell."
            raise ValueError(msg)
        rows = np.flatnonzero(given.astype(bool))
    elif kind == "string":
        rows = names.get_indexer_for(given) if names.is_unique else np.full(len(given), -1)
        if (rows < 0).any():
            msg = f"{argument}: adata.obs_names lack {listing(given[rows < 0])}, or hold them more than once."
            raise ValueError(msg)
    elif kind == "integer" and not pd.isna(given).any():
        rows = given.astype(np.int64)
        outside = (rows < -n) | (rows >= n)
        if outside.any():
            msg = f"{argument}: {listing(rows[outside])} given, but adata has {n} cells: positions are 0 to {n - 1}."
            raise ValueError(msg)
        rows = np.where(rows < 0, rows + n, rows)
    elif kind == "empty":
        rows = np.empty(0, dtype=np.int64)
    else:
        raise ValueError(_not_rows(indices, argument))
    if not len(rows):
        msg = f"{argument}: no cell is chosen ({shown(indices)} given); choose at least one, or None for all."
        raise ValueError(msg)
    return rows


def _one_dimension(indices: Any, n: int, argument: str) -> NDArray[Any]:
    """What was given as an array of one dimension, a list without a change of its elements."""
    if isinstance(indices, slice):
        try:
            return np.arange(n)[indices]
        except TypeError:
            raise ValueError(_not_rows(indices, argument)) from None
    if isinstance(indices, str | int | np.integer) and not isinstance(indices, bool):
        indices = [indices]
    if not pd.api.types.is_list_like(indices) or isinstance(indices, set | dict):
        raise ValueError(_not_rows(indices, argument))
    given = np.array(indices, dtype=object) if isinstance(indices, list | tuple) else np.asarray(indices)
    if given.ndim != 1:
        raise ValueError(_not_rows(indices, argument))
    return given


def _not_rows(indices: Any, argument: str) -> str:
    return f"{argument}: {shown(indices)} given; {ROWS} wanted."


def whole_numbers(**given: Any) -> tuple[int, ...]:
    """Several arguments as ints of at least one, see :func:`whole_number`."""
    return tuple(whole_number(argument, value) for argument, value in given.items())


def finite_number(argument: str, value: Any) -> float:
    """An argument as a float.

    Raises
    ------
    ValueError
        Naming the argument and what was given.
    """
    number = float(value) if is_number(value) else math.nan
    if not math.isfinite(number):
        msg = f"{argument}: {shown(value)} given, a finite number is needed."
        raise ValueError(msg)
    return number
