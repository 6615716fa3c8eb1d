"""Where in noise level classes part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import matplotlib.colors as mcolors
import numpy as np

from hdtree_sc.pl import _style

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

ROW = 0.34
"""Inches of a class."""
BEGIN = 0.12
"""Width left of the first branch point, as a share of that of all branch points."""


def branch_points(
    model: Any,
    *,
    axis: Literal["time", "log_snr"] = "log_snr",
    support: bool = True,
    palette: Sequence[str] | Mapping[str, str] | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes | None:
    """Draw at which noise level the classes of a model part.

    From the left, data without noise, each class has a line of its own; where lines meet the classes are one, up to
    noise alone at the right. What is drawn in grey is shared: sampled once for all its classes, and the same for a cell
    that is transported from one of them to another.

    Parameters
    ----------
    model
        A trained :class:`hdtree_sc.BranchedDiffusion`.
    axis
        ``"log_snr"``, around the branch points, or the whole ``"time"`` of the noise schedule.
    support
        Whether the share of bootstrap replicates is written at branch points, where it was found.
    palette
        Colours of the classes, in the order of the tree's leaves or by name; scanpy's by default.
    title
        Title.
    figsize
        Size in inches.
    ax
        Axes to draw on.
    show
        Whether to show the figure; by default as scanpy's settings say, and not on given axes.

    Returns
    -------
    The Axes with ``show=False`` or ``ax``, else None.

    Raises
    ------
    ValueError
        If ``axis`` is unknown, or the palette lacks a class.

    References
    ----------
    After figure 1 of Tseng et al., arXiv 2212.10777.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ax = ht.pl.branch_points(model, axis="time", show=False)
    >>> ax.figure.savefig("branch_points.png")
    """
    if axis not in ("time", "log_snr"):
        msg = f"axis: {axis!r} is none of 'time', 'log_snr'."
        raise ValueError(msg)
    tree, points, columns = model.get_tree(), model.get_branch_points(), model.node_columns()
    labels = columns.loc[list(tree.leaves), "label"].tolist()
    colors = _colors(labels, palette)
    at, first, last = _places(tree.heights, columns["log_snr"].to_numpy(float), tree.is_leaf_mask, axis)
    given = ax is not None
    ax = _style.new_axes(ax, figsize, (6.4, 1.1 + ROW * len(labels)))
    row = _rows(tree)
    grey = _style.muted(ax, 0.45)
    for node in range(len(tree)):
        parent = tree.parents[node]
        end = last if parent < 0 else at[parent]
        is_leaf = bool(tree.is_leaf_mask[node])
        color = colors[int(row[node])] if is_leaf else grey
        ax.plot([first if is_leaf else at[node], end], [row[node]] * 2, color=color, lw=2.2, solid_capstyle="butt")
        if parent >= 0:
            ax.plot([end, end], [row[parent], row[node]], color=grey, lw=2.2, solid_capstyle="projecting", zorder=1)
    for name, point in points.iterrows():
        node = int(tree.index(name))
        ax.plot(at[node], row[node], "o", color=grey, ms=5, zorder=3)
        if support and np.isfinite(point["support"]):
            ax.annotate(
                f"{point['support']:.0%}", (at[node], row[node]), (5, 3), textcoords="offset points", va="bottom",
                fontsize="x-small", path_effects=_style.halo(ax), zorder=4, **_style.literal("%"),
            )  # fmt: skip
    ax.set_yticks(range(len(labels)), [_style.shorten(label) for label in labels], **_style.literal(*labels))
    for tick, color in zip(ax.get_yticklabels(), colors, strict=True):
        tick.set_color(_style.blend(color, _style.ink(), 0.75))
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_xlim(first, last)
    ax.set_xlabel("diffusion time (0: cells, 1: noise)" if axis == "time" else "log signal-to-noise ratio")
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.grid(visible=False)
    if title is not None:
        ax.set_title(title)
    return _style.finish(ax, given=given, show=show)


def _colors(labels: list[str], palette: Sequence[str] | Mapping[str, str] | None) -> list[str]:
    if palette is None:
        return _style.default_palette(len(labels))
    return [mcolors.to_hex(color) for color in _style.from_palette(palette, labels)]


def _places(
    times: NDArray[np.float64], log_snr: NDArray[np.float64], is_leaf: NDArray[np.bool_], axis: str
) -> tuple[NDArray[np.float64], float, float]:
    """Where on the axis each node parts, and where the axis begins and ends."""
    if axis == "time":
        return times, 0.0, 1.0
    held = log_snr[~is_leaf]
    spread = max(float(held.max() - held.min()), 0.5)
    return log_snr, float(held.max() + 4 * BEGIN * spread), float(held.min() - 2 * BEGIN * spread)


def _rows(tree: Any) -> NDArray[np.float64]:
    """Row of each node: leaves one below the other, inner nodes amid their children."""
    row = np.zeros(len(tree))
    row[tree.is_leaf_mask] = np.arange(len(tree.leaves))
    for node in range(len(tree) - 1, -1, -1):
        if not tree.is_leaf_mask[node]:
            row[node] = row[np.flatnonzero(tree.parents == node)].mean()
    return row
