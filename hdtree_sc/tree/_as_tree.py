"""A tree of whatever kind as a :class:`Tree`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hdtree_sc.tree._tree import Tree

if TYPE_CHECKING:
    import networkx as nx


def as_tree(tree: Tree | nx.DiGraph | str | None) -> Tree | None:
    """A tree of whatever kind."""
    if tree is None or isinstance(tree, Tree):
        return tree
    if isinstance(tree, str):
        return Tree.from_newick(tree)
    import networkx as nx  # slow to import, and hardly ever needed

    if isinstance(tree, nx.DiGraph):
        return Tree.from_networkx(tree)
    msg = f"tree: a hdtree_sc.Tree, newick or a networkx.DiGraph wanted, got {type(tree).__name__}."
    raise TypeError(msg)
