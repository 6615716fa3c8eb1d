"""The tree as a dendrogram: who is in each node, or how strongly it expresses a gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hdtree_sc._docs import PLOTS, shared_params
from hdtree_sc.pl import _cells, _layout, _marks, _panels, _style
from hdtree_sc.pl._cells import tree_data
from hdtree_sc.pl._dendrogram import Dendrogram, Heat

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

_ORIENTATIONS = ("top", "bottom", "left", "right")


@shared_params(PLOTS)
def tree(
    adata: AnnData,
    *,
    key: str = "hdtree",
    color: _panels.Color = None,
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
) -> Any:
    """Draw the tree: nodes sized by their cells, edges as wide as the cells that take them.

    A category gives pies, a number or a gene gives the mean of each node, and nothing gives one colour to each big
    branch. A leaf is labelled with its most frequent type and that type's share, so that mixed leaves can be seen.

    Parameters
    ----------
    adata
        Annotated data after ``hdtree_sc.tl.tree``. Only ``uns["<color>_colors"]`` may be set, as in scanpy.
    color
        Column of ``obs`` or gene; ``None``: the branches at the second level (the first, if there are more than ten).
        A list gives a panel for each.
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
    palette
        Colours of the categories: a colour map's name, a list in their order or a mapping. Default:
        ``uns["<color>_colors"]``, else scanpy's.
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
        Default: `color`, or the conditions compared. Of the figure where there are several panels.
    figsize
        Inches; default: grows with the leaves.
    ax
        Axes to draw on, for one `color`; a figure made with ``layout="constrained"`` makes room for the legends.

    Returns
    -------
    The Axes, or an array of them for several colours, where ``show=False`` or `ax` is given, else ``None``.

    Raises
    ------
    KeyError
        There is no such tree, `color`, `groupby` or `layer`, and the message lists what there is; or support or
        conditions were not computed yet.
    ValueError
        An option is none of those named above, `color` is given with `compare`, several colours are with one `ax`, or
        a column holds no values.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ax = ht.pl.tree(adata, color="cell_type", max_leaves=10, show=False)
    >>> ax.figure.savefig("tree.png")
    """
    _check(orientation, branch_lengths, spacing)
    if compare is not False and color is not None:
        msg = f"color={color!r} and compare={compare!r} both colour the nodes: give one (groupby= names the leaves)."
        raise ValueError(msg)
    asked = _panels.colors_asked(color, ax)
    data = tree_data(adata, key=key, max_leaves=max_leaves, min_cells=min_cells)
    supported = _marks.support_of(adata, data.tree, key=key) if support else None
    changes = None if compare is False else _marks.changes_of(adata, data.tree, compare=compare, within=within, key=key)
    columns = [None if one is None else _cells.cell_values(adata, one, layer=layer, use_raw=use_raw) for one in asked]
    groups = [_label_values(adata, values, groupby) for values in columns]
    layout = _layout.tree_layout(data.tree, data.n_cells, branch_lengths=branch_lengths, spacing=spacing)
    names = [_leaf_names(data, group) if show_labels else [] for group in groups]
    heats = [_heat(data, values, changes, vmin=vmin, vmax=vmax) for values in columns]
    scale = _style.get_cmap(cmap if changes is None else cmap or "RdBu_r")
    sizes = [
        _figsize(
            len(data.tree.leaves), leaves, 0 if values is None else int(values.present.sum()), orientation,
            legend=changes is not None or values is not None,
        )
        for leaves, values in zip(names, columns, strict=True)
    ]  # fmt: skip
    palettes = _style.colors_of(adata, columns, palette)
    drawing = Dendrogram(
        data, layout, orientation, branch_lengths, supported, changes, scale, node_size, legend_loc, legend_fontsize
    )
    panels = _panels.color_panels(ax, figsize, sizes, title)
    one_title = title if len(panels) == 1 else None
    for i, shown in enumerate(panels):
        default = changes.title if changes is not None else asked[i] or ""
        leaves = names[i] if show_labels else None
        drawing.draw(shown, columns[i], palettes[i], heats[i], leaves, default, one_title)
    return _style.finish(_panels.gathered(panels), given=ax is not None, show=show)


def _heat(
    data: _cells.TreeData,
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


def _leaf_names(data: _cells.TreeData, group: _cells.CellValues | None) -> list[tuple[str, str]]:
    leaves = list(data.tree.leaves)
    if group is None:
        return [(name, "") for name in leaves]
    best = _cells.dominant(_cells.node_counts(data.tree, data.node, group)).loc[leaves]
    return [
        (str(name), f" {round(100 * share)}%") if name else (leaf, "")
        for leaf, name, share in zip(leaves, best["name"], best["share"], strict=True)
    ]


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
