"""Newick text to a tree and back, without recursion."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hdtree_sc.tree._tree import Tree

_TOKEN = re.compile(r"(?P<quoted>'(?:[^']|'')*')|(?P<comment>\[[^\]]*\])|(?P<mark>[(),:;])|(?P<plain>[^\s()\[\],:;']+)")
_NEEDS_QUOTES = re.compile(r"[\s()\[\],:;']")


def write(tree: Tree) -> str:
    """See `Tree.to_newick`."""
    labels = [_quoted(name) for name in tree.nodes]
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
    """Arguments for `Tree`: names, parents and lengths; see `Tree.from_newick`."""
    names: list[str | None] = [None]
    parents, lengths = [-1], [np.nan]
    node = 0  # where we are: its label and length are read next
    state = "start"  # "start": a node begins; "closed": its children are read; "named", "colon", "done": then what
    for kind, token, at in _tokens(text):
        if state == "done":
            raise _error(text, at, "text after the end of the tree; give one tree at a time")
        if state == "colon":
            lengths[node] = _length(text, token, at)
            state = "measured"
        elif kind == "name" and state in ("start", "closed"):
            names[node] = token or None
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
    return {"names": _named(names, parents), "parents": parents, "lengths": lengths}


def _add(names: list[str | None], parents: list[int], lengths: list[float], parent: int) -> int:
    names.append(None)
    parents.append(parent)
    lengths.append(np.nan)
    return len(names) - 1


def _tokens(text: str) -> list[tuple[str, str, int]]:
    """Kind ("mark" or "name"), text and position of each token; comments are dropped."""
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
            tokens.append(("name", found["quoted"][1:-1].replace("''", "'"), at))
        elif found["plain"]:
            tokens.append(("name", found["plain"], at))
        at = found.end()
    return tokens


def _named(names: list[str | None], parents: list[int]) -> list[str]:
    """Nodes without a name get the path of their child numbers, with a suffix if another node is called that."""
    taken = {name for name in names if name is not None}
    n_children = [0] * len(names)
    paths: list[str] = []
    out: list[str] = []
    for node, (name, above) in enumerate(zip(names, parents, strict=True)):
        if above < 0:
            paths.append("")
        else:
            paths.append(f"{paths[above]}.{n_children[above]}" if paths[above] else str(n_children[above]))
            n_children[above] += 1
        if name is None:
            base = paths[node] or "root"
            name, suffix = base, 0
            while name in taken:
                suffix += 1
                name = f"{base}_{suffix}"
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
