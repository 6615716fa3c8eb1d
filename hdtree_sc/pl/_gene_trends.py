"""Genes along one or several lineage paths, with confidence bands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import to_rgba_array
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hdtree_sc._docs import PLOTS, shared_params
from hdtree_sc.get import Expression, gene_numbers, median_library, path_cells
from hdtree_sc.pl import _cells, _draw, _panels, _style
from hdtree_sc.pl._side import SideColumn, category_handles
from hdtree_sc.stats import design, trend_curves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from hdtree_sc.get import DataType, Order, PathCells, PathLike
    from hdtree_sc.stats import Curves

N_POINTS = 100
"""Points of a trend."""
MAX_DOTS = 2_000
"""Most cells of a path that are drawn as dots."""


@shared_params(PLOTS)
def gene_trends(
    adata: AnnData,
    path: PathLike | Mapping[str, PathLike] = None,
    genes: Sequence[str] | str | None = None,
    *,
    key: str = "hdtree",
    color: str | Sequence[str] | None = None,
    layer: str | None = None,
    data_type: DataType = "auto",
    size_factor_key: str | None = None,
    batch_key: str | None = None,
    order: Order = "auto",
    n_knots: int = 6,
    level: float = 0.95,
    dots: bool | None = None,
    palette: _style.Palette | None = None,
    size: float | None = None,
    alpha: float | None = None,
    legend_fontsize: float | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Any:
    """Draw the expression of genes along a lineage path: cells, trend and confidence band.

    The trend is that of :func:`hdtree_sc.tl.path_genes`: of counts a negative binomial regression on splines with the
    library size as offset. Several paths make several lines, so that lineages can be compared.

    Parameters
    ----------
    adata
        Annotated data after ``hdtree_sc.tl.lineage_path``. Only ``uns["<color>_colors"]`` may be set.
    path
        Table of :func:`hdtree_sc.tl.lineage_path`, its name in ``adata.uns[key]["paths"]``, a list of nodes, by
        default the newest path; or a mapping of names to several of them.
    genes
        Genes, one panel each.
    color
        Column of ``obs`` that colours the cells of a single path; default: that in which it was searched, if any.
    layer
        Layer with expression; ``adata.X`` by default.
    data_type
        Kind of the values, see :func:`hdtree_sc.tl.path_genes`.
    size_factor_key
        ``obs`` column with the library size of each cell.
    batch_key
        ``obs`` column of batches: each gets its own level of every gene, and the trend of the average one is drawn.
    order
        What cells are ordered by, see :func:`hdtree_sc.tl.path_genes`.
    n_knots
        Knots of the splines.
    level
        Of the confidence band. It is pointwise, and knows the noise of cells, not that of the pseudotime (see
        ``n_boot`` of :func:`hdtree_sc.tl.pseudotime`) nor that of individuals.
    dots
        Whether to draw cells, at most 2,000 of a path; default: for one path.
    palette
        Colours of the groups, or of the paths where there are several.
    size
        Area of a cell in points squared.
    title
        Of the figure; default: the two ends of the path.
    ax
        Axes to draw on, for one gene.

    Returns
    -------
    The Axes, or an array of them for several genes, where ``show=False`` or `ax` is given, else ``None``.

    Raises
    ------
    KeyError
        The tree, path, a gene, the layer or a column is missing.
    ValueError
        No gene or several colours are named, several genes are with one `ax`, a path has too few cells, or `level` is
        no probability.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> path = ht.tl.lineage_path(adata, "Neuroblast_ASG_AWA", "AWA", groupby="cell_type")
    >>> genes = ht.tl.path_genes(adata, path).index[:3]
    >>> axes = ht.pl.gene_trends(adata, path, genes, show=False)
    >>> len(axes)
    3
    """
    chosen, column = _asked(adata, genes, color, level, ax)
    paths = dict(path) if isinstance(path, Mapping) else {"": path}
    along = {name: path_cells(adata, one, key=key, order=order) for name, one in paths.items()}
    several = len(along) > 1
    first = next(iter(along.values()))
    column = None if several else (column or first.groupby or None)
    groups = None if column is None else _cells.categorical_values(adata, column, argument="color")
    read = partial(Expression, adata, layer, data_type=data_type, size_factor_key=size_factor_key)
    # one unit for all paths
    target = median_library(read().library)
    trends = [
        _trends(cells, read(rows=cells.rows), cells.batches(adata, batch_key), chosen, target, n_knots, level)
        for cells in along.values()
    ]

    colors = [] if groups is None else _style.category_colors(adata, groups, palette)
    panels, beside = _panels.panels(len(chosen), ax, figsize, single=(5.4, 3.4), each=(2.6, 2.0), sharex=True)
    side = SideColumn(beside, legend_fontsize)
    lines = _line_colors(panels[0], list(along), palette) if several else [_style.ink()]
    with_dots = dots if dots is not None else not several
    for number, panel in enumerate(panels):
        for one, line in zip(trends, lines, strict=True):
            if with_dots:
                _dots(panel, one, number, groups, colors, line, several=several, size=size, alpha=alpha)
            _trend(panel, one, number, line, several=several)
        _trim(panel, str(adata.var_names[chosen[number]]), side.fontsize)
    unit = "ln(1 + counts)" if trends[-1].are_counts else "Expression"
    _labels(panels, {cells.label for cells in along.values()}, unit, side.fontsize)
    if several:
        side.legend(
            [Line2D([], [], color=c, linewidth=2, label=_style.wrap(n, 22)) for n, c in zip(along, lines, strict=True)]
        )
    elif groups is not None:
        _group_legend(side, groups, colors, first.rows)
    text = title if title is not None else (first.title if not several else None)
    if text and ax is None and len(panels) > 1:
        spelled = {} if title is not None else _style.literal(text)
        panels[0].get_figure(root=True).suptitle(text, fontsize=1.1 * side.fontsize, **spelled)
    return _style.finish(_panels.gathered(panels), given=ax is not None, show=show)


def _asked(
    adata: AnnData,
    genes: Sequence[str] | str | None,
    color: str | Sequence[str] | None,
    level: float,
    ax: Axes | None,
) -> tuple[NDArray[np.int64], str | None]:
    """Columns of the genes, and the one colour asked for."""
    if genes is None or (not isinstance(genes, str) and len(genes) == 0):
        msg = "genes: name one or several, such as hdtree_sc.tl.path_genes(adata, path).index[:6]."
        raise ValueError(msg)
    if not 0 < level < 1:
        msg = f"level: {level} given, a probability between 0 and 1 wanted."
        raise ValueError(msg)
    asked = _panels.colors_asked(color, ax)
    if len(asked) > 1:
        msg = f"color: {len(asked)} given, but each panel is a gene here: name one, and draw a figure for each of them."
        raise ValueError(msg)
    chosen = gene_numbers(adata, genes)
    if ax is not None and len(chosen) > 1:
        msg = f"ax is one Axes, but {len(chosen)} genes want a panel each: name one gene, or leave ax away."
        raise ValueError(msg)
    return chosen, asked[0]


# -- what is drawn -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trends:
    """Trends of genes along one path, and the cells they were fitted to."""

    cells: PathCells
    grid: NDArray[np.float64]
    curves: Curves
    values: NDArray[np.float64]
    are_counts: bool


def _trends(
    cells: PathCells,
    expression: Expression,
    batch: NDArray[np.int64],
    genes: NDArray[np.int64],
    target: float,
    n_knots: int,
    level: float,
) -> _Trends:
    plan = design(cells.position, batch, n_knots, N_POINTS)
    curves = trend_curves(expression, plan, genes, target_sum=target, level=level)
    values = expression.dense(genes)
    if expression.kind != "counts":
        return _Trends(cells, plan.grid, curves, values, are_counts=False)
    values = np.log1p(values * expression.per_cell(target)[:, None])
    return _Trends(cells, plan.grid, curves.log1p(), values, are_counts=True)


# -- drawing -----------------------------------------------------------------------------------------------------


def _trim(panel: Axes, gene: str, fontsize: float) -> None:
    panel.set_title(_style.shorten(gene, 24), fontsize=fontsize, pad=3, **_style.literal(gene))
    panel.tick_params(labelsize=0.9 * fontsize)
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.yaxis.set_major_locator(MaxNLocator(4))
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(visible=False)


def _group_legend(side: SideColumn, groups: _cells.CellValues, colors: list[str], rows: NDArray[np.int64]) -> None:
    """Legend of the groups that some cells are in."""
    named = np.zeros(len(colors) + 1, dtype=bool)
    named[groups.values[rows]] = True
    names = [_style.wrap(name, 22) for name, held in zip(groups.categories, named, strict=False) if held]
    shades = [shade for shade, held in zip(colors, named, strict=False) if held]
    side.legend(category_handles(names, shades, missing=bool(named[-1]), fontsize=side.fontsize), title=groups.name)


def _labels(panels: list[Axes], labels: set[str], unit: str, fontsize: float) -> None:
    label = labels.pop() if len(labels) == 1 else "Position on the path"
    if len(panels) == 1:
        panels[0].set_xlabel(label, fontsize=fontsize, **_style.literal(label))
        panels[0].set_ylabel(unit, fontsize=fontsize)
        return
    figure = panels[0].get_figure(root=True)
    figure.supxlabel(label, fontsize=fontsize, **_style.literal(label))
    figure.supylabel(unit, fontsize=fontsize)


def _line_colors(ax: Axes, names: list[str], palette: _style.Palette | None) -> list[str]:
    if isinstance(palette, Mapping):
        return [palette.get(name, _style.muted(ax, 0.6)) for name in names]
    given = _style.default_palette(len(names)) if palette is None or isinstance(palette, str) else list(palette)
    return [str(given[i % len(given)]) for i in range(len(names))]


def _dots(
    ax: Axes,
    trends: _Trends,
    number: int,
    groups: _cells.CellValues | None,
    colors: list[str],
    line: str,
    *,
    several: bool,
    size: float | None,
    alpha: float | None,
) -> None:
    values = trends.values[:, number]
    some = np.random.default_rng(0).permutation(len(values))[:MAX_DOTS]
    xy = np.column_stack([trends.cells.position, values])[some]
    if groups is None:
        fill: Any = line if several else _style.muted(ax, 0.4)
    else:
        fill = to_rgba_array([*colors, _style.MISSING])[groups.values[trends.cells.rows][some]]
    area = min(_draw.dot_size(len(some), 5.0), 10.0) if size is None else size
    _draw.cells(ax, xy, fill, size=area, alpha=(0.25 if several else 0.6) if alpha is None else alpha, zorder=1)


def _trend(ax: Axes, trends: _Trends, number: int, color: str, *, several: bool) -> None:
    grid, curves = trends.grid, trends.curves
    low, high = curves.low[number], curves.high[number]
    ax.fill_between(grid, low, high, facecolor=color, alpha=0.28, linewidth=0, zorder=2)
    effects = [] if several else _style.halo(ax, 3.4)
    ax.plot(grid, curves.fit[number], color=color, linewidth=1.8, path_effects=effects, zorder=3)
