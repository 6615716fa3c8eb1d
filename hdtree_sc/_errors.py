"""Errors that say what is missing, what is there and what to run."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData

NO_CALIBRATION = (
    "this model has no calibration of what is unlike its training: it was saved by a version without one, or trained "
    "on fewer than 40 cells. In the first case load it with its cells (adata=), run build_tree() and save it again."
)


def listing(names: Iterable[object], limit: int = 10) -> str:
    """Names as one readable line, cut after `limit` of them.

    Parameters
    ----------
    names
        What to list.
    limit
        How many names are written out; the rest is counted.
    """
    shown = [repr(str(name)) for name in names]
    if not shown:
        return "none"
    rest = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + rest


def _require(adata: AnnData, slot: str, key: str, run: str) -> Any:
    held = getattr(adata, slot)
    if key not in held:
        names = held.columns if slot == "obs" else held.keys()
        msg = f"adata.{slot} has no {key!r}: run {run} first. It has: {listing(names)}."
        raise KeyError(msg)
    return held[key]


def require_uns(adata: AnnData, key: str, run: str) -> Any:
    """The entry ``adata.uns[key]``, or an error that says what to run.

    Parameters
    ----------
    adata
        Annotated data.
    key
        Name of the entry.
    run
        The call that makes it, for example ``"hdtree_sc.tl.tree(adata, model)"``.

    Raises
    ------
    KeyError
        The entry is missing; the message names it, what there is and what to run.
    """
    return _require(adata, "uns", key, run)


def require_obs(adata: AnnData, key: str, run: str) -> Any:
    """The column ``adata.obs[key]``, or an error that says what to run.

    Parameters
    ----------
    adata
        Annotated data.
    key
        Name of the column.
    run
        The call that makes it.

    Raises
    ------
    KeyError
        The column is missing; the message names it, what there is and what to run.
    """
    return _require(adata, "obs", key, run)


def require_obsm(adata: AnnData, key: str, run: str) -> Any:
    """The array ``adata.obsm[key]``, or an error that says what to run.

    Parameters
    ----------
    adata
        Annotated data.
    key
        Name of the array.
    run
        The call that makes it.

    Raises
    ------
    KeyError
        The array is missing; the message names it, what there is and what to run.
    """
    return _require(adata, "obsm", key, run)


def whole_number(name: str, value: object) -> int:
    """A whole number of at least 1; else the error names the argument.

    Parameters
    ----------
    name
        Name of the argument.
    value
        What was given.

    Raises
    ------
    ValueError
        It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        msg = f"{name}: {value!r} given, a whole number of at least 1 is wanted."
        raise ValueError(msg)
    return int(value)
