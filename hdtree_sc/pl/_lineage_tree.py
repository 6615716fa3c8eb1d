"""The lineage: pseudotime from left to right, cells along its branches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hdtree_sc._docs import PLOTS, shared_params
from hdtree_sc._errors import require_obs
from hdtree_sc._keys import Keys
from hdtree_sc.get import RUN_LINEAGE_TREE, milestone_of_cells, milestones, shape_of
from hdtree_sc.pl import _cells, _draw, _panels, _style
from hdtree_sc.pl._layout import tree_layout
from hdtree_sc.pl._scatter import CellMap

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray

    from hdtree_sc.tree import Tree

BAND = 0.3
"""Half the height of a branch, where the distance between two is 1."""
CURVE_POINTS = 24


@shared_params(PLOTS)
def lineage_tree(
    adata: AnnData,
    *,
    key: str = "hdtree",
    color: _panels.Color = None,
    groupby: str | None = None,
    layer: str | None = None,
    use_raw: bool | None = None,
    palette: _style.Palette | None = None,
    cmap: str | Colormap | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    show_cells: bool = True,
    show_support: bool = True,
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
    """Draw the lineage from the progenitor on the left to the terminal states on the right.

    Branches are as wide as they have cells, each cell stands at its pseudotime beside its branch, and progenitor, forks
    and ends are pies of the categories, or discs of the mean, of the cells of their milestone.

    Parameters
    ----------
    adata
        Annotated data after ``hdtree_sc.tl.lineage_tree``. Only ``uns["<color>_colors"]`` may be set, as in scanpy.
    color
        Column of ``obs`` or gene; default: the column that the lineage was described by (``groupby``), else
        pseudotime. A list gives a panel for each.
    groupby
        Column of ``obs`` that names the terminal states; default: that of ``tl.lineage_tree``, else `color` where it
        is categorical.
    show_cells
        Whether cells are drawn.
    show_support
        Whether the support of branches is written at forks, in per cent, where ``tl.lineage_tree(n_boot=)`` found it.
    node_size
        Diameter of progenitor, forks and ends in points.
    alpha
        Opacity of the cells; default 0.5.
    legend_loc
        ``"right margin"``, a place inside the Axes that matplotlib knows, or ``None``.
    title
        Default: `color`. Of the figure where there are several panels.
    ax
        Axes to draw on, for one `color`.

    Returns
    -------
    The Axes, or an array of them for several colours, where ``show=False`` or `ax` is given, else ``None``.

    Raises
    ------
    KeyError
        There is no lineage, `color`, `groupby` or `layer`.
    ValueError
        Several colours are with one `ax`, or a column holds no values.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ht.tl.lineage_tree(adata, root_key="cell_type", root_value="Neuroblast_ASG_AWA", groupby="cell_type")
    >>> ax = ht.pl.lineage_tree(adata, show=False)
    >>> ax.get_title()
    'cell_type'
    """
    keys = Keys(key)
    stones = milestones(adata, key)
    described = str(adata.uns[key]["lineage"].get("params", {}).get("groupby", ""))
    asked = _panels.colors_asked(color, ax)
    usual = described if described in adata.obs else keys.pseudotime
    shown_by = [one or usual for one in asked]
    columns = [_cells.cell_values(adata, one, layer=layer, use_raw=use_raw) for one in shown_by]
    if groupby is None and described in adata.obs:
        groupby = described
    names = None if groupby is None else _cells.categorical_values(adata, groupby)
    cmap = _style.get_cmap(cmap)
    palettes = _style.colors_of(adata, columns, palette)
    lineage = _Lineage.of(adata, stones, keys)
    height = float(np.clip(1.2 + 0.55 * len(lineage.shape.leaves), 2.6, 14.0))
    panels = _panels.color_panels(ax, figsize, [(7.6, height)] * len(shown_by), title)
    for shown, one, values, colors in zip(panels, shown_by, columns, palettes, strict=True):
        look = {"size": size, "alpha": 0.5 if alpha is None else alpha, "legend_fontsize": legend_fontsize}
        cells = CellMap(shown, lineage.cell_places(), "", **look)
        fontsize = cells.side.fontsize
        heading = title if title is not None and len(panels) == 1 else one
        shown.set_title(_style.wrap(heading, 50), fontsize=1.2 * fontsize, **_style.literal(heading))
        drawn = np.full(adata.n_obs, show_cells)
        _draw.edges(shown, lineage.curves(), lineage.widths(), _style.muted(shown, 0.35), zorder=0.8)
        kept = lineage.is_mark
        diameters = np.full(int(kept.sum()), node_size)
        where = np.stack([lineage.time, lineage.y], axis=1)[kept]
        if values.is_categorical:
            cells.categories(values, colors, legend_loc=legend_loc, drawn=drawn)
            shares = lineage.shares(values)[kept]
            _draw.pies(shown, where, shares, [*colors, _style.MISSING], diameters)
        else:
            scale = cells.numbers(values, cmap=cmap, vmin=vmin, vmax=vmax, drawn=drawn)
            means = lineage.means(values)[kept]
            _draw.heat_discs(shown, where, means, diameters, cmap=scale.get_cmap(), norm=scale.norm)
        named_by = values if names is None and values.is_categorical else names
        _write_ends(shown, lineage, named_by, fontsize)
        if show_support:
            _write_support(shown, lineage, fontsize)
        _frame(shown, lineage, fontsize)
    return _style.finish(_panels.gathered(panels), given=ax is not None, show=show)


@dataclass(frozen=True)
class _Lineage:
    """Milestones with their places, and the cells on the edges between them."""

    shape: Tree
    time: NDArray[np.float64]
    y: NDArray[np.float64]
    support: NDArray[np.float64]
    milestone: NDArray[np.int64]
    edge: NDArray[np.int64]
    order: NDArray[np.float64]

    @classmethod
    def of(cls, adata: AnnData, stones: pd.DataFrame, keys: Keys) -> _Lineage:
        shape = shape_of(stones)
        stones = stones.loc[list(shape.nodes)]
        milestone = milestone_of_cells(adata, stones, keys.key)
        branch = require_obs(adata, keys.branch, RUN_LINEAGE_TREE).astype(str).to_numpy()
        order = require_obs(adata, keys.pseudotime, RUN_LINEAGE_TREE).to_numpy(dtype=float)
        own = stones["branch"].astype(str).to_numpy()
        # a cell of a milestone at a fork may be on the first edge of a branch behind it
        head = pd.Series(branch).map({own[i]: i for i in range(len(own) - 1, -1, -1)}).fillna(-1).to_numpy(dtype=int)
        elsewhere = (milestone >= 0) & (head >= 0) & (own[milestone] != branch)
        edge = np.where(elsewhere, head, milestone)
        time, support = (stones[column].to_numpy(dtype=float) for column in ("pseudotime", "support"))
        y = -tree_layout(shape, shape.n_cells)["x"].to_numpy()
        return cls(shape, time, y, support, milestone, edge, order)

    @property
    def parent(self) -> NDArray[np.int64]:
        return self.shape.parents

    @property
    def is_mark(self) -> NDArray[np.bool_]:
        """The root, forks and ends."""
        children = np.bincount(self.parent[self.parent >= 0], minlength=len(self.parent))
        return (self.parent < 0) | (children != 1)

    def _between(self, edge: NDArray[np.int64], at: NDArray[np.float64]) -> NDArray[np.float64]:
        """Height of points at some pseudotimes on the edges above some milestones."""
        above = np.where(self.parent[edge] < 0, edge, self.parent[edge])
        step = np.maximum(self.time[edge] - self.time[above], 1e-9)
        share = np.clip((at - self.time[above]) / step, 0.0, 1.0)
        smooth = share * share * (3.0 - 2.0 * share)
        return self.y[above] + smooth * (self.y[edge] - self.y[above])

    def cell_places(self) -> NDArray[np.float64]:
        """Pseudotime and height of each cell, (n_cells, 2); the same at every call."""
        jitter = np.random.default_rng(0).uniform(-1.0, 1.0, len(self.edge))
        height = self._between(np.maximum(self.edge, 0), self.order) + BAND * jitter * np.abs(jitter) ** 0.3
        return np.stack([self.order, np.where(self.edge < 0, np.nan, height)], axis=1)

    def curves(self) -> NDArray[np.float64]:
        """Points of the edge above each milestone but the root, (n_edges, points, 2)."""
        edge = np.flatnonzero(self.parent >= 0)
        share = np.linspace(0.0, 1.0, CURVE_POINTS)
        first, last = self.time[self.parent[edge]], self.time[edge]
        at = first[:, None] + share * (last - first)[:, None]
        height = self._between(np.repeat(edge, CURVE_POINTS), at.ravel()).reshape(at.shape)
        return np.stack([at, height], axis=-1)

    def widths(self) -> NDArray[np.float64]:
        """Widths of the edges in points."""
        held = np.bincount(self.edge[self.edge >= 0], minlength=len(self.parent))
        return _draw.edge_widths(held[self.parent >= 0], thin=1.5, thick=7.0)

    def shares(self, values: _cells.CellValues) -> NDArray[np.float64]:
        """Fraction of each milestone's cells in each category, and without one in the last column."""
        k = len(values.categories) + 1
        held = self.milestone >= 0
        column = np.where(values.values < 0, k - 1, values.values)[held]
        counts = np.bincount(self.milestone[held] * k + column, minlength=len(self.parent) * k).reshape(-1, k)
        return counts / np.maximum(counts.sum(1, keepdims=True), 1)

    def means(self, values: _cells.CellValues) -> NDArray[np.float64]:
        """Mean number over the cells of each milestone; NaN without any."""
        held = (self.milestone >= 0) & ~np.isnan(values.values)
        count = np.bincount(self.milestone[held], minlength=len(self.parent))
        total = np.bincount(self.milestone[held], weights=values.values[held], minlength=len(self.parent))
        return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)

    def main_group(self, values: _cells.CellValues) -> list[str]:
        """Commonest category of each milestone."""
        shares = self.shares(values)
        return [str((*values.categories, "")[i]) for i in shares.argmax(1)]


