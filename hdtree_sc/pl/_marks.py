"""What is known of the nodes of a drawn tree: how well cells support them, and how conditions differ in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.lines import Line2D

from hdtree_sc._errors import listing
from hdtree_sc.pl import _style

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from hdtree_sc.pl._layout import Orientation
    from hdtree_sc.tree import Tree

MAX_WRITTEN = 25
"""Numbers are written at inner nodes up to so many of them; shades say it beyond."""
FAINTEST = 0.12
LARGEST_FOLD = 4.0
"""Colours end at this log2 fold change by default, or a node that one condition lacks would bleach all others."""
ALPHA = 0.05
RING = 4.0
"""Points by which a ring is wider than its node."""


@dataclass(frozen=True)
class NodeChanges:
    """How each node differs between two conditions."""

    log2fc: NDArray[np.float64]
    """NaN where nothing can be compared, (n_nodes,)."""
    significant: NDArray[np.bool_]
    title: str
    label: str

    def limit(self) -> float:
        """End of the colour scale."""
        finite = np.abs(self.log2fc[np.isfinite(self.log2fc)])
        return float(min(finite.max(initial=0.0), LARGEST_FOLD)) or 1.0


def support_of(adata: AnnData, tree: Tree, *, key: str) -> NDArray[np.float64]:
    """Support of each node (n_nodes,), NaN where it has none.

    Parameters
    ----------
    adata
        Annotated data.
    tree
        The tree that is drawn.
    key
        The tree's key.

    Raises
    ------
    KeyError
        There is none yet; the message says what to run.
    """
    nodes = adata.uns[key]["nodes"]
    if "support" not in nodes:
        msg = f"adata.uns[{key!r}]['nodes'] has no 'support': run hdtree_sc.tl.tree_support(adata, model) first."
        raise KeyError(msg)
    return nodes["support"].reindex(list(tree.nodes)).to_numpy(dtype=float)


def shades(ax: Axes, colors: Sequence[str], support: NDArray[np.float64]) -> list[str]:
    """The same colours, paler where support is less.

    Parameters
    ----------
    ax
        Axes drawn on.
    colors
        ``n`` colours.
    support
        From 0 to 1, (n,).
    """
    strength = FAINTEST + (1.0 - FAINTEST) * np.nan_to_num(support).clip(0.0, 1.0) ** 1.5
    return [_style.blend(color, _style.paper(ax), s) for color, s in zip(colors, strength, strict=True)]


def support_handles(ax: Axes) -> list[Line2D]:
    """Legend entries for the shades."""
    levels = np.array([1.0, 0.75, 0.5, 0.25])
    colors = shades(ax, [_style.muted(ax, 0.9)] * len(levels), levels)
    return [Line2D([], [], color=c, linewidth=2.5, label=f"{s:g}") for c, s in zip(colors, levels, strict=True)]


def write_support(
    ax: Axes,
    xy: NDArray[np.float64],
    tree: Tree,
    support: NDArray[np.float64],
    diameters: NDArray[np.float64],
    orientation: Orientation,
    fontsize: float,
) -> None:
    """Write support in percent at the branches above inner nodes, the larger nodes first, none over another.

    Parameters
    ----------
    ax
        Axes drawn on, with their final limits.
    xy
        Positions of the nodes (n_nodes, 2) in data units.
    tree
        The tree.
    support
        From 0 to 1, (n_nodes,).
    diameters
        Of the nodes (n_nodes,), points.
    orientation
        Side of the root.
    fontsize
        Points.
    """
    inner = np.flatnonzero(~tree.is_leaf_mask & np.isfinite(support) & (tree.parents >= 0))
    if len(inner) > MAX_WRITTEN:
        return
    unit = 72 / ax.get_figure(root=True).dpi
    at = ax.transData.transform(xy) * unit
    size = np.clip(fontsize, 5.5, 8.0)
    # towards the root, and beside the branch
    away = {"top": (0, 1), "bottom": (0, -1), "left": (-1, 0), "right": (1, 0)}[orientation]
    side = (1, 0) if away[0] == 0 else (0, 1)
    taken: list[tuple[float, float, float, float]] = []
    for node in inner[np.argsort(-tree.n_cells[inner], kind="stable")]:
        text = f"{round(100 * support[node])}"
        wide, high = 0.6 * size * len(text), 1.0 * size
        along, across = (wide, high) if away[0] else (high, wide)
        shift = np.multiply(away, diameters[node] / 2 + 0.6 * along + 0.5) + np.multiply(side, across / 2 + 2.0)
        x, y = at[node] + shift
        box = (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)
        gap = np.hypot(np.maximum(np.abs(at[:, 0] - x) - wide / 2, 0), np.maximum(np.abs(at[:, 1] - y) - high / 2, 0))
        covered = (gap < diameters / 2 - 0.5).any()
        if covered or any(_overlap(box, other) for other in taken):
            continue
        taken.append(box)
        ax.annotate(
            text, xy[node], xytext=tuple(shift), textcoords="offset points", ha="center", va="center", fontsize=size,
            zorder=6.5, annotation_clip=False, path_effects=_style.halo(ax, 2.0), gid="support",
        )  # fmt: skip


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def changes_of(
    adata: AnnData, tree: Tree, *, compare: bool | str, within: Literal["parent", "whole"], key: str
) -> NodeChanges:
    """What `hdtree_sc.tl.compare_conditions` found, for the nodes that are drawn.

    Parameters
    ----------
    adata
        Annotated data.
    tree
        The tree that is drawn.
    compare
        The condition, or True where there is but one beside the reference.
    within
        Shares within the parent or of the whole.
    key
        The tree's key.

    Raises
    ------
    KeyError
        Nothing was compared yet; the message says what to run.
    ValueError
        There is no such condition, or several and none is named.
    """
    if within not in ("parent", "whole"):
        msg = f"within={within!r} is not one of 'parent', 'whole'."
        raise ValueError(msg)
    stored = adata.uns[key].get("conditions", {})
    if "abundance" not in stored:
        msg = (
            f"adata.uns[{key!r}] has no 'conditions': run hdtree_sc.tl.compare_conditions(adata, condition_key, "
            f"sample_key, key={key!r}) first."
        )
        raise KeyError(msg)
    table: pd.DataFrame = stored["abundance"]
    there = list(dict.fromkeys(table["condition"].astype(str)))
    if compare is True and len(there) > 1:
        msg = f"compare=True, but several conditions were compared: name one of {listing(there)}."
        raise ValueError(msg)
    name = there[0] if compare is True else str(compare)
    if name not in there:
        msg = f"compare={compare!r} was not compared with the reference; there are {listing(there)}."
        raise ValueError(msg)
    rows = table[table["condition"].astype(str) == name]
    after = "" if within == "parent" else "_whole"
    rows = rows.set_index(rows["node"].astype(str)).reindex(list(tree.nodes))
    fdr = rows[f"fdr{after}"].to_numpy(dtype=float)
    reference = str(table["reference"].iloc[0])
    column = str(stored.get("params", {}).get("condition_key", ""))
    return NodeChanges(
        log2fc=rows[f"log2fc{after}"].to_numpy(dtype=float),
        significant=np.nan_to_num(fdr, nan=1.0) < ALPHA,
        title=f"{column}: {name} against {reference}" if column else f"{name} against {reference}",
        label="log2 fold change of\nthe share " + ("in the parent" if within == "parent" else "of all cells"),
    )


def rings(ax: Axes, xy: NDArray[np.float64], diameters: NDArray[np.float64], chosen: NDArray[np.bool_]) -> None:
    """Rings around nodes, a gap away from them.

    Parameters
    ----------
    ax
        Axes drawn on.
    xy
        Positions of the nodes (n_nodes, 2).
    diameters
        Of the nodes (n_nodes,), points.
    chosen
        Which nodes get one.
    """
    made = ax.scatter(
        xy[chosen, 0], xy[chosen, 1], s=np.square(diameters[chosen] + RING), c="none", edgecolors=_style.ink(),
        linewidths=1.3, zorder=4.5, clip_on=False,
    )  # fmt: skip
    made.set_gid("significant")


def ring_handle(fontsize: float) -> Line2D:
    """Legend entry for the rings."""
    return Line2D(
        [], [], linestyle="", marker="o", markersize=0.85 * fontsize, markerfacecolor="none",
        markeredgecolor=_style.ink(), markeredgewidth=1.3, label=f"FDR < {ALPHA:g}",
    )  # fmt: skip
