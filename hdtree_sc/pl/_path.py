"""A lineage path: its nodes in order over the cells, and what each step is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

from hdtree_sc._docs import PLOTS, shared_params
from hdtree_sc._errors import listing
from hdtree_sc.get import ends_of_name, stored_name
from hdtree_sc.pl import _cells, _draw, _layout, _panels, _style
from hdtree_sc.pl._cells import shares, tree_data
from hdtree_sc.pl._scatter import CellMap, part_discs

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray

    from hdtree_sc.pl._cells import TreeData


@shared_params(PLOTS)
def lineage_path(
    adata: AnnData,
    *,
    key: str = "hdtree",
    path: str | pd.DataFrame | None = None,
    color: _panels.Color = None,
    basis: str | None = None,
    layer: str | None = None,
    use_raw: bool | None = None,
    palette: _style.Palette | None = None,
    cmap: str | Colormap | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    node_size: float = 15.0,
    size: float | None = None,
    alpha: float | None = None,
    legend_loc: str | None = "right margin",
    legend_fontsize: float | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Any:
    """Draw a lineage path: numbered nodes on a map, and under it what cells each step has.

    Cells of the path's leaves are coloured, all others grey. A node that is no leaf is drawn hollow: the path goes
    through a branch point there. Under the map, the composition (or the mean of a number) and the cells of each step.

    Parameters
    ----------
    adata
        Annotated data after ``hdtree_sc.tl.lineage_path``. Only ``uns["<color>_colors"]`` may be set, as in scanpy.
    path
        Name of a path in ``uns[key]["paths"]``, or the table that ``hdtree_sc.tl.lineage_path`` returned; default: the
        newest.
    color
        Column of ``obs`` or gene; default: the `groupby` of the path, else the order of the steps. A list gives a panel
        for each.
    node_size
        Diameter of a node in points. Nodes that would cover each other are moved apart by a few points.
    legend_loc
        ``"right margin"``, ``"on data"``, a place inside the Axes that matplotlib knows, or ``None``.
    title
        Default: the two ends of the path, as they were named when it was searched for. Of the figure where there are
        several panels, which have the names of their colours.
    ax
        Axes to draw on, for one `color`; the steps go below it, for which ``layout="constrained"`` makes room.

    Returns
    -------
    The Axes of the map, or an array of them for several colours, where ``show=False`` or `ax` is given, else ``None``.
    The Axes of the steps is its ``child_axes[-1]``.

    Raises
    ------
    KeyError
        There is no such tree, path, `color`, `basis` or `layer`; the message lists what there is.
    ValueError
        The path is empty or its table has no column ``node``, several colours are with one `ax`, or a column holds no
        values.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> path = ht.tl.lineage_path(adata, "Neuroblast_ASG_AWA", "AWA", groupby="cell_type")
    >>> ax = ht.pl.lineage_path(adata, show=False)
    >>> ax.get_title()
    'Neuroblast_ASG_AWA → AWA'
    """
    asked = _panels.colors_asked(color, ax)
    table = path_table(adata, path, key=key)
    data = tree_data(adata, key=key)
    unknown = [name for name in table["node"] if name not in data.tree]
    if unknown:
        msg = f"path: {listing(unknown)} are not nodes of adata.uns[{key!r}], which has {listing(data.tree.nodes, 20)}."
        raise KeyError(msg)
    steps = data.tree.index(table["node"])
    xy, name = _cells.embedding(adata, basis, key=key)
    step = step_of_cell(data, steps)
    group = str(table["groupby"].iloc[0]) if "groupby" in table else ""
    asked = [(group if group in adata.obs else None) if one is None else one for one in asked]
    columns = [
        _cells.CellValues("Step", np.where(step >= 0, step + 1.0, np.nan))
        if one is None
        else _cells.cell_values(adata, one, layer=layer, use_raw=use_raw)
        for one in asked
    ]
    cmap = _style.get_cmap(cmap)
    palettes = _style.colors_of(adata, columns, palette)
    ends = path_title(adata, path, table, key=key)
    sizes = [(6.6, 5.6)] * len(asked)
    if title is None:
        panels = _panels.color_panels(ax, figsize, sizes, ends, **_style.literal(ends))
    else:
        panels = _panels.color_panels(ax, figsize, sizes, title)
    for shown, one, values, colors in zip(panels, asked, columns, palettes, strict=True):
        cells = CellMap(shown, xy, name, size=size, alpha=alpha, legend_fontsize=legend_fontsize)
        fontsize = cells.side.fontsize
        text = ends if len(panels) == 1 else one or "Step"
        shown.set_title(_style.wrap(text, 48), fontsize=1.2 * fontsize, **_style.literal(text))
        if title is not None and len(panels) == 1:
            shown.set_title(title, fontsize=1.2 * fontsize)
        cells.plain()
        if values.is_categorical:
            named = _present(data, values, steps)
            cells.categories(values, colors, legend_loc=legend_loc, drawn=step >= 0, named=named)
            fills = _dominant_colors(data, values, steps, colors)
        else:
            scale = cells.numbers(values, cmap=cmap, vmin=vmin, vmax=vmax, drawn=step >= 0)
            mean = np.arange(1.0, len(steps) + 1)
            if one is not None:
                mean = _cells.node_means(data.tree, data.node, values)[steps]
            fills = [to_hex(c) for c in scale.to_rgba(np.ma.masked_invalid(mean))]
        strip = _strip_axes(shown, fontsize)
        _draw_strip(strip, data, values if values.is_categorical else None, steps, colors, fills, fontsize)
        _style.settle(shown)
        _fit_strip(strip, fontsize)
        _draw_nodes(shown, data, steps, xy, fills, node_size)
    return _style.finish(_panels.gathered(panels), given=ax is not None, show=show)


def path_table(adata: AnnData, path: str | pd.DataFrame | None, *, key: str) -> pd.DataFrame:
    """The table of a path: the one given, the one named, or the newest; one row per node, in order.

    Raises
    ------
    KeyError
        There is no path, or none of this name.
    ValueError
        The table is empty or has no column ``node``.
    """
    if isinstance(path, pd.DataFrame):
        table = path
    else:
        _cells.stored_tree(adata, key)
        stored: dict[str, Any] = adata.uns[key]
        paths: dict[str, pd.DataFrame] = stored.get("paths", {})
        if not paths:
            msg = f"adata.uns[{key!r}] has no 'paths': run hdtree_sc.tl.lineage_path(adata, source, target) first."
            raise KeyError(msg)
        name = _path_name(stored, path)
        if name is None or name not in paths:
            msg = f"path={path!r} is not in adata.uns[{key!r}]['paths']. Paths: {listing(paths)}."
            raise KeyError(msg)
        table = paths[name]
    if "node" not in table or len(table) == 0:
        msg = "path: the table has to have a column 'node' and at least one row."
        raise ValueError(msg)
    table = table.sort_values("order", kind="stable") if "order" in table else table
    return table.assign(node=table["node"].astype(str)).reset_index(drop=True)


def _path_name(stored: dict[str, Any], path: str | None) -> str | None:
    """Key of a path among the stored ones, None if there is none; of the newest without a name."""
    paths = stored["paths"]
    return str(stored.get("last_path", next(reversed(paths)))) if path is None else stored_name(path, paths)


def path_title(adata: AnnData, path: str | pd.DataFrame | None, table: pd.DataFrame, *, key: str) -> str:
    """The two ends of a path: of a stored one as its name has them, of a table its first and last node."""
    ends = [str(table["node"].iloc[i]) for i in (0, -1)]
    if not isinstance(path, pd.DataFrame):
        named = ends_of_name(_path_name(adata.uns[key], path) or "")
        ends = named if len(named) == 2 else ends
    return " → ".join(_style.shorten(end, 22) for end in ends)


def step_of_cell(data: TreeData, steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of the step whose leaf holds each cell ``(n_cells,)``, -1 off the path; inner nodes hold no cell here."""
    step = np.full(len(data.tree) + 1, -1, dtype=np.int64)
    is_leaf = data.tree.is_leaf_mask[steps]
    step[steps[is_leaf]] = np.flatnonzero(is_leaf)
    return step[data.node]


