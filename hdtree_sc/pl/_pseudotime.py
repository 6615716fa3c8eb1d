"""Pseudotime: on a map, per group, or against a time that was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable

from hdtree_sc._docs import PLOTS, shared_params
from hdtree_sc._errors import listing, require_obs
from hdtree_sc._keys import Keys
from hdtree_sc.pl import _cells, _draw, _style
from hdtree_sc.pl._scatter import CellMap
from hdtree_sc.pl._side import SideColumn, side_fontsize

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray

_LEVELS = 15
"""Up to so many distinct times are drawn as groups, more as a cloud."""


@shared_params(PLOTS)
def pseudotime(
    adata: AnnData,
    *,
    key: str = "hdtree",
    groupby: str | None = None,
    time_key: str | None = None,
    basis: str | None = None,
    kind: Literal["violin", "box"] = "violin",
    order: Literal["median", "categories"] = "median",
    palette: _style.Palette | None = None,
    cmap: str | Colormap | None = None,
    size: float | None = None,
    alpha: float | None = None,
    legend_fontsize: float | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes | None:
    """Draw the pseudotime of the cells.

    Alone: on a map, the root marked. With `groupby`: its distribution in each group, groups ordered by their median.
    With `time_key`: against a measured time, with their rank correlation. With both: per group, cells coloured by time.

    Parameters
    ----------
    adata
        Annotated data after ``hdtree_sc.tl.pseudotime``. Only ``uns["<groupby>_colors"]`` may be set, as in scanpy.
    groupby
        Column of ``obs`` with groups.
    time_key
        Numeric column of ``obs`` with a measured time.
    basis
        Map to draw on: ``"umap"`` or ``"X_umap"``; default: the model's own ``X_<key>_2d``.
    kind
        ``"violin"`` or ``"box"`` for each group, over its cells.
    order
        Of the groups: by ``"median"``, or as the ``"categories"`` are.
    palette
        Colours of the groups, see `tree`.
    cmap
        Colour map for pseudotime, or for the measured time where cells are coloured by it.
    title
        Of the Axes.
    figsize
        Inches; default: grows with the groups.
    ax
        Axes to draw on; a figure made with ``layout="constrained"`` makes room for the legends.

    Returns
    -------
    The Axes where ``show=False`` or `ax` is given, else ``None``.

    Raises
    ------
    KeyError
        There is no pseudotime, `groupby`, `time_key` or `basis`; the message lists what there is.
    ValueError
        `time_key` is no number, no cell has a pseudotime, or `kind` or `order` is none of those named above.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ht.tl.pseudotime(adata, root_key="cell_type", root_value="Neuroblast_ASG_AWA")
    >>> ax = ht.pl.pseudotime(adata, groupby="cell_type", time_key="time", show=False)
    """
    for name, value, allowed in (("kind", kind, ("violin", "box")), ("order", order, ("median", "categories"))):
        if value not in allowed:
            msg = f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}."
            raise ValueError(msg)
    column = Keys(key).pseudotime
    require_obs(adata, column, f"hdtree_sc.tl.pseudotime(adata, key={key!r})")
    time = _cells.cell_values(adata, column)
    if time.is_categorical:
        msg = f"adata.obs[{column!r}] holds no numbers: run hdtree_sc.tl.pseudotime(adata, key={key!r})."
        raise ValueError(msg)
    groups = None if groupby is None else _cells.categorical_values(adata, groupby)
    measured = None if time_key is None else _measured(adata, time_key)
    colors = [] if groups is None else _style.category_colors(adata, groups, palette)
    cmap = _style.get_cmap(cmap)

    if groups is not None:
        shown = _style.new_axes(ax, figsize, (6.4, float(np.clip(1.3 + 0.42 * len(groups.categories), 2.4, 14))))
        side = SideColumn(shown, legend_fontsize)
        rows = _ordered(time.values, groups, order)
        _rows(shown, time.values, groups, rows, colors, measured, kind=kind, cmap=cmap, size=size, side=side)
        shown.set_xlabel("Pseudotime", fontsize=side.fontsize)
    elif measured is not None:
        shown = _style.new_axes(ax, figsize, (5.6, 4.2))
        _against(shown, time.values, measured, kind=kind, cmap=cmap, size=size)
    else:
        xy, name = _cells.embedding(adata, basis, key=key)
        shown = _style.new_axes(ax, figsize, (5.9, 4.6))
        cells = CellMap(shown, xy, name, size=size, alpha=alpha, legend_fontsize=legend_fontsize)
        cells.numbers(time, cmap=cmap, title="Pseudotime")
        at = root_position(adata, xy, key=key)
        if at is not None:
            _mark_root(cells, at)
    if title is not None:
        width, height = _style.figure_inches(shown)
        shown.set_title(title, fontsize=1.2 * side_fontsize(width, height))
    return _style.finish(shown, given=ax is not None, show=show)


def root_position(adata: AnnData, xy: NDArray, *, key: str) -> NDArray | None:
    """Where the root of the pseudotime lies on a map: the root cell, else the root node, else None."""
    stored = adata.uns.get(key, {}).get("pseudotime", {})
    cell = str(stored.get("root_cell", ""))
    if cell and cell in adata.obs_names:
        at = xy[adata.obs_names.get_indexer_for([cell])[0]]
        return at if np.isfinite(at).all() else None
    name = str(stored.get("root_node", ""))
    if name:
        tree = _cells.stored_tree(adata, key)
        if name in tree:
            at = _cells.node_positions(tree, _cells.node_of_cell(adata, tree, tree, key=key), xy)[tree.index(name)]
            return at if np.isfinite(at).all() else None
    return None


def _mark_root(cells: CellMap, at: NDArray) -> None:
    ax = cells.ax
    ax.scatter(*at, marker="*", s=200, c="#e4342d", edgecolors=_style.paper(ax), linewidths=1.2, zorder=6)
    # The word goes to the side that has room.
    low, high = ax.get_xlim()
    right = at[0] < (low + high) / 2
    ax.annotate(
        "root", at, xytext=(9 if right else -9, 0), textcoords="offset points", ha="left" if right else "right",
        va="center", fontsize=cells.side.fontsize, fontweight="bold", path_effects=_style.halo(ax, 2.5), zorder=7,
    )  # fmt: skip


def _measured(adata: AnnData, name: str) -> _cells.CellValues:
    if name not in adata.obs:
        msg = f"time_key={name!r} is not a column of adata.obs. Columns: {listing(adata.obs.columns)}."
        raise KeyError(msg)
    values = _cells.cell_values(adata, name, argument="time_key")
    if values.is_categorical:
        msg = f"time_key={name!r} has to be a numeric column of adata.obs: convert it, or use groupby={name!r}."
        raise ValueError(msg)
    return values


def _ordered(time: NDArray, groups: _cells.CellValues, order: str) -> list[int]:
    """Groups with cells, from first to last."""
    medians = [
        np.median(time[(groups.values == code) & np.isfinite(time)])
        if ((groups.values == code) & np.isfinite(time)).any()
        else np.nan
        for code in range(len(groups.categories))
    ]
    present = [code for code, median in enumerate(medians) if np.isfinite(median)]
    return sorted(present, key=lambda code: medians[code]) if order == "median" else present


def _rows(
    ax: Axes,
    time: NDArray,
    groups: _cells.CellValues,
    rows: list[int],
    colors: list[str],
    measured: _cells.CellValues | None,
    *,
    kind: str,
    cmap: str | Colormap | None,
    size: float | None,
    side: SideColumn,
) -> None:
    """One row a group: its distribution, its cells scattered over it, its median."""
    rank = np.full(len(colors) + 1, -1)
    rank[rows] = np.arange(len(rows))
    place = rank[groups.values]
    has = (place >= 0) & np.isfinite(time)
    scale = None
    if measured is not None:
        scale = ScalarMappable(_style.number_norm(measured.values), _style.get_cmap(cmap))
    parts = [time[(groups.values == code) & has] for code in rows]
    fills = [_style.muted(ax, 0.35) if scale is not None else colors[code] for code in rows]
    shapes(ax, parts, fills, kind=kind, vertical=False)
    jitter = np.random.default_rng(0).uniform(-0.17, 0.17, int(has.sum()))
    if scale is not None and measured is not None:
        dots = scale.to_rgba(np.ma.masked_invalid(measured.values[has]))
    else:
        dots = np.array([mpl.colors.to_rgba(_style.blend(c, _style.ink(), 0.7)) for c in colors])[groups.values[has]]
    area = min(_draw.dot_size(len(time), 6.0) * 0.5, 10.0) if size is None else size
    _draw.cells(ax, np.column_stack([time[has], place[has] + jitter]), dots, size=area, zorder=2.5)
    if scale is not None and measured is not None:
        side.colorbar(scale, title=measured.name)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    names = [_style.shorten(groups.categories[code]) for code in rows]
    labels = [f"{name} ({len(part):,})" for name, part in zip(names, parts, strict=True)]
    ax.set_yticks(range(len(rows)), labels, fontsize=side.fontsize, **_style.literal(*labels))
    ax.tick_params(axis="x", labelsize=side.fontsize)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.grid(visible=False)


def shapes(ax: Axes, parts: list[NDArray], fills: list[str], *, kind: str, vertical: bool) -> None:
    """Violins or boxes at 0, 1, ... with their medians; a group of few or of equal values gets no violin.

    Parameters
    ----------
    ax
        Axes drawn on.
    parts
        Values of each group.
    fills
        One colour per group.
    kind
        ``"violin"`` or ``"box"``.
    vertical
        Whether values run upwards.
    """
    if kind == "violin":
        from scipy.stats import gaussian_kde  # scipy.stats takes longer to import than all the rest of the plots

        for i, (part, fill) in enumerate(zip(parts, fills, strict=True)):
            if len(part) < 10 or np.ptp(part) < 1e-9:
                continue
            grid = np.linspace(part.min(), part.max(), 120)
            density = gaussian_kde(part)(grid)
            half = 0.4 * density / density.max()
            draw = ax.fill_betweenx if vertical else ax.fill_between
            draw(grid, i - half, i + half, facecolor=fill, alpha=0.45, edgecolor=fill, linewidth=0.8, zorder=2)
    else:
        made = ax.boxplot(
            parts, positions=range(len(parts)), orientation="vertical" if vertical else "horizontal", widths=0.62,
            showfliers=False, patch_artist=True, manage_ticks=False, zorder=2,
            boxprops={"edgecolor": _style.ink(), "linewidth": 0.8}, medianprops={"linewidth": 0},
            whiskerprops={"color": _style.ink(), "linewidth": 0.8}, capprops={"color": _style.ink(), "linewidth": 0.8},
        )  # fmt: skip
        for box, fill in zip(made["boxes"], fills, strict=True):
            box.set_facecolor(_style.blend(fill, _style.paper(ax), 0.5))
    medians = np.array([np.median(part) for part in parts])
    across = np.arange(len(parts))[:, None] + [-0.26, 0.26]
    along = np.repeat(medians[:, None], 2, axis=1)
    segments = np.stack([across, along] if vertical else [along, across], axis=-1)
    lines = _draw.edges(ax, segments, 2.0, _style.ink(), zorder=3)
    lines.set_path_effects(_style.halo(ax, 3.6))


def _against(
    ax: Axes, time: NDArray, measured: _cells.CellValues, *, kind: str, cmap: str | Colormap | None, size: float | None
) -> None:
    """Pseudotime over measured time: a distribution at each time, or a cloud where times are many."""
    width, height = _style.figure_inches(ax)
    fontsize = side_fontsize(width, height)
    has = np.isfinite(time) & np.isfinite(measured.values)
    x, y = measured.values[has], time[has]
    scale = ScalarMappable(_style.number_norm(x), _style.get_cmap(cmap))
    levels = np.unique(x)
    area = min(_draw.dot_size(len(x), 8.0), 14.0) if size is None else size
    if len(levels) <= _LEVELS:
        place = np.searchsorted(levels, x)
        fills = [mpl.colors.to_hex(color) for color in scale.to_rgba(levels)]
        shapes(ax, [y[place == i] for i in range(len(levels))], fills, kind=kind, vertical=True)
        jitter = np.random.default_rng(0).uniform(-0.17, 0.17, len(x))
        _draw.cells(ax, np.column_stack([place + jitter, y]), _style.muted(ax, 0.5), size=area * 0.5, zorder=2.5)
        ax.set_xticks(range(len(levels)), [f"{v:g}" for v in levels])
    else:
        _draw.cells(ax, np.column_stack([x, y]), scale.to_rgba(x), size=area, alpha=0.7)
        middle, median = running_median(x, y)
        ax.plot(middle, median, color=_style.ink(), linewidth=2, path_effects=_style.halo(ax, 4.5), zorder=4)
    if len(levels) > 1 and np.ptp(y) > 0:
        from scipy.stats import spearmanr  # slow to import, see above

        correlation = spearmanr(x, y).statistic
        ax.set_title(f"Spearman's rho = {correlation:.2f}", fontsize=fontsize, loc="right")
    ax.set_xlabel(measured.name, fontsize=fontsize, **_style.literal(measured.name))
    ax.set_ylabel("Pseudotime", fontsize=fontsize)
    ax.tick_params(labelsize=fontsize)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=False)


def running_median(x: NDArray, y: NDArray, bins: int = 20) -> tuple[NDArray, NDArray]:
    """Medians of `x` and `y` in up to `bins` stretches of `x` with about as many cells; equal `x` stay together."""
    n = min(bins, max(len(x) // 10, 1))
    inner = np.unique(np.quantile(x, np.linspace(0, 1, n + 1)[1:-1]))
    stretch = np.searchsorted(inner, x)
    parts = [np.flatnonzero(stretch == i) for i in np.unique(stretch)]
    return np.array([np.median(x[part]) for part in parts]), np.array([np.median(y[part]) for part in parts])
