"""The tree itself: a frozen value on arrays."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from hdtree_sc._errors import listing
from hdtree_sc.tree import _build, _cells, _cut, _io, _names, _newick

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import networkx as nx
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import ArrayLike, NDArray


class Tree:
    """A rooted tree whose nodes have names; any number of children, never changed once made.

    Nodes are held in depth-first pre-order, children in the order given, so that the nodes below one node are
    one slice of every array: what asks about subtrees needs no walk.

    Parameters
    ----------
    names
        Unique, non-empty names of the ``n`` nodes, in any order.
    parents
        ``(n,)``: position of each node's parent in `names`, -1 for the root.
    heights
        ``(n,)``: dissimilarity at which a node's children part, 0 for leaves. Without it: the longest way down to a
        leaf, in `lengths`, or in edges if there are none.
    n_cells
        ``(n,)``: cells in each node's subtree. Without it: 0, which stands for unknown.
    codebook
        ``(n, d)``: a point per node, float32.
    lengths
        ``(n,)``: length of the branch above each node, NaN where there is none. Without it: the parent's height less
        the node's own, if `heights` are given. All NaN: the tree has no lengths.
    support
        ``(n,)``: how well the data support each node, on any scale, NaN where it is not known. All NaN: the tree has
        no support.

    Raises
    ------
    ValueError
        No node, no root or more than one, a cycle, a parent that does not exist, a name that is empty, no string or
        used twice, an array of another length, or heights that are not finite.

    Examples
    --------
    >>> tree = Tree(["root", "0", "1", "0.0", "0.1"], [-1, 0, 0, 1, 1], heights=[2, 1, 0, 0, 0])
    >>> tree.leaves
    ('0.0', '0.1', '1')
    >>> tree.lca("0.1", "1")
    'root'
    >>> tree.to_newick()
    '((0.0:1.0,0.1:1.0)0:1.0,1:2.0)root;'
    """

    __slots__ = (
        "_children", "_leaf_nodes", "_lookup", "codebook", "depth", "heights", "leaves", "lengths", "levels",
        "n_cells", "nodes", "parents", "sizes", "support",
    )  # fmt: skip

    nodes: tuple[str, ...]
    """Names in depth-first pre-order."""
    leaves: tuple[str, ...]
    """Names of the leaves, left to right."""
    parents: NDArray[np.int64]
    """``(n,)``: index of each node's parent, -1 for the root."""
    levels: NDArray[np.int64]
    """``(n,)``: edges between the root and each node."""
    sizes: NDArray[np.int64]
    """``(n,)``: nodes in each node's subtree, itself included: those below node ``i`` are ``i`` to ``i + sizes[i]``."""
    heights: NDArray[np.float64]
    """``(n,)``: dissimilarity at which each node's children part."""
    n_cells: NDArray[np.int64]
    """``(n,)``: cells in each node's subtree, 0 everywhere if unknown."""
    codebook: NDArray[np.float32] | None
    """``(n, d)``: a point per node."""
    lengths: NDArray[np.float64] | None
    """``(n,)``: length of the branch above each node, NaN where there is none."""
    support: NDArray[np.float64] | None
    """``(n,)``: support of each node, NaN where it is not known."""
    depth: int
    """Level of the deepest node."""
    _children: tuple[tuple[int, ...], ...]
    _leaf_nodes: NDArray[np.int64]
    _lookup: pd.Index

    def __init__(
        self,
        names: Sequence[str],
        parents: ArrayLike,
        heights: ArrayLike | None = None,
        n_cells: ArrayLike | None = None,
        codebook: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        support: ArrayLike | None = None,
    ) -> None:
        fields = _build.fields(list(names), parents, heights, n_cells, codebook, lengths, support)
        for name, value in fields.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        msg = f"A Tree cannot be changed ({name!r}): make a new one."
        raise AttributeError(msg)

    def __reduce__(self) -> tuple[type[Tree], tuple[Any, ...]]:
        lengths = np.full(len(self), np.nan) if self.lengths is None else self.lengths
        return Tree, (self.nodes, self.parents, self.heights, self.n_cells, self.codebook, lengths, self.support)

    def __len__(self) -> int:
        return len(self.nodes)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, Hashable) and name in self._lookup

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tree):
            return NotImplemented
        return self.nodes == other.nodes and all(
            _build.same(getattr(self, name), getattr(other, name))
            for name in ("parents", "heights", "n_cells", "codebook", "lengths", "support")
        )

    def __hash__(self) -> int:
        return hash((self.nodes, self.parents.tobytes()))

    def __repr__(self) -> str:
        cells = f", {self.n_cells[0]} cells" if self.n_cells[0] else ""
        return f"Tree of {len(self)} nodes: {len(self.leaves)} leaves, depth {self.depth}{cells}"

    @property
    def root(self) -> str:
        """Name of the root."""
        return self.nodes[0]

    @property
    def is_leaf_mask(self) -> NDArray[np.bool_]:
        """``(n,)``: whether each node is a leaf."""
        return self.sizes == 1

    @overload
    def index(self, names: str) -> int: ...  # type: ignore[overload-overlap]
    @overload
    def index(self, names: Iterable[str]) -> NDArray[np.int64]: ...
    def index(self, names: str | Iterable[str]) -> int | NDArray[np.int64]:
        """Positions of nodes in the tree's arrays.

        Parameters
        ----------
        names
            A name, or names in an array, list, Series or Categorical of any length ``m``.

        Returns
        -------
        The position, or ``(m,)`` positions.

        Raises
        ------
        KeyError
            A name is not in the tree; the message lists those that are.
        """
        if isinstance(names, str):
            return int(_names.find(self._lookup, [names])[0])
        return _names.find(self._lookup, names)

    def leaf_index(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Positions of leaves among `leaves`, left to right.

        Parameters
        ----------
        names
            ``m`` names of leaves.

        Raises
        ------
        KeyError
            A name is not in the tree, or belongs to an inner node.
        """
        found = np.atleast_1d(self.index(names))
        inner = np.unique(found[self.sizes[found] > 1])
        if len(inner):
            inner_names = listing(self.nodes[i] for i in inner)
            msg = f"names: {inner_names} are inner nodes; the leaves are {listing(self.leaves)}."
            raise KeyError(msg)
        return np.searchsorted(self._leaf_nodes, found)

    def parent(self, name: str) -> str | None:
        """Name of a node's parent; None for the root."""
        above = self.parents[self.index(name)]
        return None if above < 0 else self.nodes[above]

    def children(self, name: str) -> tuple[str, ...]:
        """Names of a node's children, in order; empty for a leaf."""
        return tuple(self.nodes[i] for i in self._children[self.index(name)])

    def is_leaf(self, name: str) -> bool:
        """Whether a node has no children."""
        return bool(self.sizes[self.index(name)] == 1)

    def path(self, name: str) -> tuple[str, ...]:
        """Names from below the root down to a node, itself included; empty for the root."""
        node, path = self.index(name), []
        while node > 0:
            path.append(self.nodes[node])
            node = int(self.parents[node])
        return tuple(reversed(path))

    def lca(self, a: str, b: str) -> str:
        """Name of the lowest common ancestor of two nodes, which may be one of them."""
        low, high = sorted((self.index(a), self.index(b)))
        while low + self.sizes[low] <= high:
            low = int(self.parents[low])
        return self.nodes[low]

    def subtree_leaves(self, name: str) -> tuple[str, ...]:
        """Names of the leaves below a node, left to right; of a leaf: itself."""
        node = self.index(name)
        first, last = np.searchsorted(self._leaf_nodes, [node, node + self.sizes[node]])
        return self.leaves[first:last]

    def ancestors_at(self, level: int) -> NDArray[np.int64]:
        """``(n,)``: position of each node's ancestor (or itself) at a level, -1 for nodes above that level."""
        here = np.where(self.levels == level, np.arange(len(self)), -1)
        # in pre-order, the last node seen at this level is the ancestor of all that follow deeper down
        return np.where(self.levels >= level, np.maximum.accumulate(here), -1)

    def codes(self) -> NDArray[np.int32]:
        """``(n, depth)``: which child is taken at each level on the way to each node, -1 below the node."""
        return _build.child_numbers(self._children, [self.ancestors_at(level + 1) for level in range(self.depth)])

    def cut(self, n_leaves: int | None = None, min_cells: int | None = None) -> Tree:
        """A smaller tree: inner nodes become leaves, what stays keeps its name.

        Parameters
        ----------
        n_leaves
            Leaves wanted: among the inner nodes with nothing but leaves below, the lowest (deepest, first if equal)
            becomes a leaf, until so many leaves are left. Where nodes have more than two children the wanted number
            may be jumped over: the cut then stops before it, at the smallest number not below `n_leaves`. Cuts are
            nested: fewer leaves are unions of more.
        min_cells
            Cells wanted in every leaf: as long as a leaf has fewer, the parent of the smallest becomes a leaf, with
            all that is below it. With `n_leaves` this comes first, and may leave fewer than `n_leaves`.

        Returns
        -------
        The cut tree; its leaves partition this tree's leaves. New leaves have height 0.

        Raises
        ------
        ValueError
            Neither argument is given, one is out of range, or `min_cells` is given to a tree without cell counts.
        """
        return _cut.cut(self, n_leaves, min_cells)

    def project(self, names: Iterable[str], within: Tree) -> NDArray[np.object_]:
        """Node of this tree that holds each named node of a larger tree.

        Parameters
        ----------
        names
            ``m`` names of nodes in `within`, for example the leaf of each cell.
        within
            The tree that this one was cut from.

        Returns
        -------
        ``(m,)`` names in this tree: the node itself or its nearest ancestor that is here.

        Raises
        ------
        KeyError
            A name is not in `within`.
        ValueError
            A node of `within` has no ancestor here: the trees do not belong together.
        """
        return _cut.project(self, names, within)

    def to_newick(self) -> str:
        """The tree as newick text: names, inner ones too, and branch lengths; counts and codebook are not in it.

        Names of other characters than ``A-Z a-z 0-9 . -`` are in single quotes. An inner node that has support and no
        name beyond that of its place is written with its support.
        """
        return _newick.write(self)

    @classmethod
    def from_newick(cls, text: str) -> Tree:
        """A tree from newick text.

        Parameters
        ----------
        text
            One tree. Names may be in single quotes; underscores stay; comments in ``[]`` are skipped. Nodes without
            a name get the path of their child numbers (``"0.1"``; the root ``"root"``), made unique; far down, where
            that is longer than 60 characters, ``"node"`` and their position in `nodes`.

            Unquoted numbers at inner nodes are their `support`. They are names where each is the path of its node, or
            where the leaves have numbers as names too and all numbers differ.

        Raises
        ------
        TypeError
            The text is not a string.
        ValueError
            The text is not one newick tree; the message says where.
        """
        return cls(**_newick.read(text))

    def to_frame(self) -> pd.DataFrame:
        """The nodes as a table: index = names in pre-order; parent ("" for the root), level, n_cells, is_leaf, height.

        A column ``length`` is added only if the branch lengths are not differences of heights, ``support`` if the tree
        has it.
        """
        return _io.to_frame(self)

    @classmethod
    def from_frame(cls, nodes: pd.DataFrame, codebook: ArrayLike | None = None) -> Tree:
        """A tree from a table of nodes, see `to_frame`.

        Parameters
        ----------
        nodes
            Index: names. Column ``parent``: names, empty or missing for the root; ``height``, ``n_cells``, ``length``
            and ``support`` are used if there.
        codebook
            ``(n, d)``: a point per row of `nodes`.
        """
        return cls(**_io.from_frame(nodes), codebook=codebook)

    @classmethod
    def from_parents(cls, parents: Mapping[str, str] | pd.Series, *, own_leaf: bool = False) -> Tree:
        """A tree from children and their parents, as ontologies and lineages are written down.

        Parameters
        ----------
        parents
            Name of each child to that of its parent, empty or missing for a root. Parents that are nobody's child are
            roots; several roots become the children of a new one.
        own_leaf
            Whether inner nodes stand for cells too, as mother cells do: each then gets a leaf of its name, and the
            node that holds that leaf and its children is called ``"<name> clade"``.

        Raises
        ------
        ValueError
            A child has two parents, or there is a cycle.
        """
        return cls(**_io.from_parents(parents, own_leaf=own_leaf))

    def to_networkx(self) -> nx.DiGraph:
        """A directed graph, parent to child; nodes have level, height and n_cells, edges a length if known."""
        return _io.to_networkx(self)

    @classmethod
    def from_networkx(cls, graph: nx.DiGraph) -> Tree:
        """A tree from a directed graph, parent to child.

        Parameters
        ----------
        graph
            Names are the nodes as text. The attributes ``height`` and ``n_cells`` are used if every node has them,
            ``support`` of those nodes and ``length`` of those edges that have it. Children stand in the order of their
            parent's edges.

        Raises
        ------
        TypeError
            It is no networkx graph.
        ValueError
            The graph is not directed, or not one tree.
        """
        return cls(**_io.from_networkx(graph))

    @classmethod
    def from_adata(cls, adata: AnnData, key: str = "hdtree") -> Tree:
        """The tree that ``hdtree_sc.tl.tree`` kept in ``adata.uns[key]``, with the cells that `adata` has now.

        Parameters
        ----------
        adata
            Annotated data, as they are or read back from h5ad or zarr.
        key
            The tree's key; a KeyError says what to run if there is no such tree.
        """
        return _cells.recounted(cls(**_io.from_adata(adata, key)), adata, key)
