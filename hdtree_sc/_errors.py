"""Errors that say what is missing, what is there and what to run."""

from __future__ import annotations

import math
from numbers import Real
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


def check_among(argument: str, value: str, known: Iterable[str]) -> None:
    """Refuse a value that is none of those known.

    Parameters
    ----------
    argument
        Name of the argument.
    value
        What was given.
    known
        What may be given.

    Raises
    ------
    ValueError
        If it is none of them; the message lists those.
    """
    if value not in (values := tuple(known)):
        msg = f"{argument}: {value!r} is none of {listing(values)}."
        raise ValueError(msg)


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


def require_column(adata: AnnData, column: str, argument: str) -> Any:
    """The column of ``adata.obs`` that an argument names.

    Parameters
    ----------
    adata
        Annotated data.
    column
        Name of the column.
    argument
        Name of the argument, for the message.

    Raises
    ------
    KeyError
        There is no such column; the message names the argument and what there is.
    """
    if column not in adata.obs:
        msg = f"{argument}: adata.obs has no column {column!r}. It has: {listing(adata.obs.columns)}."
        raise KeyError(msg)
    return adata.obs[column]


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


def shown(value: Any) -> str:
    """A value as it is written, cut to 60 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def whole_number(argument: str, value: Any, least: int | None = 1, most: int | None = None) -> int:
    """An argument as an int: 2 and 2.0 are whole numbers, True, "2", 2.5 and NaN are not.

    Raises
    ------
    ValueError
        Naming the argument, what was given and what is wanted.
    """
    number = float(value) if is_number(value) else math.nan
    if not number.is_integer() or (least is not None and number < least) or (most is not None and number > most):
        limits = "" if least is None else f" of at least {least}" if most is None else f" from {least} to {most}"
        msg = f"{argument}: {shown(value)} given, a whole number{limits} is needed."
        raise ValueError(msg)
    return int(value)


def is_number(value: Any) -> bool:
    """Whether a value is a number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)
