"""Groups of cells: the values of an ``obs`` column as text. A missing value is no group."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hdtree_sc._errors import listing

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def text_groups(column: pd.Series) -> pd.Categorical:
    """Groups by name, in their own order, without those that hold no cell; cells without a value have code -1.

    Parameters
    ----------
    column
        Values of any type. Values that read the same, as 1 and "1", are one group.
    """
    held = pd.Categorical(column).remove_unused_categories()
    names = [str(value) for value in held.categories]
    unique = list(dict.fromkeys(names))
    number = pd.Index(unique, dtype=object).get_indexer(pd.Index(names, dtype=object))
    return pd.Categorical.from_codes(np.append(number, -1)[held.codes], unique)


def rows_of_group(column: pd.Series, value: object) -> NDArray[np.int64]:
    """Rows of the cells that hold a value; none for a missing value.

    Parameters
    ----------
    column
        Values of any type.
    value
        The value, compared as text; a whole number also matches itself as it is read from files, 1 as "1" and as "1.0".
    """
    held = pd.Categorical(column)
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return np.empty(0, dtype=np.int64)
    same = [str(other) == str(value) for other in held.categories]
    if not any(same):
        same = [bool(_texts(other) & _texts(value)) for other in held.categories]
    return np.flatnonzero(np.isin(held.codes, np.flatnonzero(same)))


def cells_of_group(adata: AnnData, column: str, value: object, *, argument: str) -> NDArray[np.int64]:
    """Rows whose ``obs`` column holds a value; the message of the error lists those that exist.

    Parameters
    ----------
    adata
        The cells.
    column
        Name of the ``obs`` column.
    value
        Value wanted, see :func:`rows_of_group`.
    argument
        Name of the caller's argument, for the message.
    """
    if column not in adata.obs:
        msg = f"adata.obs has no column {column!r}. It has: {listing(adata.obs.columns)}."
        raise KeyError(msg)
    found = rows_of_group(adata.obs[column], value)
    if len(found) == 0:
        n_missing = int(adata.obs[column].isna().sum())
        without = f"; {n_missing} cells have no value, which is no group" if n_missing else ""
        held = listing(text_groups(adata.obs[column]).categories, 30)
        msg = f"{argument}: no cell has {value!r} in adata.obs[{column!r}]. It holds: {held}{without}."
        raise ValueError(msg)
    return found


def _texts(value: object) -> set[str]:
    """How a value may be written: a whole number with and without its decimal."""
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else 0.5
    # beyond the last bit of a float, whole numbers differ that read the same
    return {str(value), str(int(number)), str(number)} if number.is_integer() and abs(number) < 2**53 else {str(value)}
