"""What every metric asks of its arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def same_length(**columns: Any) -> int:
    """Cells in the columns; refuses none, and columns that differ."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        msg = "one entry a cell wanted, got " + " and ".join(f"{n} in {name}" for name, n in lengths.items()) + "."
        raise ValueError(msg)
    n = next(iter(lengths.values()))
    if n == 0:
        msg = f"{', '.join(columns)}: no cells were given."
        raise ValueError(msg)
    return n


def groups(name: str, values: ArrayLike | pd.Series) -> tuple[NDArray[np.int64], int]:
    """``(n,)`` integer of each cell's group and how many groups there are; refuses missing entries."""
    codes, kinds = pd.factorize(values if isinstance(values, pd.Series) else np.asarray(values), sort=False)
    missing = int((codes < 0).sum())
    if missing:
        msg = f"{name}: {missing} of {len(codes)} cells have none (NaN); leave these cells out of every argument first."
        raise ValueError(msg)
    return codes.astype(np.int64), len(kinds)


def table(rows: NDArray[np.int64], n_rows: int, columns: NDArray[np.int64], n_columns: int) -> NDArray[np.float64]:
    """``(n_rows, n_columns)``: cells in each pair of groups."""
    flat = np.bincount(rows * n_columns + columns, minlength=n_rows * n_columns)
    return flat.reshape(n_rows, n_columns).astype(np.float64)


def points(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """``(n, d)`` finite coordinates."""
    out = np.asarray(values, dtype=np.float64)
    if out.ndim != 2:
        msg = f"{name}: one row a cell wanted, shape (n, d); got shape {out.shape}."
        raise ValueError(msg)
    if not np.isfinite(out).all():
        msg = f"{name}: NaN or infinite coordinates."
        raise ValueError(msg)
    return out