def _write_ends(ax: Axes, lineage: _Lineage, values: _cells.CellValues | None, fontsize: float) -> None:
    names = lineage.shape.nodes if values is None else lineage.main_group(values)
    for end in np.flatnonzero(lineage.shape.is_leaf_mask):
        last = max(float(lineage.time[end]), float(lineage.order[lineage.milestone == end].max(initial=0.0)))
        text = names[end] or lineage.shape.nodes[end]
        ax.annotate(
            _style.shorten(text), (last, lineage.y[end]), xytext=(9, 0), textcoords="offset points", va="center",
            ha="left", fontsize=fontsize, fontweight="bold", path_effects=_style.halo(ax), zorder=8,
            **_style.literal(text),
        )  # fmt: skip


def _write_support(ax: Axes, lineage: _Lineage, fontsize: float) -> None:
    """The support of each branch, where it leaves its fork."""
    first = (lineage.parent >= 0) & lineage.is_mark[lineage.parent]
    for node in np.flatnonzero(first & ~np.isnan(lineage.support)):
        above = lineage.parent[node]
        at = lineage.time[above] + 0.75 * (lineage.time[node] - lineage.time[above])
        height = lineage._between(np.array([node]), np.array([at]))[0]
        ax.annotate(
            f"{100 * lineage.support[node]:.0f}", (at, height), xytext=(0, 6), textcoords="offset points",
            ha="center", va="bottom", fontsize=0.8 * fontsize, path_effects=_style.halo(ax), zorder=7,
        )  # fmt: skip


def _frame(ax: Axes, lineage: _Lineage, fontsize: float) -> None:
    ax.set_xlim(-0.04, 1.22)
    ax.set_ylim(lineage.y.min() - 0.7, lineage.y.max() + 0.7)
    ax.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0", "0.25", "0.5", "0.75", "1"], fontsize=0.9 * fontsize)
    ax.set_xlabel("Pseudotime", fontsize=fontsize)
    ax.set_ylabel("")
    ax.spines["left"].set_visible(False)
