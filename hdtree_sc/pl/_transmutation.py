"""A transmutation: where cells went on the map, and their marker genes beside those of real cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from hdtree_sc._docs import PLOTS, shared_params
from hdtree_sc._errors import listing
from hdtree_sc.get import Values, gene_columns, source_rows, transmuted_types, types_column
from hdtree_sc.pl import _cells, _draw, _style
from hdtree_sc.pl._panels import gathered
from hdtree_sc.pl._scatter import CellMap
from hdtree_sc.pl._side import category_handles, side_fontsize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

MAX_ARROWS = 40
"""Most arrows from before to after."""
MAX_DOTS = 150
"""Most cells of a group that are drawn as dots beside the shape of their distribution."""
STEPS = ("source", "after", "target")
"""Names of the three distributions of a gene."""


@shared_params(PLOTS)
def transmutation(
    adata: AnnData,
    transmuted: AnnData,
    *,
    genes: Sequence[str] | str | None = None,
    groupby: str | None = None,
    basis: str | None = None,
    n_genes: int = 4,
    layer: str | None = None,
    adata_layer: str | None = None,
    log_normalize: bool = True,
    target_sum: float = 1e4,
    palette: _style.Palette | None = None,
    size: float | None = None,
    legend_fontsize: float | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    key: str = "hdtree",
    ax: Axes | None = None,
    show: bool | None = None,
) -> Any:
    """Draw where transmuted cells went, and their genes beside those of real cells of both types.

    On the map real cells are grey, those of the source and of the target type in their colours; transmuted cells lie
    on top, and thin arrows lead to a few of them from where they were. Beside it each gene's distribution in the real
    source cells, the transmuted cells and the real target cells, with a line at the mean.

    All three distributions are on one scale, and all genes share it. Nothing is rescaled to the target: the published
    code of branched diffusion gives each transmuted gene the mean and spread of the real target cells before it
    compares the two, so that they agree whatever the model did. The genes are chosen from real cells alone.

    Parameters
    ----------
    adata
        Real cells: those that were transmuted, by their names, and those of the target type. Only
        ``uns["<groupby>_colors"]`` may be set, as in scanpy.
    transmuted
        Cells after ``model.transmute``.
    genes
        Genes to draw; default: those that separate the real source and target cells best, half of them higher in the
        target and half in the source. ``[]`` draws the map alone.
    groupby
        ``obs`` column of `adata` with the types; default: the labels the model was set up with.
    basis
        ``"umap"`` or ``"X_umap"``, in the ``obsm`` of both; default: the model's own map ``X_<key>_2d``.
    n_genes
        Number of genes where `genes` is not given.
    layer
        Layer of `transmuted` with the values to draw; default: ``transmuted.X``, where counts are drawn and as noisy as
        those of real cells. ``"mean"`` is what the model expects, which varies less than any real cells.
    adata_layer
        Layer of `adata` with the values that the model was set up with; default: ``adata.X``.
    log_normalize
        Whether values are counts: those of a cell are divided by their sum over the genes of `transmuted`, times
        `target_sum`, and ``log(1 + x)`` is drawn. With False values are drawn as they are.
    target_sum
        Counts of a cell after the normalisation.
    palette
        Colours of the types, see `tree`.
    title
        Of the map; default: the two types.
    figsize
        Inches; default: grows with the genes.
    key
        Key of the model's fields.
    ax
        Axes to draw the map alone on, with `genes` not given or empty.

    Returns
    -------
    Where ``show=False`` or `ax` is given, an array of Axes, first that of the map and then one per gene, or the Axes
    of the map where it is alone; else ``None``.

    Raises
    ------
    KeyError
        There is no such column, gene, layer or embedding; the message lists what there is.
    ValueError
        `adata` lacks source cells, types or genes of `transmuted`, there are several targets, values are negative while
        ``log_normalize=True``, or `ax` is given for more than the map.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> transmuted = model.transmute(source="ASG", target="AWA", seed=0)
    >>> axes = ht.pl.transmutation(adata, transmuted, n_genes=2, show=False)
    >>> len(axes)
    3
    """
    if ax is not None and genes is not None and len(genes):
        msg = "ax is one Axes, for the map: leave genes away with it, or leave ax away."
        raise ValueError(msg)
    if n_genes < 0:
        msg = f"n_genes: {n_genes} given, it must be 0 or more."
        raise ValueError(msg)
    values = _cells.categorical_values(adata, types_column(transmuted, groupby, key))
    source, target = _types(transmuted, values)
    xy, name = _cells.embedding(adata, basis, key=key)
    if f"X_{name}" not in transmuted.obsm and name not in transmuted.obsm:
        msg = (
            f"basis: transmuted.obsm has no 'X_{name}'. It has: {listing(transmuted.obsm)}; choose one that both have."
        )
        raise KeyError(msg)
    there, _ = _cells.embedding(transmuted, f"X_{name}" if f"X_{name}" in transmuted.obsm else name, key=key)
    start = xy[source_rows(adata, transmuted)]
    is_source, is_target = np.isin(values.values, source), values.values == target

    expression: list[Values] = []
    chosen: list[str] = []
    numbers = np.zeros(0, dtype=np.int64)
    if ax is None and (genes is None or len(genes)):
        scale = target_sum if log_normalize else None
        real = Values(adata, adata_layer, scale, "adata", genes=transmuted.var_names)
        expression = [real, Values(transmuted, layer, scale, "transmuted")]
        numbers = _gene_columns(real, transmuted, genes, is_source, is_target, n_genes)
        chosen = transmuted.var_names[numbers].astype(str).tolist()

    colors = _style.category_colors(adata, values, palette)
    panels, right = _panels(ax, figsize, len(chosen))
    cells = CellMap(panels[0], xy, name, size=size, legend_fontsize=legend_fontsize)
    after = _style.muted(panels[0], 0.85)
    _draw_map(cells, values, colors, is_source | is_target, (start, there), after)
    names = [values.categories[source[0]] if len(source) == 1 else f"{len(source)} types", values.categories[target]]
    first = colors[source[0]] if len(source) == 1 else _style.muted(panels[0], 0.3)
    shades = [first, after, colors[target]]
    _legend(cells, values, colors, source, names, shades, others=not (is_source | is_target).all())
    text, spelled = title, {}
    if text is None:
        text = " → ".join(names)
        text = text if len(text) <= 30 else " →\n".join(_style.shorten(one, 30) for one in names)
        spelled = _style.literal(text)
    panels[0].set_title(text, fontsize=1.2 * cells.side.fontsize, **spelled)
    # of several source types each cell keeps its colour
    dots = [np.asarray(colors, dtype=object)[values.values[is_source]], shades[1], shades[2]]
    for panel, gene, number in zip(panels[1:], chosen, numbers, strict=True):
        one = [each.dense(np.array([number]))[:, 0] for each in expression]
        _draw_gene(panel, gene, [one[0][is_source], one[1], one[0][is_target]], shades, dots)
    if right is not None:
        label = f"ln(1 + counts per {target_sum:,.0f})" if log_normalize else "Expression"
        fontsize = side_fontsize(*panels[0].get_figure(root=True).get_size_inches())
        right.supylabel(label, fontsize=fontsize)
        _style.settle(panels[1])
        _fit_texts(panels[1:], fontsize)
    return _style.finish(gathered(panels), given=ax is not None, show=show)


# -- what is drawn -----------------------------------------------------------------------------------------------


def _types(transmuted: AnnData, values: _cells.CellValues) -> tuple[list[int], int]:
    """Category numbers of the source types and of the target type."""
    sources, target = transmuted_types(transmuted)
    held = set(np.asarray(values.categories)[np.unique(values.values[values.values >= 0])])
    for labels in (sources, [target]):
        unknown = [label for label in labels if label not in held]
        if unknown:
            msg = (
                f"groupby: no cell has {listing(unknown)} in adata.obs[{values.name!r}]. It holds: {listing(held, 30)}."
            )
            raise ValueError(msg)
    return [values.categories.index(label) for label in sources], values.categories.index(target)


def _gene_columns(
    real: Values,
    transmuted: AnnData,
    genes: Sequence[str] | str | None,
    source: NDArray[np.bool_],
    target: NDArray[np.bool_],
    n: int,
) -> NDArray[np.int64]:
    """Columns of the genes asked for, or of those that separate the types best."""
    if genes is None:
        return _separating(real, source, target, n)
    chosen = [genes] if isinstance(genes, str) else list(genes)
    unknown = [gene for gene in chosen if gene not in transmuted.var_names]
    if unknown:
        msg = f"genes: transmuted.var_names lacks {listing(unknown)}. It has: {listing(transmuted.var_names)}."
        raise KeyError(msg)
    return gene_columns(transmuted.var_names, chosen, "genes", "transmuted.var_names")


def _separating(real: Values, source: NDArray[np.bool_], target: NDArray[np.bool_], n: int) -> NDArray[np.int64]:
    """Genes with the largest difference between the types by their spread, first those that are up in the target."""
    (a, var_a), (b, var_b) = (real.moments(np.flatnonzero(cells)) for cells in (source, target))
    spread = np.sqrt((var_a + var_b) / 2)
    # a gene that is nearly always zero has next to no spread, and would win by it
    positive = spread[spread > 0]
    score = (b - a) / (spread + (float(np.median(positive)) if len(positive) else 1.0))
    order = np.argsort(-score, kind="stable")
    up = order[: -(-n // 2)]
    down = order[::-1][: max(min(n, len(order)) - len(up), 0)]
    return np.concatenate([up, down])


# -- drawing -----------------------------------------------------------------------------------------------------


def _panels(ax: Axes | None, figsize: tuple[float, float] | None, n: int) -> tuple[list[Axes], Any]:
    """The Axes of the map and of `n` genes, and the part of the figure that holds the latter."""
    if ax is not None or n == 0:
        return [_style.new_axes(ax, figsize, (6.4, 4.6))], None
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    wide = 0.5 + 1.8 * columns
    size = figsize or (5.8 + wide, max(4.0, 1.5 * rows + 0.6))
    figure = plt.figure(figsize=size, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[5.8, wide if figsize is None else 5.2])
    grid = right.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = list(grid.flat)
    for i, empty in enumerate(panels[n:], start=n):
        # the panel above an empty place has the names of the steps in its stead
        panels[i - columns].tick_params(labelbottom=True)
        empty.remove()
    return [left.subplots(), *panels[:n]], right


def _draw_map(
    cells: CellMap,
    values: _cells.CellValues,
    colors: list[str],
    drawn: NDArray[np.bool_],
    ways: tuple[NDArray, NDArray],
    color: str,
) -> None:
    ax, (start, end) = cells.ax, ways
    cells.plain()
    cells.categories(values, colors, legend_loc=None, drawn=drawn)
    seen = np.flatnonzero(np.isfinite(start).all(1) & np.isfinite(end).all(1))
    # small, so that the real cells they came to lie on are still seen
    _draw.cells(ax, end[seen], color, size=min(_draw.dot_size(2 * max(len(cells.xy), len(end)), 14), 7), zorder=3)
    few = np.sort(np.random.default_rng(0).permutation(seen)[:MAX_ARROWS])
    if len(few):
        way = end[few] - start[few]
        ax.quiver(
            *start[few].T, *way.T, angles="xy", scale_units="xy", scale=1, units="inches", width=0.007, headwidth=6,
            headlength=7, headaxislength=6, minlength=0.5, color=color, alpha=0.55, zorder=3.5,
        )  # fmt: skip


def _legend(
    cells: CellMap,
    values: _cells.CellValues,
    colors: list[str],
    source: list[int],
    names: list[str],
    shades: list[str],
    *,
    others: bool,
) -> None:
    entries = [(f"source: {names[0]}", shades[0])]
    if len(source) > 1:
        entries = [(f"source: {values.categories[i]}", colors[i]) for i in source]
    entries += [("after: transmuted", shades[1]), (f"target: {names[1]}", shades[2])]
    if others:
        entries.append(("other cells", _style.muted(cells.ax, 0.17)))
    texts, shown = [_style.wrap(text, 22) for text, _ in entries], [color for _, color in entries]
    cells.side.legend(category_handles(texts, shown, fontsize=cells.side.fontsize))


def _draw_gene(ax: Axes, gene: str, groups: list[NDArray], shades: list[str], dots: list[Any]) -> None:
    fontsize = side_fontsize(*ax.get_figure(root=True).get_size_inches())
    rng = np.random.default_rng(0)
    for i, (held, shade) in enumerate(zip(groups, shades, strict=True)):
        finite = np.flatnonzero(np.isfinite(held))
        if len(finite) == 0:
            continue
        (body,) = ax.violinplot([held[finite]], positions=[i], widths=0.85, showextrema=False)["bodies"]
        body.set(facecolor=shade, edgecolor="none", alpha=0.45, zorder=1)
        some = rng.permutation(finite)[:MAX_DOTS]
        spots = np.column_stack([i + rng.uniform(-0.16, 0.16, len(some)), held[some]])
        fill = dots[i] if isinstance(dots[i], str) else dots[i][some].tolist()
        _draw.cells(ax, spots, fill, size=3, alpha=0.6, zorder=2)
        ax.plot([i - 0.36, i + 0.36], [held[finite].mean()] * 2, color=_style.ink(), linewidth=1.4, zorder=3)
    ax.set_title(gene, fontsize=fontsize, pad=3, **_style.literal(gene))
    ax.set_xlim(-0.6, len(groups) - 0.4)
    ax.set_xticks(range(len(groups)), STEPS)
    ax.tick_params(labelsize=0.85 * fontsize, length=2)
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=False)


def _fit_texts(panels: list[Axes], size: float) -> None:
    """Fit what is written in `size` points to the panels' width: shorten genes' names, and turn those of the steps."""
    width = min(_style.axes_inches(panel)[0] for panel in panels) * 72
    for panel in panels:
        name = panel.get_title()
        # down to four fifths of the size before letters go
        small = float(np.clip(1.05 * width / (0.66 * len(name)), 0.8 * size, size))
        panel.set_title(_style.shorten(name, max(4, int(1.05 * width / (0.66 * small)))), fontsize=small, pad=3)
    if 0.58 * 0.85 * size * max(map(len, STEPS)) > width / 3.2:
        for panel in panels:
            panel.tick_params(axis="x", labelrotation=90)