def _present(data: TreeData, values: _cells.CellValues, steps: NDArray[np.int64]) -> NDArray[np.bool_]:
    counts = _cells.node_counts(data.tree, data.node, values).to_numpy()[steps, :-1]
    return np.asarray(counts.sum(axis=0) > 0)


def _dominant_colors(
    data: TreeData, values: _cells.CellValues, steps: NDArray[np.int64], colors: list[str]
) -> list[str]:
    counts = _cells.node_counts(data.tree, data.node, values).to_numpy()[steps]
    with_missing = [*colors, _style.MISSING]
    return [with_missing[best] for best in np.where(counts.any(axis=1), counts.argmax(axis=1), len(colors))]


def _draw_nodes(
    ax: Axes, data: TreeData, steps: NDArray[np.int64], xy: NDArray, fills: list[str], node_size: float
) -> None:
    where = _cells.node_positions(data.tree, data.node, xy)[steps]
    seen = np.isfinite(where).all(axis=1)
    size = node_size * min(1.0, 0.45 + min(_style.axes_inches(ax)) / 6)
    inner = ~data.tree.is_leaf_mask[steps]
    diameters = np.where(inner, 0.85, 1.0) * size
    where[seen] = part_discs(ax, where[seen], diameters[seen])
    line = np.stack([where[:-1], where[1:]], axis=1)[seen[:-1] & seen[1:]] if len(steps) > 1 else np.zeros((0, 2, 2))
    made = _draw.edges(ax, line, 2.2, _style.ink(), zorder=3)
    made.set_path_effects(_style.halo(ax, 5.0))
    paper = _style.paper(ax)
    faces = np.array([paper if hollow else fill for hollow, fill in zip(inner, fills, strict=True)], dtype=object)
    _draw.discs(ax, where[seen], list(faces[seen]), diameters[seen], zorder=5)
    for i in np.flatnonzero(seen):
        ax.annotate(
            str(i + 1), where[i], ha="center", va="center_baseline", fontsize=0.56 * diameters[i], fontweight="bold",
            color=_style.readable_on(str(faces[i])), zorder=6 + i / 1000, annotation_clip=False,
        )  # fmt: skip


