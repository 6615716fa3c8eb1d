"""What stands in model files: every value comes back as it was, of the same kind."""

from __future__ import annotations

import io
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hdtree_sc.files._plain_values import from_plain, to_plain


def through_a_file(value):
    file = io.BytesIO()
    torch.save(to_plain(value), file)
    file.seek(0)
    return from_plain(torch.load(file, weights_only=True))


ARRAYS = [
    np.array(["a", "bé"], object),
    np.array(["a", "bcd"]),
    np.array([b"a", b"bcd"]),
    np.array([[1, 2], None, "x", np.int32(4), (1, 2), {"a": 1}], object),
    np.array([[1, 2], [3, 4]], ">i2"),
    np.arange(6, dtype=np.uint64).reshape(2, 3),
    np.arange(12, dtype=np.uint16).reshape(3, 4).T,
    np.arange(10)[::2],
    np.array([0.1, np.nan, -np.inf]),
    np.zeros((0, 3), np.float16),
    np.array([1 + 2j]),
    np.array([True, False]),
    np.array(5),
    np.array("x"),
    np.array(["2020-01-01", "NaT"], "M8[ns]"),
    np.array([1, 2], "m8[s]"),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_keep_kind_shape_and_values(array):
    again = through_a_file(array)
    assert type(again) is np.ndarray
    assert again.dtype == array.dtype
    assert again.shape == array.shape
    np.testing.assert_array_equal(again, array)
    assert list(map(type, again.ravel().tolist())) == list(map(type, array.ravel().tolist()))
    assert again.flags.writeable


VALUES = [
    None, True, 10**40, -1e-300, 1 + 2j, "é\ud800", b"\x00\xff", b"", [], (), {}, (1, (2, [3])), {1, "a"},
    frozenset("ab"), {1: 2, (3, 4): "x"}, {"__kind__": "dict", "items": 1}, np.float32(0.1), np.float64(0.1),
    np.int64(3), np.bool_(True), np.str_("q"), np.datetime64("2020-01-01"), {"a": [{"b": (np.int8(1), None)}]},
    torch.float16,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_keep_their_type(value):
    again = through_a_file(value)
    assert again == value
    assert type(again) is type(value)
    assert repr(again) == repr(value)


def test_a_missing_value_of_pandas_is_the_one_that_pandas_knows():
    assert through_a_file(np.array([pd.NA, "a"], object))[0] is pd.NA


def test_other_dictionaries_are_written_as_dictionaries():
    assert through_a_file(OrderedDict(a=1)) == {"a": 1}
    assert through_a_file(defaultdict(dict, {"a": {"b": np.int64(1)}})) == {"a": {"b": 1}}


def test_tensors_keep_their_dtype():
    for dtype in (torch.bfloat16, torch.float64, torch.bool, torch.int8):
        again = through_a_file([torch.ones(2, dtype=dtype)])[0]
        assert again.dtype == dtype


FRAME = pd.DataFrame(
    {
        "number": [1.5, 2],
        "mixed": ["x", None],
        "category": pd.Categorical(["u", "v"], ["v", "u", "gone"], ordered=True),
        "gaps": pd.array([1, None], "Int64"),
        "text": pd.array(["a", None], "string"),
        "truth": pd.array([True, None], "boolean"),
        "day": pd.to_datetime(["2020-01-01", "2021-01-01"]),
    },
    index=pd.Index([3, 4], name="epoch"),
)


@pytest.mark.parametrize(
    "frame",
    [FRAME, pd.concat([FRAME, FRAME], axis=1), pd.DataFrame(index=["a"]), pd.DataFrame(columns=["a"], dtype=object)],
    ids=["kinds", "names twice", "no columns", "no rows"],
)
def test_tables_come_back(frame):
    pd.testing.assert_frame_equal(
        through_a_file(frame), frame, check_index_type="exact", check_column_type="exact", check_categorical=True
    )


@pytest.mark.parametrize(
    "index",
    [
        pd.RangeIndex(1, 9, 2, name="q"),
        pd.Index(["a", "b"]),
        pd.Index([], dtype=object),
        pd.CategoricalIndex(["a", "b"], ["b", "a"]),
        pd.DatetimeIndex(["2020-01-01"]),
        pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", None]),
    ],
    ids=lambda index: type(index).__name__ + str(len(index)),
)
def test_indices_and_series_come_back(index):
    again = through_a_file(index)
    assert type(again) is type(index)
    pd.testing.assert_index_equal(again, index, exact=True)
    series = pd.Series(np.arange(len(index), dtype=np.int8), index=index, name=("n", 1))
    pd.testing.assert_series_equal(through_a_file(series), series)


@pytest.mark.parametrize(
    "value",
    [Path("x"), object(), np.zeros(2, [("a", int)]), [np.array([object()])], np.longdouble(1)],
    ids=["path", "object", "records", "array of objects", "long double"],
)
def test_what_has_no_plain_form_is_refused(value):
    with pytest.raises(TypeError):
        to_plain(value)
