"""Colours, figures and the show rule: what every plot of this package shares with scanpy's."""

from __future__ import annotations

import sys
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import Cycler
from matplotlib import colors as mcolors
from matplotlib.patheffects import Normal, Stroke

from hdtree_sc._errors import listing

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.patheffects import AbstractPathEffect
    from numpy.typing import NDArray

    from hdtree_sc.pl._cells import CellValues

MISSING = "lightgray"
"""Colour of cells without a value, as in scanpy."""

Palette = str | Sequence[str] | Mapping[str, str] | Cycler
"""What ``palette=`` takes: a colour map's name, colours in the order of the categories, or category -> colour."""


def default_palette(n: int) -> list[str]:
    """Colours for `n` categories, by scanpy's rule: the property cycle, then palettes of 20, 28 and 102, then grey."""
    cycle = mpl.rcParams["axes.prop_cycle"].by_key().get("color", [])
    if n <= len(cycle):
        return [mcolors.to_hex(color) for color in cycle[:n]]
    from scanpy.plotting import palettes  # slow to import, and needed for many categories only

    for colors in (palettes.default_20, palettes.default_28, palettes.default_102):
        if n <= len(colors):
            return list(colors[:n])
    return ["grey"] * n


def category_colors(adata: AnnData, values: CellValues, palette: Palette | None = None) -> list[str]:
    """One colour per category.

    Given colours come first, then ``adata.uns["<name>_colors"]``, then scanpy's defaults. As in scanpy, what is
    chosen for a categorical ``obs`` column is kept in ``uns`` so that all plots agree; a view is left as it is.

    Parameters
    ----------
    adata
        Annotated data.
    values
        The categories.
    palette
        See `Palette`.

    Raises
    ------
    ValueError
        The palette is no palette, holds what is no colour, or as a mapping lacks a category.
    """
    names = values.categories
    key = f"{values.name}_colors"
    if palette is not None:
        colors = from_palette(palette, names)
    else:
        stored = adata.uns.get(key) if values.is_obs else None
        if stored is not None and len(stored) >= len(names) and all(map(mcolors.is_color_like, stored)):
            return [mcolors.to_hex(color) for color in stored[: len(names)]]
        colors = default_palette(len(names))
    colors = [mcolors.to_hex(color) for color in colors]
    if values.is_obs and not adata.is_view:
        adata.uns[key] = colors
    return colors


def from_palette(palette: Palette, names: Sequence[str]) -> list[Any]:
    if isinstance(palette, Mapping):
        missing = [name for name in names if name not in palette]
        if missing:
            msg = f"palette has no colour for {listing(missing)}."
            raise ValueError(msg)
        colors = [palette[name] for name in names]
    elif isinstance(palette, str) and palette in mpl.colormaps:
        cmap = mpl.colormaps[palette]
        listed = getattr(cmap, "colors", None)
        if listed is not None and len(names) <= len(listed) < 100:
            colors = list(listed[: len(names)])
        else:
            colors = list(cmap(np.linspace(0, 1, len(names))))
    elif isinstance(palette, str):
        colors = [palette] * len(names)
    else:
        given = palette.by_key()["color"] if isinstance(palette, Cycler) else list(palette)
        if len(given) < len(names):
            message = f"palette has {len(given)} colours for {len(names)} categories: some will share one."
            warnings.warn(message, UserWarning, stacklevel=4)
        colors = [given[i % len(given)] for i in range(len(names))] if given else []
    wrong = [color for color in colors if not mcolors.is_color_like(color)]
    if wrong or not colors:
        msg = f"palette: {listing(wrong)} is neither a colour nor the name of a colour map."
        raise ValueError(msg)
    return colors


def number_norm(values: NDArray, vmin: float | None = None, vmax: float | None = None) -> mcolors.Normalize:
    """Colour scale over the finite values; a scale for a constant or for nothing at all is widened, never empty."""
    finite = values[np.isfinite(values)]
    low = float(finite.min()) if vmin is None and len(finite) else (0.0 if vmin is None else vmin)
    high = float(finite.max()) if vmax is None and len(finite) else (1.0 if vmax is None else vmax)
    if high <= low:
        high = low + (abs(low) * 0.1 or 1.0)
    return mcolors.Normalize(low, high)


def get_cmap(cmap: str | mcolors.Colormap | None) -> mcolors.Colormap:
    """A colour map by name, the user's default if none; values that are missing are light grey.

    Raises
    ------
    ValueError
        There is no colour map of this name.
    """
    if isinstance(cmap, str) and cmap not in mpl.colormaps:
        msg = f"cmap={cmap!r} is not a matplotlib colour map. Some are: {listing(list(mpl.colormaps))}."
        raise ValueError(msg)
    found = cmap if isinstance(cmap, mcolors.Colormap) else mpl.colormaps[cmap or mpl.rcParams["image.cmap"]]
    return found.with_extremes(bad=MISSING)


