"""Names of categories, compared as text: 2, 2.0 and "2" are one, however a column holds them; so are 1 and True."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hdtree_sc._errors import listing
from hdtree_sc._keys import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

OWN_KINDS = ("string", "integer", "floating", "boolean")
"""Kinds of values that a registry keeps as they are; of all others it keeps the text."""
WHOLE = re.compile(r"(-?\d+)\.0+")


def text_of(value: object) -> str:
    """Name of a category: its text, that of a whole number without a point."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _loose(value: object) -> str:
    text = str(int(value)) if isinstance(value, bool | np.bool_) else text_of(value)
    whole = WHOLE.fullmatch(text)
    return whole[1] if whole else text


def positions_of(values: Iterable[object], known: Iterable[object]) -> NDArray[np.int64]:
    """Position of each value among categories that are known, -1 for none: of the same text, or of the same number.

    Parameters
    ----------
    values
        What to look for.
    known
        The categories, of whatever type.
    """
    exact: dict[str, int] = {}
    loose: dict[str, int] = {}
    for i, name in enumerate(known):
        exact.setdefault(str(name), i)
        loose.setdefault(_loose(name), i)
    return np.array([exact.get(str(value), loose.get(_loose(value), -1)) for value in values], dtype=np.int64)


def kind_of(values: Any) -> str:
    """Kind of the values of categories: ``"string"``, ``"integer"``, ``"floating"``, ``"boolean"`` or another."""
    return pd.api.types.infer_dtype(values, skipna=True)


def typed(names: Sequence[str], kind: str) -> NDArray[Any]:
    """Names of categories as values of the kind that a column holds; text where a name is none of that kind."""
    try:
        if kind == "integer":
            return np.array([int(name) for name in names])
        if kind == "floating":
            return np.array([float(name) for name in names])
        if kind == "boolean":
            return np.array([{"True": True, "False": False}[name] for name in names])
    except (ValueError, KeyError):
        pass
    return np.array(names, dtype=object)


def numbered(column: pd.Series) -> tuple[NDArray[np.int64], NDArray[Any], str]:
    """Number the categories of a column that have cells.

    Parameters
    ----------
    column
        The column; a cell without a value is ``"unknown"``.

    Returns
    -------
    Number of each cell's category, the categories, and the kind of their values. The categories are of the column's own
    type; where values of several types stand in it, or some are missing, they are text.
    """
    held = pd.Categorical(column).remove_unused_categories()
    own, kind = held.categories, kind_of(held.categories)
    gaps = [UNKNOWN] if (held.codes < 0).any() else []
    if kind in OWN_KINDS and not gaps:
        return held.codes.astype(np.int64), np.array(own.tolist(), dtype=object if kind == "string" else None), kind
    text = np.array([text_of(value) for value in own] + gaps, dtype=object)
    names, place = np.unique(text, return_inverse=True)
    # the code of a cell without a value is -1: the last one
    return place[held.codes], names, kind


def renumbered(column: pd.Series, known: Any, *, extend: bool, name: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Number the categories of a column as those of another were, by their text.

    Parameters
    ----------
    column
        The column; a cell without a value is ``"unknown"``.
    known
        The categories that are numbered already.
    extend
        Whether further categories are appended to them.
    name
        What messages call the column.

    Returns
    -------
    Number of each cell's category, and all categories.

    Raises
    ------
    ValueError
        If there are further categories and they are not to be appended; ``"unknown"`` always is.
    """
    known = np.asarray(known)
    held = pd.Categorical(column).remove_unused_categories()
    values = [*held.categories, *([UNKNOWN] if (held.codes < 0).any() else [])]
    place = positions_of(values, known)
    new = [text_of(value) for value, at in zip(values, place, strict=True) if at < 0]
    if not extend and set(new) - {UNKNOWN}:
        msg = f"{name} holds {listing(new)}, which the model does not know. It knows: {listing(known)}."
        raise ValueError(msg)
    place[place < 0] = len(known) + np.arange(len(new))
    return place[held.codes], np.array([*known.tolist(), *new], dtype=object) if new else known
