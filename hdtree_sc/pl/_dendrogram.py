"""A tree drawn on one Axes: branches, nodes, labels and what stands beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.ticker import MaxNLocator

from hdtree_sc.pl import _cells, _draw, _layout, _marks, _style
from hdtree_sc.pl._leaf_labels import LeafLabels
from hdtree_sc.pl._side import SideColumn

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from numpy.typing import NDArray

    from hdtree_sc.tree import Tree


@dataclass(frozen=True)
class Heat:
    """A number per node, and its colours."""

    values: NDArray[np.float64]
    norm: Normalize
    label: str


@dataclass(frozen=True)
class Dendrogram:
    """A tree to be drawn in one or several colourings."""

    data: _cells.TreeData
    layout: pd.DataFrame
    orientation: _layout.Orientation
    branch_lengths: _layout.BranchLengths
    supported: NDArray[np.float64] | None
    changes: _marks.NodeChanges | None
    scale: Colormap
    node_size: float
    legend_loc: str | None
    legend_fontsize: float | None

    def draw(
        self,
        ax: Axes,
        values: _cells.CellValues | None,
        colors: list[str],
        heat: Heat | None,
        names: list[tuple[str, str]] | None,
        default: str,
        title: str | None,
    ) -> None:
        """Draw one colouring.

        Parameters
        ----------
        ax
            Axes drawn on.
        values
            What the nodes are coloured by.
        colors
            Of its categories.
        heat
            Number of each node.
        names
            Of the leaves, None for no labels.
        default, title
            Name of the colouring, and a title in its stead.
        """
        is_leaf = self.data.tree.is_leaf_mask
        xy = _layout.orient(self.layout[["x", "y"]].to_numpy(), self.orientation)
        side = SideColumn(ax, self.legend_fontsize, reserve=(2.6 * self.node_size + 28) / 72)
        fontsize = 1.2 * side.fontsize
        text = default if title is None else title
        ax.set_title(text, fontsize=fontsize, **({} if title else _style.literal(default)))
        plain = self._branches(ax, side.fontsize, by_branch=values is None and self.changes is None)
        labels = (
            None if names is None else LeafLabels(ax, names, self.data.n_cells[is_leaf], self.layout, self.orientation)
        )
        _style.settle(ax)
        if labels is not None:
            labels.fit()
            beside = (labels.length() + self.node_size / 2) / 72 if self.orientation == "left" else 0.0
            side.shift(beside)
        if title is None:
            ax.set_title(_style.title(ax, default, fontsize), fontsize=fontsize, **_style.literal(default))
        self._legends(ax, side, values, colors, heat)
        _style.settle(ax)
        if labels is not None:
            labels.fit()

        diameters, scale = self._diameters(ax, xy, labels)
        if labels is not None:
            labels.place(diameters[is_leaf].max() / 2 + 3)
        self._nodes(ax, xy, diameters, values, [*colors, _style.MISSING], heat, plain)
        if self.supported is not None:
            _marks.write_support(ax, xy, self.data.tree, self.supported, diameters, self.orientation, side.fontsize)
        if self._has_legends:
            side.sizes(self.data.n_cells, scale)

    @property
    def _has_legends(self) -> bool:
        return self.legend_loc not in (None, "none")

    def _branches(self, ax: Axes, fontsize: float, *, by_branch: bool) -> NDArray:
        """Draw the edges and the axis along them; return the colour of each node's branch."""
        heads, branch = _layout.clades(self.data.tree)
        colors = np.array([*_style.default_palette(len(heads)), _style.muted(ax, 0.6)])
        grey = _style.muted(ax, 0.55 if self.supported is None else 0.9)
        lines = list(colors[branch[1:]]) if by_branch else [grey] * (len(self.data.tree) - 1)
        if self.supported is not None:
            lines = _marks.shades(ax, lines, self.supported[1:])
        segments = _layout.orient(_layout.elbows(self.layout), self.orientation)
        _draw.edges(ax, segments, _draw.edge_widths(self.data.n_cells[1:]), lines)
        _frame(ax, self.layout, self.data.tree, self.orientation, self.branch_lengths, fontsize)
        return colors[branch]

    def _legends(
        self, ax: Axes, side: SideColumn, values: _cells.CellValues | None, colors: list[str], heat: Heat | None
    ) -> None:
        if values is not None and values.is_categorical:
            side.categories(values, colors, self.legend_loc)
        if heat is not None:
            side.colorbar(ScalarMappable(heat.norm, self.scale), title=heat.label)
        if not self._has_legends or len(self.data.tree) == 1:
            return
        if self.changes is not None:
            side.legend([_marks.ring_handle(side.fontsize)])
        if self.supported is not None:
            side.legend(_marks.support_handles(ax), title="Support", handlelength=1.6)

    def _diameters(
        self, ax: Axes, xy: NDArray[np.float64], labels: LeafLabels | None
    ) -> tuple[NDArray[np.float64], float]:
        """Diameters of the nodes, once there is room for them and for the labels, and what they were shrunk by."""
        # A figure that lays itself out makes room for the labels; in any other they have to fit inside the Axes.
        fixed = labels is not None and ax.get_figure(root=True).get_layout_engine() is None
        beyond = labels.length() + self.node_size / 2 + 3 if fixed and labels else 0.0
        _make_room(ax, self.orientation, self.node_size / 2, beyond)
        unit = np.array(_style.axes_inches(ax)) * 72 / [np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())]
        room = unit[0 if self.orientation in ("top", "bottom") else 1] * _leaf_gap(self.layout)
        if self.changes is not None:
            room = max(room - _marks.RING - 1.0, 0.5 * room)
        return _layout.fit_diameters(
            xy * unit,
            self.data.n_cells,
            self.data.tree.is_leaf_mask,
            largest=self.node_size,
            room=room,
            smallest=3.0 if self.changes is None else 4.0,
        )

    def _nodes(
        self,
        ax: Axes,
        xy: NDArray[np.float64],
        diameters: NDArray[np.float64],
        values: _cells.CellValues | None,
        colors: list[str],
        heat: Heat | None,
        plain: NDArray,
    ) -> None:
        """Draw each node as the disc of its number, the pie of its categories, or in the colour of its branch."""
        if heat is not None:
            _draw.heat_discs(ax, xy, heat.values, diameters, cmap=self.scale, norm=heat.norm)
            if self.changes is not None:
                _marks.rings(ax, xy, diameters, self.changes.significant)
        elif values is None:
            _draw.discs(ax, xy, plain, diameters)
        else:
            _draw.pies(ax, xy, _cells.shares(self.data, values), colors, diameters)


