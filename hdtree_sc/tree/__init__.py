"""The tree as a value: structure, cutting and file formats.

:class:`Tree` is public; what else is here is for the other rooms of the package.
"""

from hdtree_sc.tree._as_tree import as_tree
from hdtree_sc.tree._branch_points import cosine_levels, mixing_levels, node_heights
from hdtree_sc.tree._cells import node_of_cells
from hdtree_sc.tree._class_tree import LINKAGES, ClassTree, Linkage, found_tree, given_tree, with_support
from hdtree_sc.tree._cut import collapse
from hdtree_sc.tree._names import path_names
from hdtree_sc.tree._sums import subtree_sums
from hdtree_sc.tree._tree import Tree

__all__ = ["Tree"]


def __dir__() -> list[str]:
    return __all__
