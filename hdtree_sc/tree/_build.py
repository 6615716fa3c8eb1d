"""From what a caller gives to the arrays of a tree: checks, order, heights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from hdtree_sc._errors import listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


class Shape(NamedTuple):
    """Who is below whom, nodes in pre-order."""

    parents: NDArray[np.int64]
    levels: NDArray[np.int64]
    sizes: NDArray[np.int64]
    children: tuple[tuple[int, ...], ...]


def fields(
    names: Sequence[str],
    parents: ArrayLike,
    heights: ArrayLike | None,
    n_cells: ArrayLike | None,
    codebook: ArrayLike | None,
    lengths: ArrayLike | None,
    support: ArrayLike | None,
) -> dict[str, Any]:
    """What a `Tree` holds, nodes in pre-order; see there for the arguments."""
    check_names(names)
    up = check_parents(parents, names)
    order = preorder(up, names)
    form = shape(up, order)
    height, branch = branches(
        form,
        None if heights is None else column("heights", heights, order),
        None if lengths is None else column("lengths", lengths, order, missing=True),
    )
    known = None if support is None else column("support", support, order, missing=True)
    ordered = tuple(names[i] for i in order)
    leaf_nodes = np.flatnonzero(form.sizes == 1)
    return {
        "nodes": ordered,
        "leaves": tuple(ordered[i] for i in leaf_nodes),
        "parents": form.parents,
        "levels": form.levels,
        "sizes": form.sizes,
        "heights": height,
        "n_cells": np.zeros(len(order), dtype=np.int64) if n_cells is None else counts(n_cells, order),
        "codebook": None if codebook is None else codes(codebook, order),
        "lengths": branch,
        "support": None if known is None or np.isnan(known).all() else known,
        "depth": int(form.levels.max()),
        "_children": form.children,
        "_leaf_nodes": leaf_nodes,
        "_lookup": pd.Index(ordered, dtype=object),
    }


def check_names(names: Sequence[object]) -> None:
    """Refuse no names at all, and names that are empty, no strings or used twice."""
    if not names:
        msg = "names: a tree has at least one node, its root; none was given."
        raise ValueError(msg)
    wrong = [name for name in names if not isinstance(name, str) or not name]
    if wrong:
        msg = f"names: every node needs a non-empty string as its name, got {wrong[0]!r} ({type(wrong[0]).__name__})."
        raise ValueError(msg)
    if len(set(names)) < len(names):
        seen: set[object] = set()
        twice = dict.fromkeys(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        msg = f"names: {listing(twice)} used more than once; node names must be unique."
        raise ValueError(msg)


def check_parents(parents: ArrayLike, names: Sequence[str]) -> NDArray[np.int64]:
    """Parents as integers, one a node, all in range."""
    up = np.asarray(parents)
    if up.shape != (len(names),) or not (np.issubdtype(up.dtype, np.integer) or (up == np.round(up)).all()):
        msg = f"parents: one integer position a node wanted, shape ({len(names)},); got shape {up.shape}, {up.dtype}."
        raise ValueError(msg)
    up = up.astype(np.int64)
    wrong = np.flatnonzero((up < -1) | (up >= len(names)))
    if len(wrong):
        node = wrong[0]
        msg = (
            f"parents: the parent of node {names[node]!r} does not exist: position {up[node]} is not in "
            f"[0, {len(names) - 1}] (-1 marks the root)."
        )
        raise ValueError(msg)
    return up


def preorder(up: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.int64]:
    """Positions of the nodes in depth-first pre-order, children in the order given; refuses what is not one tree."""
    roots = np.flatnonzero(up == -1)
    if len(roots) != 1:
        if len(roots):
            msg = f"parents: a tree has one root, found {len(roots)}: {listing(names[i] for i in roots.tolist())}."
        else:
            msg = "parents: there is no root (no parent is -1), so the nodes form a cycle."
        raise ValueError(msg)
    below: list[list[int]] = [[] for _ in names]
    for node, above in enumerate(up.tolist()):
        if above >= 0:
            below[above].append(node)
    order, stack = [], [int(roots[0])]
    while stack:
        node = stack.pop()
        order.append(node)
        stack.extend(reversed(below[node]))
    if len(order) < len(names):
        lost = listing(names[i] for i in np.setdiff1d(np.arange(len(names)), order).tolist())
        msg = f"parents: nodes cannot be reached from the root, they form a cycle: {lost}."
        raise ValueError(msg)
    return np.asarray(order, dtype=np.int64)


def shape(up: NDArray[np.int64], order: NDArray[np.int64]) -> Shape:
    """Parents, levels, subtree sizes and children of the nodes in pre-order."""
    n = len(order)
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n)
    parents = np.where(up[order] < 0, -1, rank[up[order]])
    levels, sizes = [0] * n, [1] * n
    children: list[list[int]] = [[] for _ in range(n)]
    above_of = parents.tolist()
    for node in range(1, n):  # a parent stands before its children
        levels[node] = levels[above_of[node]] + 1
        children[above_of[node]].append(node)
    for node in range(n - 1, 0, -1):
        sizes[above_of[node]] += sizes[node]
    return Shape(parents, np.asarray(levels), np.asarray(sizes), tuple(map(tuple, children)))


def column(name: str, values: ArrayLike, order: NDArray[np.int64], *, missing: bool = False) -> NDArray[np.float64]:
    """One finite float a node, in pre-order; NaN is allowed with `missing`."""
    out = np.asarray(values, dtype=np.float64)
    if out.shape != order.shape:
        msg = f"{name}: one number a node wanted, shape ({len(order)},); got shape {out.shape}."
        raise ValueError(msg)
    if not (np.isfinite(out) | (np.isnan(out) & missing)).all():
        msg = f"{name}: NaN or infinite values; every node needs a finite number."
        raise ValueError(msg)
    return out[order]


def counts(values: ArrayLike, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """One whole number of cells a node, in pre-order."""
    out = column("n_cells", values, order)
    if (out < 0).any() or (out != np.round(out)).any():
        msg = f"n_cells: cells are counted, 0 or more whole ones; got {out[(out < 0) | (out != np.round(out))][0]}."
        raise ValueError(msg)
    return out.astype(np.int64)


def codes(values: ArrayLike, order: NDArray[np.int64]) -> NDArray[np.float32]:
    """One point a node, float32, in pre-order."""
    out = np.asarray(values, dtype=np.float32)
    if out.ndim != 2 or len(out) != len(order):
        msg = f"codebook: one row a node wanted, shape ({len(order)}, d); got shape {out.shape}."
        raise ValueError(msg)
    return out[order]


def child_numbers(children: Sequence[tuple[int, ...]], ancestors: Sequence[NDArray[np.int64]]) -> NDArray[np.int32]:
    """``(n, depth)``: number among its siblings of each node's ancestor at each level, -1 where it has none."""
    number = np.zeros(len(children) + 1, dtype=np.int32)
    for below in children:
        number[list(below)] = np.arange(len(below))
    number[-1] = -1
    out = np.empty((len(children), len(ancestors)), dtype=np.int32)
    for level, nodes in enumerate(ancestors):
        out[:, level] = number[nodes]
    return out


def branches(
    tree: Shape, heights: NDArray[np.float64] | None, lengths: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Heights and branch lengths, the one from the other where only one is given; no lengths at all are None."""
    n = len(tree.parents)
    if heights is None:
        heights = np.zeros(n)
        steps = np.ones(n) if lengths is None or np.isnan(lengths[1:]).all() else np.nan_to_num(lengths)
        for node in range(n - 1, -1, -1):
            if tree.children[node]:
                heights[node] = max(heights[child] + steps[child] for child in tree.children[node])
    elif lengths is None and n > 1:
        lengths = height_steps(tree.parents, heights)
    return heights, None if lengths is None or np.isnan(lengths).all() else lengths


def height_steps(parents: NDArray[np.int64], heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(n,)``: height of the parent less the node's own; NaN for the root."""
    return np.append(np.nan, heights[parents[1:]] - heights[1:])


def same(a: object, b: object) -> bool:
    """Whether two fields agree: both None, or equal arrays (NaN equals NaN)."""
    if a is None or b is None:
        return a is b
    left, right = np.asarray(a), np.asarray(b)
    return np.array_equal(left, right, equal_nan=left.dtype.kind == "f" and right.dtype.kind == "f")
