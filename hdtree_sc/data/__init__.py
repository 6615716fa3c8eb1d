"""Fields of an AnnData, and minibatches of its cells."""

from hdtree_sc.data._align import aligned, feature_names_of, known_categories
from hdtree_sc.data._arguments import Rows, finite_number, rows_of, whole_numbers
from hdtree_sc.data._category_names import positions_of, text_of
from hdtree_sc.data._cell_manager import CellManager
from hdtree_sc.data._fingerprint import Fingerprint
from hdtree_sc.data._image_shape import shape_of_images
from hdtree_sc.data._obsm_field import features_of
from hdtree_sc.data._points import PointSplitter
from hdtree_sc.data._reader import INFERENCE_BATCH, CellReader, Query, make_room, over
from hdtree_sc.data._setup import Setup, registered_fields, require_genes
from hdtree_sc.data._splitter import FittingSplitter, PairSplitter
from hdtree_sc.data._training_cells import TrainingCells, cells_to_load
from hdtree_sc.data._validation import (
    check_likelihood,
    check_names,
    check_setup,
    check_shape,
    check_values,
)

__all__ = [
    "CellManager",
    "CellReader",
    "Fingerprint",
    "FittingSplitter",
    "INFERENCE_BATCH",
    "PairSplitter",
    "PointSplitter",
    "Query",
    "Rows",
    "Setup",
    "TrainingCells",
    "aligned",
    "cells_to_load",
    "check_likelihood",
    "check_names",
    "check_setup",
    "check_shape",
    "check_values",
    "feature_names_of",
    "features_of",
    "finite_number",
    "known_categories",
    "make_room",
    "over",
    "positions_of",
    "registered_fields",
    "require_genes",
    "rows_of",
    "shape_of_images",
    "text_of",
    "whole_numbers",
]
