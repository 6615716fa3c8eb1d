"""Cells on an embedding: the ground that trees, paths and pseudotime are drawn on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgba_array

from hdtree_sc.pl import _draw, _style
from hdtree_sc.pl._side import SideColumn, side_fontsize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.text import Text
    from numpy.typing import NDArray

    from hdtree_sc.pl._cells import CellValues


class CellMap:
    """Cells of an AnnData on two axes, and the column beside them.

    Parameters
    ----------
    ax
        Axes drawn on.
    xy
        Positions ``(n_cells, 2)``.
    name
        Name of the embedding, for the axes.
    size
        Area of a cell in points squared; default: by the number of cells.
    alpha
        Opacity of the cells.
    legend_fontsize
        Points.
    """

    def __init__(
        self,
        ax: Axes,
        xy: NDArray,
        name: str,
        *,
        size: float | None = None,
        alpha: float | None = None,
        legend_fontsize: float | None = None,
    ) -> None:
        self.ax, self.xy = ax, xy
        self.side = SideColumn(ax, legend_fontsize)
        width, height = _style.figure_inches(ax)
        shown = ax.get_subplotspec()
        panels = 1 if shown is None else shown.get_gridspec().nrows * shown.get_gridspec().ncols
        self._size = _draw.dot_size(len(xy), width * height / panels) if size is None else size
        self._alpha = alpha
        fontsize = side_fontsize(width, height)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(visible=False)
        ax.set_xlabel(f"{name} 1", fontsize=fontsize, **_style.literal(name))
        ax.set_ylabel(f"{name} 2", fontsize=fontsize, **_style.literal(name))
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(_style.muted(ax, 0.5))

    def plain(self) -> None:
        """Draw all cells in light grey (a dark grey on a dark style)."""
        _draw.cells(self.ax, self.xy, _style.muted(self.ax, 0.17), size=self._size, alpha=self._alpha)

    def categories(
        self,
        values: CellValues,
        colors: Sequence[str],
        *,
        legend_loc: str | None = "right margin",
        title: str | None = None,
        drawn: NDArray[np.bool_] | None = None,
        named: NDArray[np.bool_] | None = None,
    ) -> None:
        """Draw the cells coloured by category, those without one in light grey underneath.

        Parameters
        ----------
        values
            Category of each cell.
        colors
            One per category.
        legend_loc
            ``"right margin"``, ``"on data"``, a place inside the Axes, or ``None``.
        title
            Of the legend.
        drawn
            Which cells to draw ``(n_cells,)``; default: all.
        named
            Which categories the legend names ``(n_categories,)``; default: those of some cell.
        """
        here = np.ones(len(self.xy), dtype=bool) if drawn is None else drawn
        has = here & (values.values >= 0)
        without = here & ~has
        if without.any():
            _draw.cells(self.ax, self.xy[without], _style.MISSING, size=self._size, alpha=self._alpha, zorder=0.9)
        # In a fixed random order, so that no category hides another for coming last.
        order = np.random.default_rng(0).permutation(np.flatnonzero(has))
        rgba = to_rgba_array(list(colors))[values.values[order]]
        _draw.cells(self.ax, self.xy[order], rgba, size=self._size, alpha=self._alpha)
        if legend_loc == "on data":
            self._names_on_data(values, has)
        else:
            self.side.categories(values, colors, legend_loc, title=title, named=named, missing=bool(without.any()))

    def numbers(
        self,
        values: CellValues,
        *,
        cmap: str | Colormap | None = None,
        vmin: float | None = None,
        vmax: float | None = None,
        title: str | None = None,
        drawn: NDArray[np.bool_] | None = None,
        colorbar: bool = True,
    ) -> ScalarMappable:
        """Draw the cells coloured by a number, the highest on top, those without one in light grey underneath."""
        here = np.ones(len(self.xy), dtype=bool) if drawn is None else drawn
        has = here & ~np.isnan(values.values)
        without = here & ~has
        if without.any():
            _draw.cells(self.ax, self.xy[without], _style.MISSING, size=self._size, alpha=self._alpha, zorder=0.9)
        order = np.flatnonzero(has)[np.argsort(values.values[has], kind="stable")]
        scale = ScalarMappable(_style.number_norm(values.values, vmin, vmax), _style.get_cmap(cmap))
        _draw.cells(self.ax, self.xy[order], scale.to_rgba(values.values[order]), size=self._size, alpha=self._alpha)
        if colorbar:
            self.side.colorbar(scale, title=values.name if title is None else title)
        return scale

    def painted(self, rgb: NDArray, *, order: NDArray[np.int64]) -> None:
        """Draw the cells in colours of their own.

        Parameters
        ----------
        rgb
            ``(n_cells, 3)``.
        order
            Cells to draw, the last on top.
        """
        _draw.cells(self.ax, self.xy[order], rgb[order], size=self._size, alpha=self._alpha)

    def write_names(self, where: NDArray, names: Sequence[str], *, lift: float = 0.0) -> list[Text]:
        """Write names on the map, moved apart where they would cover each other.

        Parameters
        ----------
        where
            Positions ``(n, 2)``.
        names
            ``n`` names.
        lift
            Points by which they are written above their positions.
        """
        up = lift * self.ax.get_figure(root=True).dpi / 72
        raised = self.ax.transData.inverted().transform(self.ax.transData.transform(where) + [0, up])
        texts = [
            self.ax.text(
                *at, _style.shorten(name), ha="center", va="center", fontsize=self.side.fontsize, fontweight="bold",
                path_effects=_style.halo(self.ax), zorder=8, **_style.literal(name),
            )
            for at, name in zip(raised, names, strict=True)
        ]  # fmt: skip
        part_texts(self.ax, texts)
        return texts

    def _names_on_data(self, values: CellValues, has: NDArray[np.bool_]) -> None:
        seen = has & np.isfinite(self.xy).all(axis=1)
        present = [code for code in range(len(values.categories)) if (seen & (values.values == code)).any()]
        where = np.array([np.median(self.xy[seen & (values.values == code)], axis=0) for code in present])
        if present:
            _style.lay_out(self.ax)
            self.write_names(where, [values.categories[code] for code in present])


def part_texts(ax: Axes, texts: Sequence[Text], *, rounds: int = 60) -> None:
    """Move texts up and down until none covers another, as far as `rounds` steps go.

    Parameters
    ----------
    ax
        Their Axes.
    texts
        Texts in data coordinates.
    rounds
        Most steps taken.
    """
    if len(texts) < 2:
        return
    boxes = [text.get_window_extent() for text in texts]
    centre = np.array([[(b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2] for b in boxes])
    half = np.array([[b.width / 2, b.height / 2] for b in boxes])
    start = centre.copy()
    by_order = np.sign(np.subtract.outer(np.arange(len(texts)), np.arange(len(texts))))
    for _ in range(rounds):
        away = centre[:, None] - centre[None]
        overlap = half[:, None] + half[None] - np.abs(away)
        hit = (overlap > 0).all(axis=-1)
        np.fill_diagonal(hit, val=False)
        if not hit.any():
            break
        up = np.where(away[..., 1] != 0, np.sign(away[..., 1]), by_order)
        centre[:, 1] += np.where(hit, up * overlap[..., 1] / 2, 0).sum(axis=1)
    moved = ax.transData.inverted().transform(centre)
    for text, place, was, now in zip(texts, moved, start, centre, strict=True):
        if not np.allclose(was, now):
            text.set_position(place)


def part_discs(ax: Axes, where: NDArray, diameters: NDArray, *, rounds: int = 80) -> NDArray:
    """Positions ``(n, 2)`` at which discs of these diameters (points) do not cover each other, close to those given.

    Parameters
    ----------
    ax
        Their Axes, with its final limits.
    where
        Positions ``(n, 2)`` in data units.
    diameters
        ``(n,)`` in points.
    rounds
        Most steps taken.
    """
    if len(where) < 2:
        return where
    unit = ax.get_figure(root=True).dpi / 72
    centre = ax.transData.transform(where)
    # Discs in one place need a direction to part in: that of the order.
    centre = centre + 0.01 * np.arange(len(centre))[:, None]
    least = (diameters[:, None] + diameters[None]) / 2 * unit + 1
    for _ in range(rounds):
        away = centre[:, None] - centre[None]
        distance = np.sqrt((away**2).sum(-1))
        np.fill_diagonal(distance, np.inf)
        push = np.maximum(least - distance, 0) / 2
        if push.max() < 0.1:
            break
        centre += (away / distance[..., None] * push[..., None]).sum(axis=1)
    return ax.transData.inverted().transform(centre)