def _strip_axes(ax: Axes, fontsize: float) -> Axes:
    """Axes for the steps under the map, its height in inches because the map's is not known yet."""
    figure = ax.get_figure(root=True)
    height = float(np.clip(0.15 * _style.figure_inches(ax)[1], 0.35, 0.9))
    # Below the map: the name of its axis, and the numbers of cells over the bars.
    down = 3.6 * fontsize / 72 + height + 0.05
    inches = figure.dpi_scale_trans + ScaledTranslation(0, 0, ax.transAxes)
    return ax.inset_axes((0, -down, 1, height), transform=blended_transform_factory(ax.transAxes, inches))


def _draw_strip(
    ax: Axes,
    data: TreeData,
    values: _cells.CellValues | None,
    steps: NDArray[np.int64],
    colors: list[str],
    fills: list[str],
    fontsize: float,
) -> None:
    n_cells = data.n_cells[steps]
    x = np.arange(len(steps))
    if values is not None:
        part = shares(data, values)[steps]
        bottom = np.zeros(len(steps))
        for j, color in enumerate([*colors, _style.MISSING]):
            if part[:, j].any():
                ax.bar(x, part[:, j], bottom=bottom, width=0.86, color=color, linewidth=0)
                bottom += part[:, j]
        top = np.ones(len(steps))
        ax.set_ylabel("Share", fontsize=fontsize)
        ax.set_yticks([0, 1], ["0", "1"])
    else:
        ax.bar(x, n_cells, width=0.86, color=fills, linewidth=0)
        top = n_cells.astype(float)
        ax.set_ylabel("Cells", fontsize=fontsize)
        ax.set_yticks([0, int(n_cells.max(initial=1))])
    for i, (height, n) in enumerate(zip(top, n_cells, strict=True)):
        ax.annotate(
            f"{n:,}", (i, height), xytext=(0, 2), textcoords="offset points", ha="center", va="bottom",
            annotation_clip=False,
        )  # fmt: skip
    ax.set_xlim(-0.6, len(steps) - 0.4)
    ax.set_xticks(x, [str(i + 1) for i in x])
    ax.set_xlabel("Step (cells above)", fontsize=fontsize)
    ax.tick_params(length=0, labelsize=0.85 * fontsize)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    ax.patch.set_visible(False)


def _fit_strip(ax: Axes, fontsize: float) -> None:
    """Make the numbers of cells as small as their bars need, and leave out those that still do not fit."""
    texts = ax.texts
    longest = max(len(text.get_text()) for text in texts)
    gap = _style.axes_inches(ax)[0] * 72 / (len(texts) + 0.2)
    size = float(np.clip(gap / (0.62 * longest), 4.5, 0.8 * fontsize))
    width = np.array([0.62 * size * (len(text.get_text()) + 0.7) for text in texts])
    keep = _layout.spread(np.arange(len(texts)) * gap, width, -np.arange(len(texts)))
    for text, kept in zip(texts, keep, strict=True):
        text.set_fontsize(size)
        text.set_visible(bool(kept))
    every = int(np.ceil(2.2 * 0.62 * 0.85 * fontsize / gap))
    ax.set_xticks(np.arange(0, len(texts), every), [str(i + 1) for i in range(0, len(texts), every)])
