"""Names at the leaves of a drawn tree: fitted to the room there is, never over each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist

from hdtree_sc.pl._draw import edges
from hdtree_sc.pl._layout import orient, spread
from hdtree_sc.pl._style import axes_inches, figure_inches, literal, muted, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.text import Annotation
    from numpy.typing import NDArray

    from hdtree_sc.pl._layout import Orientation

_LINE = 1.2
"""Height of a line of text over its font size."""
_GLYPH = 0.58
"""Mean width of a character over its font size."""
_SMALLEST = 4.5
"""Points below which text is left out rather than shrunk."""


class _Refit(Artist):
    """Fits the labels again whenever the figure is drawn: what is added to it later may have taken room from them."""

    def __init__(self, labels: LeafLabels) -> None:
        super().__init__()
        self._labels = labels
        # Drawn first, so that the texts are as they should be when their turn comes.
        self.set_zorder(-100)
        self.set_in_layout(False)

    def draw(self, renderer: RendererBase) -> None:
        """Fit the labels; nothing is drawn."""
        self._labels.fit()


class LeafLabels:
    """The labels of the leaves, in one line beyond the leaves; dotted lines lead to leaves that end earlier.

    Parameters
    ----------
    ax
        Axes drawn on.
    names
        Per leaf, left to right: a name and what follows it (its share, say), which is never shortened.
    n_cells
        Cells of each leaf; where not all labels fit, those of the largest leaves stay.
    layout
        See `tree_layout`.
    orientation
        Side of the root.
    """

    def __init__(
        self,
        ax: Axes,
        names: Sequence[tuple[str, str]],
        n_cells: NDArray,
        layout: pd.DataFrame,
        orientation: Orientation,
    ) -> None:
        self._n_cells = n_cells
        self._ax, self._orientation = ax, orientation
        self._upright = orientation in ("top", "bottom")
        leaves = layout[layout["is_leaf"]]
        self._x = leaves["x"].to_numpy()
        base = leaves["y"].min()
        ends = orient(np.column_stack([self._x, np.full(len(leaves), base)]), orientation)
        self._fontsize = self._base_size()
        self._names = names
        self.texts = [self._text(end) for end in ends]
        self._write(24, self._fontsize, rotate=self._upright)
        early = leaves["y"].to_numpy() > base
        if early.any():
            start = orient(leaves[["x", "y"]].to_numpy(), orientation)
            lines = np.stack([start, ends], axis=1)[early]
            made = edges(ax, lines, 0.7, muted(ax, 0.4), zorder=1)
            made.set_linestyle((0, (1, 2)))
        ax.add_artist(_Refit(self))

    def _base_size(self) -> float:
        name = "xtick.labelsize" if self._upright else "ytick.labelsize"
        points = mpl.font_manager.FontProperties(size=mpl.rcParams[name]).get_size_in_points()
        width, height = figure_inches(self._ax)
        return float(np.clip(points * min(1.0, 0.4 + width / 9, 0.4 + height / 6), 5.5, points))

    def _text(self, end: NDArray) -> Annotation:
        across, along = {
            "top": ("center", "top"), "bottom": ("center", "bottom"), "left": ("left", "center"),
            "right": ("right", "center"),
        }[self._orientation]  # fmt: skip
        return self._ax.annotate(
            "", end, xytext=(0, 0), textcoords="offset points", ha=across, va=along, rotation_mode="default",
            annotation_clip=False, zorder=6,
        )  # fmt: skip

    def _write(self, most: int, fontsize: float, *, rotate: bool) -> None:
        for text, (name, after) in zip(self.texts, self._names, strict=True):
            text.set_text(shorten(name, most) + after)
            text.update(literal(text.get_text()))
            text.set_rotation(90 if rotate else 0)
            text.set_fontsize(fontsize)

    def length(self) -> float:
        """Extent of the longest label away from the leaves, in points."""
        return max((self._extent(text)[1 if self._upright else 0] for text in self.texts), default=0.0)

    def _extent(self, text: Annotation) -> tuple[float, float]:
        if not text.get_visible() or not text.get_text():
            return 0.0, 0.0
        box, unit = text.get_window_extent(), 72 / self._ax.get_figure(root=True).dpi
        return box.width * unit, box.height * unit

    def place(self, distance: float) -> None:
        """Put the labels so many points beyond the leaves."""
        dx, dy = {"top": (0, -1), "bottom": (0, 1), "left": (1, 0), "right": (-1, 0)}[self._orientation]
        for text in self.texts:
            text.set_position((dx * distance, dy * distance))

    def fit(self) -> None:
        """Choose direction, size and length of the labels for the room that the layout gave to the Axes."""
        if not self.texts:
            return
        width, height = figure_inches(self._ax)
        long_side = 72 * (height if self._upright else width)
        size = self._fontsize
        most = int(np.clip(0.38 * long_side / (_GLYPH * size), 8, 30))
        lengths = np.array([len(shorten(name, most)) + len(after) for name, after in self._names])
        extent = axes_inches(self._ax)[0 if self._upright else 1] * 72
        low, high = self._ax.get_xlim() if self._upright else self._ax.get_ylim()
        position = self._x * extent / abs(high - low)
        gap = np.diff(position).min() if len(position) > 1 else extent
        flat = self._upright and _GLYPH * size * lengths.max() * 1.05 < gap
        keep = np.ones(len(position), dtype=bool)
        if not flat:
            size = float(np.clip(gap / _LINE, _SMALLEST, size))
            keep = spread(position, np.full(len(position), _LINE * size * 0.98), self._n_cells)
        for text, kept in zip(self.texts, keep, strict=True):
            text.set_visible(bool(kept))
        self._write(most, size, rotate=self._upright and not flat)
