"""The column beside a plot: legends and colour bars under each other, outside the Axes and never cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from hdtree_sc.pl._style import MISSING, figure_inches, ink, literal, shorten, wrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colorbar import Colorbar
    from numpy.typing import NDArray

    from hdtree_sc.pl._cells import CellValues

_GAP = 0.12
"""Inches between the Axes and the column, and between its parts."""


class SideColumn:
    """Stacks legends and colour bars at the right of an Axes, in inches, from the top down.

    Sizes are in inches because the height of an Axes is known only once the layout has run; the legends take part in
    the layout, so a figure of ours makes room for them.

    Parameters
    ----------
    ax
        The Axes.
    fontsize
        Points; default: as the style has it, smaller on small figures.
    reserve
        Inches that colours leave free for what comes below them.
    """

    def __init__(self, ax: Axes, fontsize: float | None = None, *, reserve: float = 0.0) -> None:
        self._ax = ax
        figure = ax.get_figure(root=True)
        self._width, self._height = figure_inches(ax)
        self.fontsize = float(fontsize) if fontsize is not None else side_fontsize(self._width, self._height)
        self._used, self._left = 0.0, _GAP
        self._reserve = reserve
        self._dpi = figure.dpi
        self._inches = figure.dpi_scale_trans + ScaledTranslation(1, 1, ax.transAxes)

    def shift(self, inches: float) -> None:
        """Start so far right of the Axes, beyond what is written there."""
        self._left = _GAP + inches

    def categories(
        self,
        values: CellValues,
        colors: Sequence[str],
        loc: str | None,
        *,
        title: str | None = None,
        named: NDArray[np.bool_] | None = None,
        missing: bool | None = None,
    ) -> None:
        """Add the colours of categories here (``"right margin"``), elsewhere on the Axes, or (``None``) nowhere.

        Parameters
        ----------
        values
            The categories.
        colors
            One per category.
        loc
            Where.
        title
            Of the legend.
        named
            Which categories to name; default: those of some cell.
        missing
            Whether to name cells without a category; default: where there are some.
        """
        if loc in (None, "none"):
            return
        shown = np.flatnonzero(values.present if named is None else named).tolist()
        names = [wrap(values.categories[i]) for i in shown]
        if self._columns(names, reserve=self._reserve) > 1:
            # Long names cost the plot less room when they are cut than when they fill more columns.
            names = [shorten(values.categories[i], 26) for i in shown]
            # nor may all columns together take half of the figure
            each = 0.5 * 72 * self._width / self._columns(names, reserve=self._reserve)
            most = int(np.clip(each / (0.58 * self.fontsize) - 3, 6, 26))
            names = [shorten(name, most) for name in names]
        handles = category_handles(
            names,
            [colors[i] for i in shown],
            missing=values.has_missing if missing is None else missing,
            fontsize=self.fontsize,
        )
        if loc == "right margin":
            self.legend(handles, title=title, reserve=self._reserve)
        else:
            made = self._ax.legend(handles=handles, loc=loc, title=title, fontsize=self.fontsize, handletextpad=0.4)
            _spell(made)

    def _columns(self, labels: Sequence[str], handleheight: float = 1.3, reserve: float = 0.0) -> int:
        """Columns that a legend with these labels needs in what is left of the figure's height."""
        row = self.fontsize * max(handleheight, 1.3) / 72
        room = max(self._height - self._used - reserve - 0.4, 4 * row)
        more = 1.45 * self.fontsize / 72  # a further line of one entry
        return max(1, int(np.ceil(sum(row + label.count("\n") * more for label in labels) / room)))

    def sizes(self, n_cells: NDArray, scale: float) -> None:
        """Add what node sizes mean, ``scale * n_cells ** 0.25`` points across; as many as there is room for."""
        handles = size_handles(n_cells, scale)
        room = 72 * (self._height - self._used - 0.25) - 3.0 * self.fontsize
        # the largest says most
        while handles and len(handles) * max(float(handles[-1].get_markersize()), 1.3 * self.fontsize) > room:
            handles = handles[1:]
        if handles:
            across = [max(float(handle.get_markersize()), self.fontsize) for handle in handles]
            pitch = max(sum(across[-2:]) / len(across[-2:]) + 1, 1.25 * across[0]) / self.fontsize
            # The line breaks keep a large first circle off the title.
            title = "Cells" if across[0] < 1.5 * self.fontsize else "Cells\n"
            self.legend(handles, title=title, handlelength=across[-1] / self.fontsize, handleheight=pitch)

    def legend(
        self,
        handles: Sequence[Line2D],
        *,
        title: str | None = None,
        handlelength: float = 1.2,
        handleheight: float = 0.7,
        reserve: float = 0.0,
    ) -> Legend:
        """Add a legend; as many columns as it takes to fit the figure's height."""
        labels = [str(handle.get_label()) for handle in handles]
        legend = Legend(
            self._ax,
            list(handles),
            labels,
            title=title if title is None or len(title) < 30 else wrap(title, 30),
            loc="upper left",
            bbox_to_anchor=(self._left, -self._used),
            bbox_transform=self._inches,
            borderaxespad=0.0,
            borderpad=0.0,
            frameon=False,
            ncols=self._columns(labels, handleheight, reserve),
            columnspacing=1.0,
            handletextpad=0.4,
            handlelength=handlelength,
            handleheight=handleheight,
            labelspacing=0.3,
            prop={"size": self.fontsize},
            title_fontproperties={"size": self.fontsize, "weight": "bold"},
            alignment="left",
        )
        _spell(legend)
        self._ax.add_artist(legend)
        legend.set_clip_on(False)
        self._used += legend.get_window_extent().height / self._dpi + 1.5 * _GAP
        return legend

    def colorbar(self, mappable: ScalarMappable, *, title: str) -> Colorbar:
        """Add a colour bar, its name above it."""
        size = self.fontsize / 72
        text = wrap(title, 24)
        top = -self._used - size * (1.3 * (text.count("\n") + 1) + 0.7)
        height = float(np.clip(self._height - self._used - self._reserve - 0.9, 0.5, 1.4))
        bar = self._ax.inset_axes((self._left, top - height, 0.13, height), transform=self._inches)
        made = self._ax.get_figure(root=True).colorbar(mappable, cax=bar)
        bar.tick_params(labelsize=self.fontsize, length=2)
        made.locator = mpl.ticker.MaxNLocator(4)
        made.update_ticks()
        made.outline.set_linewidth(0.5)
        bar.set_title(
            text, loc="left", pad=0.7 * self.fontsize, fontsize=self.fontsize, fontweight="bold", **literal(text)
        )
        self._used += -top - self._used + height + 2 * _GAP
        return made


