"""From AnnData to the objects of this package.

``__all__`` is public; what else is here reads AnnData for the other rooms of the package.
"""

from hdtree_sc.get._expression import DataType, Expression, gene_columns, gene_numbers, median_library
from hdtree_sc.get._groups import cells_of_group, text_groups
from hdtree_sc.get._lineage_tree import RUN as RUN_LINEAGE_TREE
from hdtree_sc.get._lineage_tree import lineage_tree, milestone_of_cells, milestones, shape_of
from hdtree_sc.get._path_cells import Order, PathCells, PathLike, path_cells
from hdtree_sc.get._path_names import ends_of_name, joined_name, stored_name
from hdtree_sc.get._transmuted import Values, blocks, source_cells, source_rows, transmuted_types, types_column
from hdtree_sc.get._tree import tree
from hdtree_sc.get._treedata import treedata

__all__ = [
    "lineage_tree",
    "tree",
    "treedata",
]


def __dir__() -> list[str]:
    return __all__
