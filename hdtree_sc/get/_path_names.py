"""Names of paths: those of the two ends, joined so that no two pairs of ends share one and files can hold it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

ARROW = " -> "
_SPECIAL = {"/": "%2F", "|": "%7C", "->": "-%3E"}
"""What ends may not hold as it is: files split keys at ``/``, ``|`` stood for it in version 0.1, ``->`` parts ends."""
_CODES = {"2F": "/", "7C": "|", "3E": ">", "25": "%"}


def joined_name(ends: Iterable[object]) -> str:
    """Name of a path from the names of its ends (or of all its nodes), in order."""
    return ARROW.join(_escaped(str(end)) for end in ends)


def ends_of_name(name: str) -> list[str]:
    """Names of the ends of a path, as they were given."""
    return [re.sub("%(2F|7C|3E|25)", lambda code: _CODES[code[1]], part) for part in name.split(ARROW)]


def stored_name(path: str, paths: Container[str]) -> str | None:
    """Key of a path among the stored ones; None if there is none.

    Parameters
    ----------
    path
        ``"<source> -> <target>"`` with the names as they are, or the key itself.
    paths
        The stored paths, also those of version 0.1, whose keys have ``|`` for ``/``.
    """
    # a name may hold the arrow, or end with a part of it
    arrows = (i for i in range(len(path)) if path.startswith(ARROW, i))
    as_given = [joined_name([path[:i], path[i + len(ARROW) :]]) for i in arrows]
    known = (name for name in (*as_given, path, path.replace("/", "|")) if name in paths)
    return next(known, None)


def _escaped(end: str) -> str:
    out = re.sub("%(?=2F|7C|3E|25)", "%25", end)
    for special, code in _SPECIAL.items():
        out = out.replace(special, code)
    return out