def _spell(legend: Legend) -> None:
    """Draw names in a legend as they are spelled."""
    for text in (*legend.get_texts(), legend.get_title()):
        text.update(literal(text.get_text()))


def side_fontsize(width: float, height: float) -> float:
    """Font size for legends of a figure of this size in inches: the style's, down to 5.5 points on small figures."""
    base = mpl.font_manager.FontProperties(size=mpl.rcParams["legend.fontsize"]).get_size_in_points()
    return float(np.clip(base * min(1.0, 0.35 + width / 9, 0.35 + height / 6), 5.5, base))


def category_handles(
    names: Sequence[str], colors: Sequence[str], *, missing: bool = False, fontsize: float = 10.0
) -> list[Line2D]:
    """Round legend entries, one per category, and one for cells without."""
    entries = [*zip(names, colors, strict=True), *([("NA", MISSING)] if missing else [])]
    size = 0.75 * fontsize
    return [
        Line2D([], [], linestyle="", marker="o", markersize=size, color=color, markeredgecolor="none", label=name)
        for name, color in entries
    ]


def size_handles(n_cells: NDArray, scale: float) -> list[Line2D]:
    """Legend entries for the node sizes: up to three round numbers of cells, sized ``scale * n_cells ** 0.25``."""
    held = n_cells[n_cells > 0]
    if len(held) == 0:
        return []
    wanted = np.unique([_round(v) for v in np.geomspace(held.min(), held.max(), 3)])
    return [
        Line2D(
            [], [], linestyle="", marker="o", markersize=scale * n**0.25, markerfacecolor="none",
            markeredgecolor=ink(), markeredgewidth=0.8, label=f"{n:,}",
        )
        for n in wanted
    ]  # fmt: skip


def _round(value: float) -> int:
    digit = 10 ** int(np.floor(np.log10(value)))
    return int(round(value / digit) * digit)
