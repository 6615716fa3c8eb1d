"""The tree as a dendrogram: who is in each node, or how strongly it expresses a gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.ticker import MaxNLocator

from hdtree_sc.pl import _cells, _draw, _layout, _marks, _style
from hdtree_sc.pl._leaf_labels import LeafLabels
from hdtree_sc.pl._side import SideColumn
from hdtree_sc.tree import Tree

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from numpy.typing import NDArray

_ORIENTATIONS = ("top", "bottom", "left", "right")


@dataclass(frozen=True)
class TreeData:
    """A tree as it is drawn: structure, cells and, per node, what it is coloured and labelled by."""

    tree: Tree
    node: NDArray[np.int64]
    n_cells: NDArray[np.int64]


def tree_data(adata: AnnData, *, key: str, max_leaves: int | None = None, min_cells: int | None = None) -> TreeData:
    """The stored tree with the cells that `adata` holds now, cut to what is to be drawn.

    Parameters
    ----------
    adata
        Annotated data with ``uns[key]`` and the cells' leaves; a subset of the cells is fine.
    key
        The tree's key.
    max_leaves
        Cut to at most so many leaves.
    min_cells
        Cut until every leaf has so many cells.

    Raises
    ------
    KeyError
        There is no tree.
    ValueError
        A number to cut to is below 1.
    """
    for name, value in (("max_leaves", max_leaves), ("min_cells", min_cells)):
        if value is not None and value < 1:
            msg = f"{name}={value}: it has to be at least 1."
            raise ValueError(msg)
    stored = _cells.stored_tree(adata, key)
    node = _cells.node_of_cell(adata, stored, stored, key=key)
    n_cells = _cells.node_sizes(stored, node)
    full = Tree(stored.nodes, stored.parents, heights=stored.heights, n_cells=n_cells)
    tree = full
    if min_cells is not None and n_cells[0] > 0:
        tree = tree.cut(min_cells=min(min_cells, int(n_cells[0])))
    if max_leaves is not None and max_leaves < len(tree.leaves):
        tree = tree.cut(n_leaves=max_leaves)
    node = _cells.node_of_cell(adata, tree, full, key=key)
    return TreeData(tree, node, tree.n_cells)


def tree(
    adata: AnnData,
    *,
    key: str = "hdtree",
    color: str | None = None,
    groupby: str | None = None,
    support: bool = False,
    compare: bool | str = False,
    within: Literal["parent", "whole"] = "parent",
    layer: str | None = None,
    use_raw: bool | None = None,
    palette: _style.Palette | None = None,
    cmap: str | Colormap | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    orientation: _layout.Orientation = "top",
    branch_lengths: _layout.BranchLengths = "sqrt",
    spacing: Literal["even", "cells"] = "even",
    max_leaves: int | None = None,
    min_cells: int | None = None,
    node_size: float = 28.0,
    show_labels: bool = True,
    legend_loc: str | None = "right margin",
    legend_fontsize: float | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes | None:
    """Draw the tree: nodes sized by their cells, edges as wide as the cells that take them.

    A category gives pies, a number or a gene gives the mean of each node, and nothing gives one colour to each big
    branch. A leaf is labelled with its most frequent type and that type's share, so that mixed leaves can be told.

    Parameters
    ----------
    adata
        Annotated data after ``hdtree_sc.tl.tree``. Only ``uns["<color>_colors"]`` may be set, as in scanpy.
    key
        The tree's key.
    color
        Column of ``obs`` or gene; ``None``: the branches at the second level (the first, if there are more than ten).
    groupby
        Column of ``obs`` whose most frequent value labels each leaf; default: `color` where that is a category,
        else the names of the nodes.
    support
        Whether to show the support of each node that ``hdtree_sc.tl.tree_support`` found: branches are paler where it
        is less, and of trees with up to 25 inner nodes it is written there in percent.
    compare
        Draw how conditions differ, as ``hdtree_sc.tl.compare_conditions`` found, in place of a `color`: True, or the
        name of a condition where there are several. Colours are log2 fold changes, rings mark a false discovery rate
        below 0.05, grey is what cannot be compared.
    within
        Fold change of a node's share of its ``"parent"`` (where a change happens) or of the ``"whole"``.
    layer
        Layer to read the gene from.
    use_raw
        Read the gene from ``adata.raw``; default: where it is there and no layer is named.
    palette
        Colours of the categories: a colour map's name, a list in their order or a mapping. Default:
        ``uns["<color>_colors"]``, else scanpy's.
    cmap
        Colour map for numbers.
    vmin, vmax
        Ends of the colour scale; default: the smallest and largest mean of a node. Of fold changes: the largest either
        way, at most 4.
    orientation
        Side of the root. ``"left"`` suits long names.
    branch_lengths
        ``"height"``: the dissimilarity at which children part; ``"sqrt"``: the same on a square-root axis, which opens
        up the low splits; ``"level"``: by level. A tree without heights is drawn by level.
    spacing
        ``"even"``, or ``"cells"`` for more room to larger leaves.
    max_leaves
        Cut the tree to so many leaves for this plot.
    min_cells
        Cut the tree so that each drawn leaf has so many cells.
    node_size
        Diameter of the largest node in points. The area goes with the square root of the cells; where there is no
        room, leaves shrink together, and an inner node shrinks rather than cover another.
    show_labels
        Whether the leaves are labelled. Labels shrink to fit; where that would make them unreadable, those of the
        smallest leaves are left out.
    legend_loc
        ``"right margin"``, a place inside the Axes that matplotlib knows, or ``None`` for no legends.
    legend_fontsize
        Points; default: the style's, smaller on small figures.
    title
        Default: `color`, or the conditions compared.
    figsize
        Inches; default: grows with the leaves.
    ax
        Axes to draw on; a figure made with ``layout="constrained"`` makes room for the legends.
    show
        Show the figure; default: ``scanpy.settings.autoshow``, or not where `ax` is given.

    Returns
    -------
    The Axes where ``show=False`` or `ax` is given, else ``None``.

    Raises
    ------
    KeyError
        There is no such tree, `color`, `groupby` or `layer`, and the message lists what there is; or support or
        conditions were not computed yet.
    ValueError
        An option is none of those named above, or `color` is given with `compare`.
    """
    _check(orientation, branch_lengths, spacing)
    if compare is not False and color is not None:
        msg = f"color={color!r} and compare={compare!r} both colour the nodes: give one (groupby= names the leaves)."
        raise ValueError(msg)
    data = tree_data(adata, key=key, max_leaves=max_leaves, min_cells=min_cells)
    supported = _marks.support_of(adata, data.tree, key=key) if support else None
    changes = None if compare is False else _marks.changes_of(adata, data.tree, compare=compare, within=within, key=key)
    values = None if color is None else _cells.cell_values(adata, color, layer=layer, use_raw=use_raw)
    group = _label_values(adata, values, groupby)
    layout = _layout.tree_layout(data.tree, data.n_cells, branch_lengths=branch_lengths, spacing=spacing)
    xy = _layout.orient(layout[["x", "y"]].to_numpy(), orientation)
    names = _leaf_names(data, group) if show_labels else []
    palette_colors: list[str] = []
    if values is not None and values.is_categorical:
        palette_colors = _style.category_colors(adata, values, palette)
    heat = _heat(data, values, changes, vmin=vmin, vmax=vmax)
    scale_map = _style.get_cmap(cmap if changes is None else cmap or "RdBu_r")
    beside = 0 if values is None else len(values.categories)
    legend = changes is not None or values is not None
    shown = _style.new_axes(ax, figsize, _figsize(len(data.tree.leaves), names, beside, orientation, legend=legend))
    side = SideColumn(shown, legend_fontsize, reserve=(2.6 * node_size + 28) / 72)
    default = changes.title if changes is not None else color or ""
    shown.set_title(default if title is None else title, fontsize=1.2 * side.fontsize)
    heads, branch = _layout.clades(data.tree)
    branch_colors = np.array([*_style.default_palette(len(heads)), _style.muted(shown, 0.6)])
    segments = _layout.orient(_layout.elbows(layout), orientation)
    plain = not legend
    grey = _style.muted(shown, 0.55 if supported is None else 0.9)
    colors = list(branch_colors[branch[1:]]) if plain else [grey] * (len(data.tree) - 1)
    if supported is not None:
        colors = _marks.shades(shown, colors, supported[1:])
    _draw.edges(shown, segments, _draw.edge_widths(data.n_cells[1:]), colors)
    _frame(shown, layout, data.tree, orientation, branch_lengths, side.fontsize)

    leaf_cells = data.n_cells[data.tree.is_leaf_mask]
    labels = LeafLabels(shown, names, leaf_cells, layout, orientation) if show_labels else None
    _style.settle(shown)
    if labels is not None:
        labels.fit()
        side.shift((labels.length() + node_size / 2) / 72 if orientation == "left" else 0.0)
    if title is None:
        shown.set_title(_style.title(shown, default, 1.2 * side.fontsize), fontsize=1.2 * side.fontsize)
    if values is not None and values.is_categorical:
        side.categories(values, palette_colors, legend_loc)
    if heat is not None:
        side.colorbar(ScalarMappable(heat.norm, scale_map), title=heat.label)
    if legend_loc not in (None, "none") and len(data.tree) > 1:
        if changes is not None:
            side.legend([_marks.ring_handle(side.fontsize)])
        if supported is not None:
            side.legend(_marks.support_handles(shown), title="Support", handlelength=1.6)
    _style.settle(shown)
    if labels is not None:
        labels.fit()

    # A figure that lays itself out makes room for the labels; in any other they have to fit inside the Axes.
    fixed = labels is not None and ax is not None and ax.get_figure(root=True).get_layout_engine() is None
    _make_room(shown, orientation, node_size / 2, labels.length() + node_size / 2 + 3 if fixed and labels else 0.0)
    unit = np.array(_style.axes_inches(shown)) * 72 / [np.ptp(shown.get_xlim()), np.ptp(shown.get_ylim())]
    room = unit[0 if orientation in ("top", "bottom") else 1] * _leaf_gap(layout)
    is_leaf = data.tree.is_leaf_mask
    if changes is not None:
        room = max(room - _marks.RING - 1.0, 0.5 * room)
    diameters, scale = _layout.fit_diameters(
        xy * unit, data.n_cells, is_leaf, largest=node_size, room=room, smallest=3.0 if changes is None else 4.0
    )
    if labels is not None:
        labels.place(diameters[is_leaf].max() / 2 + 3)
    if heat is not None:
        _draw.heat_discs(shown, xy, heat.values, diameters, cmap=scale_map, norm=heat.norm)
        if changes is not None:
            _marks.rings(shown, xy, diameters, changes.significant)
    elif values is None:
        _draw.discs(shown, xy, branch_colors[branch], diameters)
    else:
        _draw.pies(shown, xy, shares(data, values), [*palette_colors, _style.MISSING], diameters)
    if supported is not None:
        _marks.write_support(shown, xy, data.tree, supported, diameters, orientation, side.fontsize)
    if legend_loc not in (None, "none"):
        side.sizes(data.n_cells, scale)
    return _style.finish(shown, given=ax is not None, show=show)


@dataclass(frozen=True)
class Heat:
    """A number per node, and its colours."""

    values: NDArray[np.float64]
    norm: Normalize
    label: str


def _heat(
    data: TreeData,
    values: _cells.CellValues | None,
    changes: _marks.NodeChanges | None,
    *,
    vmin: float | None,
    vmax: float | None,
) -> Heat | None:
    """Fold changes on a scale with 0 in the middle, or the mean of a number; None for what is no number."""
    if changes is not None:
        end = changes.limit()
        norm = _style.number_norm(changes.log2fc, -end if vmin is None else vmin, end if vmax is None else vmax)
        return Heat(changes.log2fc, norm, changes.label)
    if values is None or values.is_categorical:
        return None
    means = _cells.node_means(data.tree, data.node, values)
    return Heat(means, _style.number_norm(means, vmin, vmax), f"{values.name}\n(mean)")


def _make_room(ax: Axes, orientation: _layout.Orientation, radius: float, beyond: float) -> None:
    """Widen the limits along the branches: whole discs at root and leaves, and `beyond` points for labels inside."""
    upright = orientation in ("top", "bottom")
    low, high = ax.get_ylim() if upright else ax.get_xlim()
    extent = _style.axes_inches(ax)[1 if upright else 0] * 72
    leaf, root = max(radius, min(beyond, 0.6 * extent)), radius
    unit = (high - low) / max(extent - leaf - root, 0.25 * extent)
    below, above = (leaf, root) if orientation in ("top", "right") else (root, leaf)
    start, end = low - below * unit, high + above * unit
    (ax.set_ylim if upright else ax.set_xlim)(start, end)
    # The axis is named in the middle of its line, which ends where the leaves are.
    middle = ((low + high) / 2 - start) / (end - start)
    ax.yaxis.label.set_y(middle) if upright else ax.xaxis.label.set_x(middle)


def _check(orientation: str, branch_lengths: str, spacing: str) -> None:
    for name, value, allowed in (
        ("orientation", orientation, _ORIENTATIONS),
        ("branch_lengths", branch_lengths, ("height", "sqrt", "level")),
        ("spacing", spacing, ("even", "cells")),
    ):
        if value not in allowed:
            msg = f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}."
            raise ValueError(msg)


def _label_values(adata: AnnData, values: _cells.CellValues | None, groupby: str | None) -> _cells.CellValues | None:
    if groupby is not None:
        return _cells.categorical_values(adata, groupby)
    return values if values is not None and values.is_categorical else None


def _leaf_names(data: TreeData, group: _cells.CellValues | None) -> list[tuple[str, str]]:
    leaves = list(data.tree.leaves)
    if group is None:
        return [(name, "") for name in leaves]
    best = _cells.dominant(_cells.node_counts(data.tree, data.node, group)).loc[leaves]
    return [
        (str(name), f" {round(100 * share)}%") if name else (leaf, "")
        for leaf, name, share in zip(leaves, best["name"], best["share"], strict=True)
    ]


def shares(data: TreeData, values: _cells.CellValues) -> NDArray:
    """Fractions of each node's cells: a column per category and one for the cells without."""
    counts = _cells.node_counts(data.tree, data.node, values).to_numpy()
    return counts / np.maximum(data.n_cells, 1)[:, None]


