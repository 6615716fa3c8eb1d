"""Python, numpy and pandas values as plain ones, which a file holds without a pickle that runs code.

Plain are None, truth values, numbers, text, tensors, and lists, tuples and dictionaries (with text as keys) of plain
values. Everything else becomes a dictionary whose entry ``"__kind__"`` says what it was, and comes back as that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from pandas.api.extensions import ExtensionArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

KIND = "__kind__"
ATOMS = {type(None), bool, int, float, complex, str, torch.Tensor, torch.dtype, torch.device}
"""Kinds that a file holds as they are."""
BASES: dict[type, Callable[[Any], Any]] = {
    str: str.__str__, int: int, float: float, complex: complex, list: list, tuple: tuple,
}  # fmt: skip
"""A value of a subclass of these is written as one of the base; dictionaries likewise."""


@dataclass(frozen=True)
class _Form:
    """How values of a type are taken apart into fields, and put together again."""

    type: type
    apart: Callable[[Any], dict[str, Any]]
    together: Callable[..., Any]


def to_plain(value: Any) -> Any:
    """The plain form of a value.

    Parameters
    ----------
    value
        Any mixture of plain values, dictionaries, sets, bytes, numpy arrays and scalars, and pandas objects.

    Raises
    ------
    TypeError
        If something in it has no plain form.
    """
    kind = type(value)
    if kind in ATOMS:
        return value
    if kind in (list, tuple):
        if set(map(type, value)) <= ATOMS:
            return value
        return kind(map(to_plain, value))
    for name, form in FORMS.items():
        if isinstance(value, form.type):
            return {KIND: name, **{key: to_plain(field) for key, field in form.apart(value).items()}}
    if isinstance(value, dict):
        if KIND not in value and all(type(key) is str for key in value):
            return {key: to_plain(held) for key, held in value.items()}
        return {KIND: "dict", "items": [(to_plain(key), to_plain(held)) for key, held in value.items()]}
    for base, as_base in BASES.items():
        if isinstance(value, base):
            return to_plain(as_base(value))
    msg = f"a value of type {kind.__module__}.{kind.__qualname__} has no plain form"
    raise TypeError(msg)


def from_plain(value: Any) -> Any:
    """The value of a plain form.

    Parameters
    ----------
    value
        What :func:`to_plain` gave. What is not plain comes back as it is.

    Raises
    ------
    Exception
        Of any kind, if the plain form is damaged.
    """
    if isinstance(value, dict):
        fields = {key: from_plain(held) for key, held in value.items()}
        if KIND not in fields:
            return fields
        name = fields.pop(KIND)
        return dict(fields["items"]) if name == "dict" else FORMS[name].together(**fields)
    if type(value) in (list, tuple):
        return value if set(map(type, value)) <= ATOMS else type(value)(map(from_plain, value))
    return value


def _array_apart(array: NDArray[Any]) -> dict[str, Any]:
    array = np.asarray(array)
    kind, values = array.dtype.kind, array.ravel()
    if kind in "biufc":
        held: Any = torch.from_numpy(np.array(values, array.dtype.newbyteorder("=")))
    elif kind in "mM":
        held = torch.from_numpy(np.array(values.astype(array.dtype.newbyteorder("=")).view(np.int64)))
    elif kind in "OUS":
        held = values.tolist()
    else:
        msg = f"an array of dtype {array.dtype} has no plain form"
        raise TypeError(msg)
    return {"dtype": array.dtype.str, "shape": list(array.shape), "values": held}


def _array_together(dtype: str, shape: list[int], values: Any) -> NDArray[Any]:
    made = np.dtype(dtype)
    if made.kind in "biufc":
        array = values.numpy().astype(made)
    elif made.kind in "mM":
        array = values.numpy().view(made.newbyteorder("=")).astype(made)
    else:
        # from a list, numpy would make further axes of elements that are lists themselves
        array = np.fromiter(values, dtype=object, count=len(values)).astype(made)
    return array.reshape(shape)


def _column(values: Any) -> Any:
    """The values of a column or an index: an array of numpy, or one of pandas' own."""
    held = values.array
    return held if isinstance(held.dtype, pd.api.extensions.ExtensionDtype) else values.to_numpy()


def _frame(columns: pd.Index, index: pd.Index, values: list[Any]) -> pd.DataFrame:
    # columns by number first: names may be there twice
    frame = pd.DataFrame(dict(enumerate(values)), index=index)
    frame.columns = columns
    return frame


def _index(values: Any, name: Any) -> pd.Index:
    return pd.Index(values, dtype=values.dtype, name=name)


# The first form whose type fits is taken: subclasses stand above their bases.
FORMS: dict[str, _Form] = {
    "array": _Form(np.ndarray, _array_apart, _array_together),
    "scalar": _Form(np.generic, lambda value: {"array": np.asarray(value)}, lambda array: array[()]),
    "set": _Form(set, lambda value: {"items": list(value)}, lambda items: set(items)),
    "frozenset": _Form(frozenset, lambda value: {"items": list(value)}, lambda items: frozenset(items)),
    "bytes": _Form(bytes, lambda value: {"hex": value.hex()}, lambda hex: bytes.fromhex(hex)),
    "missing": _Form(type(pd.NA), lambda _: {}, lambda: pd.NA),
    "frame": _Form(
        pd.DataFrame,
        lambda frame: {
            "columns": frame.columns,
            "index": frame.index,
            "values": [_column(frame.iloc[:, i]) for i in range(frame.shape[1])],
        },
        _frame,
    ),
    "series": _Form(
        pd.Series,
        lambda series: {"values": _column(series), "index": series.index, "name": series.name},
        lambda values, index, name: pd.Series(values, index=index, name=name, dtype=values.dtype),
    ),
    "range index": _Form(
        pd.RangeIndex,
        lambda index: {"start": index.start, "stop": index.stop, "step": index.step, "name": index.name},
        pd.RangeIndex,
    ),
    "multi-index": _Form(
        pd.MultiIndex,
        lambda index: {
            "levels": list(index.levels),
            "codes": list(map(np.asarray, index.codes)),
            "names": list(index.names),
        },
        pd.MultiIndex,
    ),
    "index": _Form(pd.Index, lambda index: {"values": _column(index), "name": index.name}, _index),
    "categorical": _Form(
        pd.Categorical,
        lambda value: {"codes": np.asarray(value.codes), "categories": value.categories, "ordered": value.ordered},
        lambda codes, categories, ordered: pd.Categorical.from_codes(codes, categories, ordered=ordered),
    ),
    "extension array": _Form(
        ExtensionArray,
        lambda value: {"dtype": str(value.dtype), "values": value.to_numpy(dtype=object)},
        lambda dtype, values: pd.array(values, dtype=dtype),
    ),
}
