"""Cells along a lineage path, in order."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from hdtree_sc._errors import listing, require_column, require_obs, require_obsm, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.get._path_names import ends_of_name, stored_name
from hdtree_sc.tree import Tree, node_of_cells

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

PathLike: TypeAlias = str | pd.DataFrame | Sequence[str] | None
"""A path: its name, the table of ``hdtree_sc.tl.lineage_path``, a list of nodes, or None for the newest."""
Order: TypeAlias = Literal["auto", "pseudotime", "path"]
"""What ``order=`` takes."""
FORWARD = 0.5
"""Rank correlation with the steps of the path, from which on pseudotime runs along it."""
MIN_CELLS = 20
"""Fewest cells on a path to which a trend is fitted."""
_RUN_PATH = "hdtree_sc.tl.lineage_path(adata, source, target)"
_RUN_TREE = "hdtree_sc.tl.tree(adata, model)"


@dataclass(frozen=True)
class PathCells:
    """Cells of a path from first to last.

    Parameters
    ----------
    rows
        ``(n,)``: rows of the AnnData.
    position
        ``(n,)``: where each cell is, never falling.
    order
        What the position is: ``"pseudotime"`` or ``"path"``.
    ends
        Names of the two ends.
    groupby
        ``obs`` column that the path was searched in, else ``""``.
    """

    rows: NDArray[np.int64]
    position: NDArray[np.float64]
    order: str
    ends: tuple[str, str]
    groupby: str

    @property
    def label(self) -> str:
        """The position in words, for an axis."""
        return "Pseudotime" if self.order == "pseudotime" else "Distance along the path"

    @property
    def title(self) -> str:
        """The two ends, first to last."""
        return " → ".join(self.ends)

    def batches(self, adata: AnnData, batch_key: str | None) -> NDArray[np.int64]:
        """Number of the batch of each cell, ``(n,)``; cells without a batch are one more.

        Parameters
        ----------
        adata
            The cells.
        batch_key
            ``obs`` column, or None: one batch.

        Raises
        ------
        KeyError
            There is no such column.
        """
        if batch_key is None:
            return np.zeros(len(self.rows), dtype=np.int64)
        batches = require_column(adata, batch_key, "batch_key")
        return np.unique(pd.factorize(batches.iloc[self.rows])[0], return_inverse=True)[1]


def path_table(adata: AnnData, path: PathLike, *, key: str) -> tuple[pd.DataFrame, tuple[str, str]]:
    """The nodes of a path in order, and the names of its two ends.

    Parameters
    ----------
    adata
        Cells on a tree.
    path
        The path.
    key
        Key of the tree.

    Raises
    ------
    KeyError
        There is no path, or none of this name, or a node is not in the tree.
    ValueError
        The path is empty, or its table has no column ``node``.
    """
    stored: dict[str, Any] = require_uns(adata, key, _RUN_TREE)
    ends = None
    if isinstance(path, pd.DataFrame):
        table = path
    elif path is None or isinstance(path, str):
        paths: dict[str, pd.DataFrame] = stored.get("paths", {})
        if not paths:
            msg = f"adata.uns[{key!r}] has no 'paths': run {_RUN_PATH} first."
            raise KeyError(msg)
        name = str(stored.get("last_path", next(reversed(paths)))) if path is None else stored_name(path, paths)
        if name is None or name not in paths:
            msg = f"path={path!r} is not in adata.uns[{key!r}]['paths']. Paths: {listing(paths)}."
            raise KeyError(msg)
        table = paths[name]
        named = ends_of_name(name)
        ends = (named[0], named[1]) if len(named) == 2 else None
    else:
        table = pd.DataFrame({"node": list(path)})
    if "node" not in table or len(table) == 0:
        msg = "path: it has to have a column 'node' (or be a list of nodes) and at least one node."
        raise ValueError(msg)
    table = table.sort_values("order", kind="stable") if "order" in table else table
    table = table.assign(node=table["node"].astype(str)).reset_index(drop=True)
    shape = Tree.from_adata(adata, key)
    unknown = [node for node in table["node"] if node not in shape]
    if unknown:
        msg = f"path: {listing(unknown)} are not nodes of adata.uns[{key!r}], which has {listing(shape.nodes, 20)}."
        raise KeyError(msg)
    if ends is None:
        ends = _ends(table)
    return table, ends


def _ends(table: pd.DataFrame) -> tuple[str, str]:
    """First and last node, by the group that is most frequent in them where the path has groups that differ."""
    first, last = table.iloc[0], table.iloc[-1]
    if "composition" in table and first["composition"] and last["composition"] not in ("", first["composition"]):
        return str(first["composition"]), str(last["composition"])
    return str(first["node"]), str(last["node"])


def path_cells(adata: AnnData, path: PathLike, *, key: str, order: Order = "auto") -> PathCells:
    """Cells on the nodes of a path, from first to last.

    A node holds all cells at or below it; a node of the path that lies above another one is a branch point on the way
    and holds none.

    Parameters
    ----------
    adata
        Cells on a tree.
    path
        The path.
    key
        Key of the tree.
    order
        ``"pseudotime"``, ``"path"``, or ``"auto"``: pseudotime where it is there and runs along the path, with a
        warning where it is there and does not, as between two tips.

    Raises
    ------
    KeyError
        The tree, the path or a wanted pseudotime is missing.
    ValueError
        The path has too few cells, all of them are at one place, or ``order`` is unknown.
    """
    if order not in ("auto", "pseudotime", "path"):
        msg = f"order: {order!r} is unknown; choose 'auto', 'pseudotime' or 'path'."
        raise ValueError(msg)
    keys = Keys(key)
    table, ends = path_table(adata, path, key=key)
    shape = Tree.from_adata(adata, key)
    step = _step_of_cell(adata, shape, shape.index(table["node"]), keys)
    rows = np.flatnonzero(step >= 0)
    if len(rows) < MIN_CELLS:
        msg = f"path: it has {len(rows)} cells; a trend needs {MIN_CELLS}. Choose a longer path or a cut of the tree."
        raise ValueError(msg)
    held = keys.pseudotime in adata.obs
    if order == "pseudotime" and not held:
        require_obs(adata, keys.pseudotime, f"hdtree_sc.tl.pseudotime(adata, root=..., key={key!r})")
    if order == "auto":
        order = "pseudotime" if held and _runs_along(adata, keys, rows, step[rows]) else "path"
    if order == "pseudotime":
        position = adata.obs[keys.pseudotime].to_numpy(float)[rows]
    else:
        position = _along(adata, keys, table, rows, step[rows])
    if not np.isfinite(position).all() or np.ptp(position) <= 0:
        msg = (
            f"path: its cells have no order: adata.obs[{keys.pseudotime!r}] is missing, or one value in all of them, "
            "and the path has one node. Run hdtree_sc.tl.pseudotime, or choose a longer path."
        )
        raise ValueError(msg)
    by = np.argsort(position, kind="stable")
    group = str(table["groupby"].iloc[0]) if "groupby" in table else ""
    return PathCells(rows[by], position[by], order, ends, group if group in adata.obs else "")


def _step_of_cell(adata: AnnData, shape: Tree, nodes: NDArray[np.int64], keys: Keys) -> NDArray[np.int64]:
    """Step of the path that holds each cell, -1 off the path."""
    leaf = node_of_cells(adata, shape, key=keys.key, missing=True)
    step = np.full(len(shape) + 1, -1, dtype=np.int64)
    for i, node in enumerate(nodes.tolist()):
        end = node + shape.sizes[node]
        # pre-order: what is below a node follows it
        if not ((nodes > node) & (nodes < end)).any():
            step[node:end] = i
    return step[leaf]


def _runs_along(adata: AnnData, keys: Keys, rows: NDArray[np.int64], step: NDArray[np.int64]) -> bool:
    from scipy.stats import spearmanr  # slow to import

    time = adata.obs[keys.pseudotime].to_numpy(float)[rows]
    if len(np.unique(step)) == 1 or np.ptp(time) == 0:
        return bool(np.ptp(time) > 0)
    along = spearmanr(step, time).statistic
    if abs(along) < FORWARD:
        msg = (
            f"Pseudotime does not run along the path (rank correlation {along:.2f} with its steps), as on a way from "
            "tip to tip: cells are ordered by their distance along the path. Set order= to choose."
        )
        warnings.warn(msg, UserWarning, stacklevel=4)
    return bool(abs(along) >= FORWARD)


def _along(
    adata: AnnData, keys: Keys, table: pd.DataFrame, rows: NDArray[np.int64], step: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Distance of each cell from the start: its place on the line through the means of the nodes."""
    name = keys.pca if keys.pca in adata.obsm else keys.latent
    points = np.asarray(require_obsm(adata, name, _RUN_TREE))[rows].astype(float)
    held = np.unique(step)
    centre = np.array([points[step == i].mean(0) for i in held])
    if "distance" in table:
        mark = table["distance"].to_numpy(float)[held]
    else:
        mark = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(centre, axis=0), axis=1)))
    out = np.zeros(len(rows))
    for i in range(len(held)):
        cells = np.flatnonzero(step == held[i])
        near = np.full(len(cells), np.inf)
        out[cells] = mark[i]
        for a in (i - 1, i):
            if a < 0 or a + 1 >= len(held):
                continue
            way = centre[a + 1] - centre[a]
            share = np.clip((points[cells] - centre[a]) @ way / max(float(way @ way), 1e-12), 0.0, 1.0)
            away = np.square(points[cells] - centre[a] - share[:, None] * way).sum(1)
            closer = away < near
            near[closer] = away[closer]
            out[cells[closer]] = (mark[a] + share * (mark[a + 1] - mark[a]))[closer]
    return out