def ink() -> str:
    """Colour of text and outlines in the current style."""
    return mcolors.to_hex(mpl.rcParams["text.color"])


def paper(ax: Axes) -> str:
    """Colour behind the drawing."""
    color = mcolors.to_rgba(ax.get_facecolor())
    return mcolors.to_hex(color if color[3] > 0 else mpl.rcParams["figure.facecolor"])


def muted(ax: Axes, strength: float = 0.5) -> str:
    """A grey of the current style: `strength` of the ink on the paper, between 0 and 1."""
    return blend(ink(), paper(ax), strength)


def blend(front: str, back: str, strength: float) -> str:
    """`front` over `back` at an opacity of `strength`, as an opaque colour."""
    a, b = np.asarray(mcolors.to_rgb(front)), np.asarray(mcolors.to_rgb(back))
    return mcolors.to_hex(strength * a + (1 - strength) * b)


def readable_on(color: str) -> str:
    """Black or white, whichever reads better on a colour."""
    r, g, b = mcolors.to_rgb(color)
    return "black" if 0.299 * r + 0.587 * g + 0.114 * b > 0.55 else "white"


def halo(ax: Axes, width: float = 2.0) -> list[AbstractPathEffect]:
    """An outline in the colour of the paper, so that lines and text read over cells."""
    return [Stroke(linewidth=width, foreground=paper(ax)), Normal()]


def new_axes(ax: Axes | None, figsize: tuple[float, float] | None, default: tuple[float, float]) -> Axes:
    """The given Axes, else one in a new figure whose layout leaves room for legends and labels."""
    if ax is not None:
        return ax
    _, made = plt.subplots(figsize=figsize or default, layout="constrained")
    return made


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
        one = new_axes(ax, figsize, single)
        return [one], one
    columns = n if n <= 3 else min(4, int(np.ceil(np.sqrt(n))))
    rows = -(-n // columns)
    size = figsize or (each[0] * columns + 1.4, each[1] * rows + 0.5)
    _, grid = plt.subplots(rows, columns, figsize=size, layout="constrained", sharex=sharex, squeeze=False)
    made = list(grid.flat)
    for i, empty in enumerate(made[n:], start=n):
        # the picture above an empty place has the numbers in its stead
        made[i - columns].tick_params(labelbottom=True)
        empty.remove()
    return made[:n], made[columns - 1]


def settle(ax: Axes) -> None:
    """Let a figure that lays itself out (as ours do) find its sizes, so that text can be fitted to them."""
    figure = ax.get_figure(root=True)
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()


def axes_inches(ax: Axes) -> tuple[float, float]:
    """Width and height of the Axes in inches."""
    box = ax.get_window_extent()
    dpi = ax.get_figure(root=True).dpi
    return box.width / dpi, box.height / dpi


def title(ax: Axes, text: str, fontsize: float) -> str:
    """A title in lines as long as the Axes are wide, a little overhang allowed."""
    return wrap(text, int(np.clip(1.1 * axes_inches(ax)[0] * 72 / (0.56 * fontsize), 10, 60)))


def finish(axes: Any, *, given: bool, show: bool | None) -> Any:
    """Show as scanpy does: return the Axes where `ax` was given or ``show=False``, else show and return None."""
    if show is None:
        # Who has not imported scanpy has not changed its setting, whose default is to show.
        scanpy = sys.modules.get("scanpy")
        show = not given and (True if scanpy is None else bool(scanpy.settings.autoshow))
    if show:
        plt.show()
    return axes if given or not show else None


def shorten(name: str, most: int = 28) -> str:
    """A name with its middle left out where it is longer than `most` characters."""
    if len(name) <= most:
        return name
    tail = (most - 1) // 3
    return f"{name[: most - 1 - tail].rstrip()}…{name[-tail:].lstrip()}"


def wrap(name: str, width: int = 26, lines: int = 3) -> str:
    """A name in several lines for a legend; underscores and slashes may break it."""
    if len(name) <= width:
        return name
    # Zero-width marks allow breaks that textwrap does not know.
    broken = textwrap.wrap(name.replace("_", "_\u200b ").replace("/", "/\u200b "), width, break_long_words=True)
    text = [line.replace("\u200b ", "").replace("\u200b", "") for line in broken]
    if len(text) > lines:
        end = 0
        for line in text[: lines - 1]:
            end = name.index(line, end) + len(line)
        text = [*text[: lines - 1], shorten(name[end:].strip(), width)]
    return "\n".join(text)
