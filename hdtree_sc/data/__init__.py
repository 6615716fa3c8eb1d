"""Fields of an AnnData, and minibatches of its cells."""

from hdtree_sc.data._category_fields import KIND_KEY, CategoryField, CategoryTableField
from hdtree_sc.data._category_names import kind_of, numbered, positions_of, text_of, typed
from hdtree_sc.data._number_field import NumberField
from hdtree_sc.data._obsm_field import ObsmFeatureField, features_of
from hdtree_sc.data._ordered_rows import OrderedManager
from hdtree_sc.data._points import PointSplitter
from hdtree_sc.data._splitter import FittingSplitter, PairSplitter

__all__ = [
    "CategoryField",
    "CategoryTableField",
    "FittingSplitter",
    "KIND_KEY",
    "NumberField",
    "ObsmFeatureField",
    "OrderedManager",
    "PairSplitter",
    "PointSplitter",
    "features_of",
    "kind_of",
    "numbered",
    "positions_of",
    "text_of",
    "typed",
]
