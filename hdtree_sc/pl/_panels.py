"""Axes for several pictures in one figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from hdtree_sc.pl import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Color = str | Sequence[str | None] | None
"""What ``color=`` takes: a column of ``obs`` or a gene, or several of them, each for a panel of its own."""


def colors_asked(color: Color, ax: Axes | None) -> list[str | None]:
    """What the panels are coloured by, one each; refuses none at all, and several for one Axes.

    Parameters
    ----------
    color
        Given for ``color=``.
    ax
        Axes given.

    Raises
    ------
    TypeError
        It is no name and no list of them.
    ValueError
        The list is empty, or `ax` is given for several panels.
    """
    if color is None or isinstance(color, str):
        return [color]
    asked = list(color) if isinstance(color, Iterable) else [color]
    wrong = [one for one in asked if not (one is None or isinstance(one, str))]
    if wrong:
        msg = f"color: {wrong[0]!r} ({type(wrong[0]).__name__}) is no name; give a column of adata.obs or a gene."
        raise TypeError(msg)
    if not asked:
        msg = "color: an empty list was given; name a column of adata.obs or a gene, or leave color away."
        raise ValueError(msg)
    if ax is not None and len(asked) > 1:
        msg = f"ax is one Axes, but color names {len(asked)} panels: name one, or leave ax away."
        raise ValueError(msg)
    return asked


def color_panels(
    ax: Axes | None,
    figsize: tuple[float, float] | None,
    sizes: Sequence[tuple[float, float]],
    title: str | None,
    **spelled: Any,
) -> list[Axes]:
    """Axes for pictures that differ in colour, each in a part of the figure with room for its own legends.

    Parameters
    ----------
    ax
        Axes given, for one.
    figsize
        Inches given, of the whole figure.
    sizes
        Inches that each picture would have alone.
    title
        Of the figure, where it has several pictures.
    **spelled
        Of the title, see `literal`.
    """
    if len(sizes) == 1:
        return [_style.new_axes(ax, figsize, sizes[0])]
    columns = _columns(len(sizes))
    rows = -(-len(sizes) // columns)
    width, height = np.max(sizes, axis=0)
    figure = plt.figure(figsize=figsize or (columns * width, rows * height), layout="constrained")
    if title:
        figure.suptitle(title, **spelled)
    places = figure.add_gridspec(rows, columns)
    return [figure.add_subfigure(places[divmod(i, columns)]).subplots() for i in range(len(sizes))]


def gathered(axes: Sequence[Axes]) -> Any:
    """The Axes of one picture, or an array of those of several."""
    return axes[0] if len(axes) == 1 else np.array(axes, dtype=object)


def panels(
    n: int,
    ax: Axes | None,
    figsize: tuple[float, float] | None,
    *,
    single: tuple[float, float],
    each: tuple[float, float],
    sharex: bool = False,
) -> tuple[list[Axes], Axes]:
    """Axes for `n` like pictures in rows of up to four, and the one of them beside which legends have room.

    Parameters
    ----------
    n
        How many.
    ax
        Axes given, for one.
    figsize
        Inches given.
    single, each
        Inches of the figure of one picture, and of each of several.
    sharex
        Whether all have one horizontal axis.
    """
    if ax is not None or n == 1:
        one = _style.new_axes(ax, figsize, single)
        return [one], one
    columns = _columns(n)
    rows = -(-n // columns)
    size = figsize or (each[0] * columns + 1.4, each[1] * rows + 0.5)
    _, grid = plt.subplots(rows, columns, figsize=size, layout="constrained", sharex=sharex, squeeze=False)
    made = list(grid.flat)
    for i, empty in enumerate(made[n:], start=n):
        # the picture above an empty place has the numbers in its stead
        made[i - columns].tick_params(labelbottom=True)
        empty.remove()
    return made[:n], made[columns - 1]


def _columns(n: int) -> int:
    """Pictures in a row, of `n`."""
    return n if n <= 3 else min(4, int(np.ceil(np.sqrt(n))))