def _make_room(ax: Axes, orientation: _layout.Orientation, radius: float, beyond: float) -> None:
    """Widen the limits along the branches: whole discs at root and leaves, and `beyond` points for labels inside."""
    upright = orientation in ("top", "bottom")
    low, high = ax.get_ylim() if upright else ax.get_xlim()
    extent = _style.axes_inches(ax)[1 if upright else 0] * 72
    leaf, root = max(radius, min(beyond, 0.6 * extent)), radius
    unit = (high - low) / max(extent - leaf - root, 0.25 * extent)
    below, above = (leaf, root) if orientation in ("top", "right") else (root, leaf)
    start, end = low - below * unit, high + above * unit
    (ax.set_ylim if upright else ax.set_xlim)(start, end)
    # The axis is named in the middle of its line, which ends where the leaves are.
    middle = ((low + high) / 2 - start) / (end - start)
    ax.yaxis.label.set_y(middle) if upright else ax.xaxis.label.set_x(middle)


def _leaf_gap(layout: pd.DataFrame) -> float:
    x = layout.loc[layout["is_leaf"], "x"].to_numpy()
    return float(np.diff(x).min()) if len(x) > 1 else 2.0


def _frame(
    ax: Axes,
    layout: pd.DataFrame,
    tree: Tree,
    orientation: _layout.Orientation,
    lengths: _layout.BranchLengths,
    fontsize: float,
) -> None:
    """Limits, and one axis for the heights or levels; the other has no meaning and is not drawn."""
    n = int(layout["is_leaf"].sum())
    top = float(layout["y"].max())
    corners = _layout.orient(np.array([[-0.1, -0.01 * top], [n + 0.1, 1.01 * top]]), orientation)
    if len(tree) > 1:
        ax.set_xlim(*sorted(corners[:, 0]))
        ax.set_ylim(*sorted(corners[:, 1]))
    else:
        centre = _layout.orient(layout[["x", "y"]].to_numpy(), orientation)[0]
        ax.set_xlim(centre[0] - 1, centre[0] + 1)
        ax.set_ylim(centre[1] - 1, centre[1] + 1)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    ax.tick_params(length=3, labelsize=fontsize)
    upright = orientation in ("top", "bottom")
    scale, none = (ax.yaxis, ax.xaxis) if upright else (ax.xaxis, ax.yaxis)
    none.set_ticks([])
    if len(tree) == 1:
        scale.set_ticks([])
        return
    if lengths == "level" or not _layout.has_heights(tree):
        values = np.unique(MaxNLocator(6, integer=True).tick_values(0, tree.depth))
        values = values[(values >= 0) & (values <= tree.depth)]
        places, label = tree.depth - values, "Level"
    else:
        high = float(tree.heights.max())
        values = MaxNLocator(4).tick_values(0, high)
        values = values[(values >= 0) & (values <= high * 1.02)]
        places, label = np.sqrt(values) if lengths == "sqrt" else values, "Height"
    sign = 1 if orientation in ("top", "right") else -1
    scale.set_ticks(sign * places, [f"{v:g}" for v in values])
    scale.set_label_text(label, fontsize=fontsize)
    spine = ax.spines["left" if upright else "bottom"]
    spine.set_visible(True)
    spine.set_bounds(*sorted((float((sign * places).min()), float((sign * places).max()))))