def _leaf_gap(layout: pd.DataFrame) -> float:
    x = layout.loc[layout["is_leaf"], "x"].to_numpy()
    return float(np.diff(x).min()) if len(x) > 1 else 2.0


def _figsize(
    n_leaves: int, names: list[tuple[str, str]], categories: int, orientation: _layout.Orientation, *, legend: bool
) -> tuple[float, float]:
    """Inches that grow with the leaves one way, with the length of their labels and of the legend the other."""
    across = float(np.clip(1.2 + 0.3 * n_leaves, 3.0, 18.0))
    longest = max((min(len(name), 30) + len(after) for name, after in names), default=0)
    along = 3.4 + 0.08 * longest if n_leaves > 1 else 2.2
    width = 1.7 if legend else 0.0
    if orientation in ("top", "bottom"):
        return across + width + 0.8, max(along, min(0.19 * categories + 1.9, 6.5))
    return along + width + 1.4, max(across, min(0.19 * categories + 1.9, 6.5))


def _frame(
    ax: Axes,
    layout: pd.DataFrame,
    tree: Tree,
    orientation: _layout.Orientation,
    lengths: _layout.BranchLengths,
    fontsize: float,
) -> None:
    """Limits, and one axis for the heights or levels; the other has no meaning and is not drawn."""
    n = int(layout["is_leaf"].sum())
    top = float(layout["y"].max())
    corners = _layout.orient(np.array([[-0.1, -0.01 * top], [n + 0.1, 1.01 * top]]), orientation)
    if len(tree) > 1:
        ax.set_xlim(*sorted(corners[:, 0]))
        ax.set_ylim(*sorted(corners[:, 1]))
    else:
        centre = _layout.orient(layout[["x", "y"]].to_numpy(), orientation)[0]
        ax.set_xlim(centre[0] - 1, centre[0] + 1)
        ax.set_ylim(centre[1] - 1, centre[1] + 1)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    ax.tick_params(length=3, labelsize=fontsize)
    upright = orientation in ("top", "bottom")
    scale, none = (ax.yaxis, ax.xaxis) if upright else (ax.xaxis, ax.yaxis)
    none.set_ticks([])
    if len(tree) == 1:
        scale.set_ticks([])
        return
    if lengths == "level" or not _layout.has_heights(tree):
        values = np.unique(MaxNLocator(6, integer=True).tick_values(0, tree.depth))
        values = values[(values >= 0) & (values <= tree.depth)]
        places, label = tree.depth - values, "Level"
    else:
        high = float(tree.heights.max())
        values = MaxNLocator(4).tick_values(0, high)
        values = values[(values >= 0) & (values <= high * 1.02)]
        places, label = np.sqrt(values) if lengths == "sqrt" else values, "Height"
    sign = 1 if orientation in ("top", "right") else -1
    scale.set_ticks(sign * places, [f"{v:g}" for v in values])
    scale.set_label_text(label, fontsize=fontsize)
    spine = ax.spines["left" if upright else "bottom"]
    spine.set_visible(True)
    spine.set_bounds(*sorted((float((sign * places).min()), float((sign * places).max()))))
