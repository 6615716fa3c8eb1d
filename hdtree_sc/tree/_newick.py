"""Newick text to a tree and back, without recursion."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from hdtree_sc.tree._names import path_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hdtree_sc.tree._tree import Tree

LONGEST = 60
"""Characters of a path that serves as the name of a node without one."""
_TOKEN = re.compile(r"(?P<quoted>'(?:[^']|'')*')|(?P<comment>\[[^\]]*\])|(?P<mark>[(),:;])|(?P<plain>[^\s()\[\],:;']+)")
_NEEDS_QUOTES = re.compile(r"[^A-Za-z0-9.-]")
"""What other readers misread, or change as the standard does with ``_``, unless it is quoted."""
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NUMBERED = re.compile(r"[0-9]+(\.[0-9]+)*")
"""Names that are numbers themselves, such as paths."""


def write(tree: Tree) -> str:
    """See `Tree.to_newick`."""
    labels = _labels(tree)
    if tree.lengths is not None:
        known = ~np.isnan(tree.lengths)
        labels = [
            f"{label}:{length!r}" if there else label
            for label, length, there in zip(labels, tree.lengths.tolist(), known.tolist(), strict=True)
        ]
    ends = (np.arange(len(tree)) + tree.sizes).tolist()
    text: list[str] = []
    open_: list[int] = []
    for node, end in enumerate(ends):
        while open_ and ends[open_[-1]] <= node:
            text += [")", labels[open_.pop()]]
        if text and text[-1] != "(":
            text.append(",")
        if end == node + 1:
            text.append(labels[node])
        else:
            text.append("(")
            open_.append(node)
    while open_:
        text += [")", labels[open_.pop()]]
    return "".join(text) + ";"


def read(text: str) -> dict[str, Any]:
    """Arguments for `Tree`: names, parents, lengths and support; see `Tree.from_newick`."""
    if not isinstance(text, str):
        remedy = "decode it (text.decode())" if isinstance(text, bytes | bytearray) else "read it from its file first"
        msg = f"text: newick text is wanted as str, got {type(text).__name__}; {remedy}."
        raise TypeError(msg)
    names: list[str | None] = [None]
    parents, lengths = [-1], [np.nan]
    numbers: dict[int, str] = {}  # labels of inner nodes that may be support
    node = 0  # where we are: its label and length are read next
    state = "start"  # "start": a node begins; "closed": its children are read; "named", "colon", "done": then what
    for kind, token, at in _tokens(text):
        if state == "done":
            raise _error(text, at, "text after the end of the tree; give one tree at a time")
        if state == "colon":
            lengths[node] = _length(text, token, at)
            state = "measured"
        elif kind in ("name", "quoted") and state in ("start", "closed"):
            names[node] = token or None
            if kind == "name" and state == "closed" and _NUMBER.fullmatch(token):
                numbers[node] = token
            state = "named"
        elif kind == "mark" and token == "(" and state == "start":
            node = _add(names, parents, lengths, node)
        elif kind == "mark" and token == "," and parents[node] >= 0:
            node = _add(names, parents, lengths, parents[node])
            state = "start"
        elif kind == "mark" and token == ")" and parents[node] >= 0:
            node, state = parents[node], "closed"
        elif kind == "mark" and token == ":" and state != "measured":
            state = "colon"
        elif kind == "mark" and token == ";" and node == 0:
            state = "done"
        else:
            raise _error(text, at, f"unexpected {token!r}; names with blanks or any of ()[],:;' need single quotes")
    if state == "colon":
        raise _error(text, len(text), "a branch length is missing after ':'")
    if node != 0:
        raise _error(text, len(text), "a '(' is not closed")
    if len(names) == 1 and names[0] is None:
        raise _error(text, 0, "there is no tree")
    support = np.full(len(names), np.nan)
    if _are_support(numbers, names, parents):
        for node, number in numbers.items():
            names[node], support[node] = None, float(number)
    return {"names": _named(names, parents), "parents": parents, "lengths": lengths, "support": support}


def _add(names: list[str | None], parents: list[int], lengths: list[float], parent: int) -> int:
    names.append(None)
    parents.append(parent)
    lengths.append(np.nan)
    return len(names) - 1


def _tokens(text: str) -> list[tuple[str, str, int]]:
    """Kind ("mark", "name" or "quoted"), text and position of each token; comments are dropped."""
    tokens, at = [], 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        found = _TOKEN.match(text, at)
        if found is None:
            raise _error(text, at, "a quote or comment is not closed")
        if found["mark"]:
            tokens.append(("mark", found["mark"], at))
        elif found["quoted"]:
            tokens.append(("quoted", found["quoted"][1:-1].replace("''", "'"), at))
        elif found["plain"]:
            tokens.append(("name", found["plain"], at))
        at = found.end()
    return tokens


def _labels(tree: Tree) -> list[str]:
    """What is written at each node: its name, or the support of one whose name is read from its place anyway."""
    names, parents = list(tree.nodes), tree.parents.tolist()
    labels = [_quoted(name) for name in names]
    inner = np.flatnonzero(~tree.is_leaf_mask).tolist()
    numeric = {node: names[node] for node in inner if _NUMBER.fullmatch(labels[node])}
    quoted = {node: f"'{name}'" for node, name in numeric.items()}
    if tree.support is not None:
        known = [node for node in inner if not np.isnan(tree.support[node])]
        blank = set(known)
        unnamed = _named([None if node in blank else name for node, name in enumerate(names)], parents)
        supported = {
            node: repr(float(tree.support[node])).removesuffix(".0") for node in known if unnamed[node] == names[node]
        }
        if _are_support(supported, names, parents):
            for node, label in (quoted | supported).items():
                labels[node] = label
            return labels
    if _are_support(numeric, names, parents):
        for node, label in quoted.items():
            labels[node] = label
    return labels


def _are_support(numbers: Mapping[int, str], names: Sequence[str | None], parents: Sequence[int]) -> bool:
    """Whether numbers at inner nodes are support rather than names.

    They are names where every one is the path of its node, and where the leaves have numbers as names too and none is
    there twice.

    Parameters
    ----------
    numbers
        Unquoted number at each inner node that has one.
    names
        Name of each node, None where there is none.
    parents
        Position of each node's parent, -1 for the root; parents before children.
    """
    if not numbers:
        return False
    paths = path_names(parents, longest=LONGEST)
    if all(paths[node] == number for node, number in numbers.items()):
        return False
    above = set(parents)
    if not all(_NUMBERED.fullmatch(name or "") for node, name in enumerate(names) if node not in above):
        return True
    taken = [label for node, name in enumerate(names) if (label := numbers.get(node, name)) is not None]
    return len(set(taken)) < len(taken)


def _named(names: Sequence[str | None], parents: Sequence[int]) -> list[str]:
    """Nodes without a name get the path of their child numbers, with a suffix if another node is called that."""
    taken = {name for name in names if name is not None}
    out: list[str] = []
    for given, path in zip(names, path_names(parents, longest=LONGEST), strict=True):
        name, suffix = path if given is None else given, 0
        while given is None and name in taken:
            suffix += 1
            name = f"{path}_{suffix}"
        taken.add(name)
        out.append(name)
    return out


def _quoted(name: str) -> str:
    if not _NEEDS_QUOTES.search(name):
        return name
    inside = name.replace("'", "''")
    return f"'{inside}'"


def _length(text: str, token: str, at: int) -> float:
    try:
        value = float(token)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise _error(text, at, f"{token!r} is no branch length")
    return value


def _error(text: str, at: int, what: str) -> ValueError:
    near = text[max(0, at - 20) : at + 20]
    return ValueError(f"text is not newick: {what} (character {at}, near {near!r}).")
