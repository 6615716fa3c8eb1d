"""Genes along a lineage path as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

from hdtree_sc._docs import PLOTS, shared_params
from hdtree_sc.get import Expression, gene_numbers, median_library, path_cells
from hdtree_sc.pl import _cells, _style
from hdtree_sc.pl._side import SideColumn
from hdtree_sc.stats import design, trend_curves, trend_test

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray

    from hdtree_sc.get import DataType, Order, PathCells, PathLike

N_POINTS = 200
"""Columns of the heat map."""
MIN_CELLS = 10
"""Genes that fewer cells of the path express are not chosen."""


@shared_params(PLOTS)
def path_heatmap(
    adata: AnnData,
    path: PathLike = None,
    key: str = "hdtree",
    *,
    n_genes: int = 20,
    genes: Sequence[str] | str | None = None,
    groupby: str | None = None,
    layer: str | None = None,
    data_type: DataType = "auto",
    size_factor_key: str | None = None,
    batch_key: str | None = None,
    order: Order = "auto",
    n_knots: int = 6,
    standard_scale: Literal["var"] | None = "var",
    cmap: str | Colormap | None = None,
    palette: _style.Palette | None = None,
    legend_fontsize: float | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes | None:
    """Draw how genes change along a lineage path, those that come first on top.

    Each row is the fitted trend of a gene, see :func:`hdtree_sc.tl.path_genes`; rows are sorted by where the trend is
    highest. The band over them says which group most of the cells at that place belong to.

    Parameters
    ----------
    adata
        Annotated data after ``hdtree_sc.tl.lineage_path``. Only ``uns["<groupby>_colors"]`` may be set.
    path
        Table of :func:`hdtree_sc.tl.lineage_path`, its name in ``adata.uns[key]["paths"]``, or a list of nodes; by
        default the newest path.
    n_genes
        How many genes to choose, those with the strongest evidence for a change.
    genes
        Genes to draw instead, such as ``table.index[:30]`` of :func:`hdtree_sc.tl.path_genes`.
    groupby
        Column of ``obs`` for the band; default: that in which the path was searched, if any.
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
    standard_scale
        ``"var"``: each gene from its lowest (0) to its highest (1), as scanpy has it; ``None``: fitted expression, of
        counts as ln(1 + counts of a cell of median library).
    cmap
        Colour map.
    palette
        Colours of the groups.
    title
        Default: the two ends of the path.
    ax
        Axes to draw on; the band goes above it.

    Returns
    -------
    The Axes of the heat map where ``show=False`` or `ax` is given, else ``None``. Tick labels name the genes, the
    first on top.

    Raises
    ------
    KeyError
        The tree, path, a gene, the layer or a column is missing.
    ValueError
        The path has too few cells, or an argument is out of range.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> path = ht.tl.lineage_path(adata, "Neuroblast_ASG_AWA", "AWA", groupby="cell_type")
    >>> ax = ht.pl.path_heatmap(adata, path, n_genes=10, show=False)
    >>> len(ax.get_yticklabels())
    10
    """
    if standard_scale not in ("var", None):
        msg = f"standard_scale: {standard_scale!r} is unknown; choose 'var' or None."
        raise ValueError(msg)
    if n_genes < 1 and genes is None:
        msg = f"n_genes: {n_genes} given, at least 1 wanted."
        raise ValueError(msg)
    cells = path_cells(adata, path, key=key, order=order)
    groupby = groupby or cells.groupby or None
    groups = None if groupby is None else _cells.categorical_values(adata, groupby)
    expression = Expression(adata, layer, data_type=data_type, size_factor_key=size_factor_key, rows=cells.rows)
    plan = design(cells.position, cells.batches(adata, batch_key), n_knots, N_POINTS)
    if genes is None:
        expressed = np.flatnonzero(expression.expressed() >= MIN_CELLS)
        test = trend_test(expression, plan, expressed)
        chosen = expressed[np.argsort(-test.statistic, kind="stable")[:n_genes]]
    else:
        chosen = gene_numbers(adata, genes)
    if len(chosen) == 0:
        msg = f"path: no gene is expressed by {MIN_CELLS} of its cells; name some (genes=)."
        raise ValueError(msg)
    fit = trend_curves(expression, plan, chosen, target_sum=median_library(expression.library)).fit
    fit = np.log1p(fit) if expression.kind == "counts" else fit
    if standard_scale == "var":
        low, high = fit.min(1, keepdims=True), fit.max(1, keepdims=True)
        fit = (fit - low) / np.maximum(high - low, 1e-12)
    # equal peaks, as of all that rise to the end, by where half of the expression lies
    centre = ((fit - fit.min(1, keepdims=True)) * np.arange(fit.shape[1])).sum(1)
    centre /= np.maximum((fit - fit.min(1, keepdims=True)).sum(1), 1e-12)
    rows = np.lexsort((centre, fit.argmax(1)))
    names = adata.var_names[chosen].astype(str).to_numpy()[rows]

    colors = [] if groups is None else _style.category_colors(adata, groups, palette)
    shown = _style.new_axes(ax, figsize, (6.4, float(np.clip(1.4 + 0.17 * len(names), 2.8, 14))))
    side = SideColumn(shown, legend_fontsize)
    cmap = _style.get_cmap(cmap)
    norm = Normalize(0.0, 1.0) if standard_scale else _style.number_norm(fit)
    edges = (float(plan.grid[0]), float(plan.grid[-1]))
    shown.imshow(
        fit[rows], cmap=cmap, norm=norm, aspect="auto", interpolation="nearest", extent=(*edges, len(names) - 0.5, -0.5)
    )
    unit = "ln(1 + counts)" if expression.kind == "counts" else "Expression"
    side.colorbar(ScalarMappable(norm, cmap), title="Of the gene's range" if standard_scale else unit)
    if groups is not None:
        _band(shown, side, cells, groups, colors, edges)
    shown.set_xlabel(cells.label, fontsize=side.fontsize, **_style.literal(cells.label))
    shown.xaxis.set_major_locator(MaxNLocator(5))
    shown.tick_params(labelsize=side.fontsize)
    shown.tick_params(axis="y", length=0)
    shown.spines[:].set_visible(False)
    shown.grid(visible=False)
    _style.settle(shown)
    _name_rows(shown, names, side.fontsize)
    text = title if title is not None else cells.title
    spelled = {} if title is not None else _style.literal(text)
    size = 1.1 * side.fontsize
    shown.set_title(_style.title(shown, text, size), fontsize=size, pad=6 if groups is None else 16, **spelled)
    return _style.finish(shown, given=ax is not None, show=show)


def _name_rows(ax: Axes, names: NDArray, fontsize: float) -> None:
    """Names of the genes, down to 4 points; of more genes than that every second, third, ..."""
    row = 72 * _style.axes_inches(ax)[1] / len(names)
    size = float(np.clip(0.92 * row, 4.0, fontsize))
    every = int(np.ceil(size / max(0.98 * row, 1e-9)))
    shown = np.arange(0, len(names), every)
    written = [_style.shorten(str(name), 20) for name in names[shown]]
    ax.set_yticks(shown, written, fontsize=size, **_style.literal(*written))


def _band(
    ax: Axes,
    side: SideColumn,
    cells: PathCells,
    groups: _cells.CellValues,
    colors: list[str],
    edges: tuple[float, float],
) -> None:
    """Over the heat map, the most frequent group at each place; places without cells have that of the nearest one."""
    n = N_POINTS // 2
    group = groups.values[cells.rows]
    place = np.clip(((cells.position - edges[0]) / (edges[1] - edges[0]) * n).astype(int), 0, n - 1)
    counts = np.zeros((n, len(colors) + 1))
    np.add.at(counts, (place, group), 1.0)
    held = np.flatnonzero(counts.any(1))
    nearest = held[np.abs(np.arange(n)[:, None] - held).argmin(1)]
    band = counts.argmax(1)[nearest]
    # its height in inches: that of the heat map is not known yet
    inches = ax.get_figure(root=True).dpi_scale_trans + ScaledTranslation(0, 1, ax.transAxes)
    strip = ax.inset_axes((0.0, 0.02, 1.0, 0.13), transform=blended_transform_factory(ax.transAxes, inches))
    strip.imshow(
        band[None], cmap=ListedColormap([*colors, _style.MISSING]), vmin=-0.5, vmax=len(colors) + 0.5, aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    strip.set_axis_off()
    named = np.zeros(len(colors), dtype=bool)
    named[band[band < len(colors)]] = True
    side.categories(
        groups, colors, "right margin", title=groups.name, named=named, missing=bool((band == len(colors)).any())
    )
