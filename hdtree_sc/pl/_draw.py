"""Drawing of many like things as one artist: pies, discs, edges and cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.path import Path
from matplotlib.transforms import IdentityTransform

from hdtree_sc.pl._style import MISSING, ink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from numpy.typing import ArrayLike, NDArray


def pies(
    ax: Axes, xy: NDArray, shares: NDArray, colors: Sequence[str], diameters: NDArray, *, zorder: float = 4
) -> PathCollection:
    """Pies at data positions, round whatever the aspect, all wedges in one artist with an outline in another.

    Parameters
    ----------
    ax
        Axes drawn on.
    xy
        Centres ``(n, 2)`` in data units.
    shares
        Fractions ``(n, k)``; rows sum to 1, or to 0 for a pie that stays empty (light grey).
    colors
        One per column of `shares`.
    diameters
        ``(n,)`` in points.
    zorder
        Drawing order.
    """
    # From twelve o'clock clockwise, as people read pies.
    stops = np.concatenate([np.zeros((len(shares), 1)), np.cumsum(shares, axis=1)], axis=1)
    row, column = np.nonzero(shares > 1e-9)
    palette = np.asarray(list(colors), dtype=object)
    disc = Path.unit_circle()
    paths = [
        disc if shares[i, j] > 1 - 1e-9 else Path.wedge(90 - 360 * stops[i, j + 1], 90 - 360 * stops[i, j])
        for i, j in zip(row, column, strict=True)
    ]
    discs(ax, xy, [MISSING] * len(xy), diameters, zorder=zorder - 0.01)
    wedges = PathCollection(
        paths,
        sizes=(diameters[row] / 2) ** 2,
        offsets=xy[row],
        offset_transform=ax.transData,
        facecolors=palette[column].tolist(),
        linewidths=0,
        zorder=zorder,
        clip_on=False,
    )
    wedges.set_transform(IdentityTransform())
    ax.add_collection(wedges, autolim=False)
    discs(ax, xy, ["none"] * len(xy), diameters, zorder=zorder + 0.01)
    return wedges


def discs(
    ax: Axes, xy: NDArray, colors: Sequence[str] | NDArray, diameters: ArrayLike, *, zorder: float = 4
) -> PathCollection:
    """Discs of given colours and diameters (points), outlined in the ink of the style."""
    made = ax.scatter(
        xy[:, 0], xy[:, 1], s=np.square(diameters), c=list(colors), edgecolors=ink(), linewidths=0.6, zorder=zorder,
        clip_on=False,
    )  # fmt: skip
    return made


def heat_discs(
    ax: Axes, xy: NDArray, values: NDArray, diameters: NDArray, *, cmap: Colormap, norm: Normalize, zorder: float = 4
) -> PathCollection:
    """Discs coloured by a number; light grey where it is missing."""
    return ax.scatter(
        xy[:, 0], xy[:, 1], s=diameters**2, c=values, cmap=cmap, norm=norm, edgecolors=ink(),
        linewidths=0.6, zorder=zorder, plotnonfinite=True, clip_on=False,
    )  # fmt: skip


def edges(
    ax: Axes, segments: NDArray, widths: ArrayLike, colors: Sequence[str] | str, *, zorder: float = 2
) -> LineCollection:
    """Polylines ``(n, points, 2)`` in data units as one artist, with widths in points."""
    made = LineCollection(
        list(segments), linewidths=widths, colors=colors, capstyle="round", joinstyle="round", zorder=zorder
    )
    ax.add_collection(made)
    return made


def edge_widths(n_cells: NDArray, *, thin: float = 0.7, thick: float = 3.5) -> NDArray:
    """Line widths in points that grow with the square root of the cells which flow along the edge."""
    return thin + (thick - thin) * np.sqrt(n_cells / max(n_cells.max(initial=0), 1))


def cells(
    ax: Axes, xy: NDArray, colors: NDArray | str | None, *, size: float, alpha: float | None = None, zorder: float = 1
) -> PathCollection:
    """Cells as rasterised dots without outlines."""
    return ax.scatter(xy[:, 0], xy[:, 1], s=size, c=colors, linewidths=0, alpha=alpha, rasterized=True, zorder=zorder)


def dot_size(n_cells: int, area: float) -> float:
    """Area of a cell's dot in points squared: as scanpy's on a figure of its size, less on a smaller one."""
    return float(np.clip(120_000 / max(n_cells, 1) * min(area / 24.0, 1.0), 0.3, 40.0))
