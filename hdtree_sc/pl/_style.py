"""Colours, figures and the show rule: what every plot of this package shares with scanpy's."""

from __future__ import annotations

import colorsys
import re
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
MAX_COLORS = 102
"""Categories that scanpy has colours for."""

Palette = str | Sequence[str] | Mapping[str, str] | Cycler
"""What ``palette=`` takes: a colour map's name, colours in the order of the categories, or category -> colour."""
_NOT_FOR_TEX = re.compile(r"[^\x20-\x7e\n]|[$\\_%#&{}~^]")
"""What TeX reads as a command, or does not know."""


def literal(*texts: str) -> dict[str, Any]:
    """Properties of a text artist under which names from the data are drawn as they are spelled.

    matplotlib takes what is between two ``$`` for mathematics, and stops where it is none. Texts that need no
    protection keep the default, so that who gives an Axes another title later may write mathematics.

    Parameters
    ----------
    texts
        What is written.
    """
    text = "".join(texts)
    out: dict[str, Any] = {"parse_math": False} if "$" in text else {}
    if mpl.rcParams["text.usetex"] and _NOT_FOR_TEX.search(text):
        out["usetex"] = False
    return out


def default_palette(n: int) -> list[str]:
    """Colours for `n` categories, by scanpy's rule: the property cycle, then palettes of 20, 28 and 102.

    Beyond 102, for which scanpy has grey alone, further colours of other hues and lightness follow.
    """
    cycle = mpl.rcParams["axes.prop_cycle"].by_key().get("color", [])
    if n <= len(cycle):
        return [mcolors.to_hex(color) for color in cycle[:n]]
    from scanpy.plotting import palettes  # slow to import, and needed for many categories only

    for colors in (palettes.default_20, palettes.default_28, palettes.default_102):
        if n <= len(colors):
            return list(colors[:n])
    made = dict.fromkeys(palettes.default_102)
    step = 0
    while len(made) < n:
        # steps by the golden section of the circle never come back to a hue
        hue, lightness, saturation = 0.618034 * step % 1.0, 0.3 + 0.1 * (step % 5), 0.5 + 0.2 * (step % 3)
        made[mcolors.to_hex(colorsys.hls_to_rgb(hue, lightness, saturation))] = None
        step += 1
    return list(made)


def category_colors(adata: AnnData, values: CellValues, palette: Palette | None = None) -> list[str]:
    """One colour per category, see `colors_of`."""
    return colors_of(adata, [values], palette)[0]


def colors_of(adata: AnnData, columns: Sequence[CellValues | None], palette: Palette | None = None) -> list[list[str]]:
    """One colour per category of each of several columns; none for numbers, and for no column.

    Given colours come first, then ``adata.uns["<name>_colors"]``, then scanpy's defaults. As in scanpy, what is
    chosen for a categorical ``obs`` column is kept in ``uns`` so that all plots agree; a view is left as it is. Stored
    colours are those of other categories, and are renewed, where there are more or fewer of them.

    Parameters
    ----------
    adata
        Annotated data.
    columns
        The categories.
    palette
        See `Palette`.

    Raises
    ------
    ValueError
        The palette is no palette, holds what is no colour, or as a mapping lacks a category.
    """
    out: list[list[str]] = []
    for values in columns:
        if values is None:
            out.append([])
            continue
        names = values.categories
        stored = adata.uns.get(f"{values.name}_colors") if values.is_obs and palette is None else None
        if palette is not None and names:
            colors = from_palette(palette, names)
        elif stored is not None and _fits(stored, len(names)):
            colors = list(stored)
        else:
            colors = default_palette(len(names))
        out.append([mcolors.to_hex(color) for color in colors])
    for values, colors in zip(columns, out, strict=True):
        if values is not None and values.is_obs and not adata.is_view:
            adata.uns[f"{values.name}_colors"] = colors
    return out


def _fits(stored: Any, n: int) -> bool:
    """Whether stored colours are one for each of `n` categories; scanpy's grey for more than it has colours is none."""
    colors = [stored] if isinstance(stored, str) else list(stored)
    valid = len(colors) == n and all(map(mcolors.is_color_like, colors))
    return valid and (n <= MAX_COLORS or len(set(map(mcolors.to_hex, colors))) > 1)


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
        colors = [given[i % len(given)] for i in range(len(names))] if given else []
    wrong = [color for color in colors if not mcolors.is_color_like(color)]
    if wrong or not colors:
        msg = f"palette: {listing(wrong)} is neither a colour nor the name of a colour map."
        raise ValueError(msg)
    # a mapping or a single colour says itself what is to look alike
    different = len({mcolors.to_hex(color) for color in colors})
    if different < len(names) and (different > 1 or not isinstance(palette, str)) and not isinstance(palette, Mapping):
        message = f"palette has {different} colours for {len(names)} categories: some will share one."
        warnings.warn(message, UserWarning, stacklevel=4)
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


def figure_inches(ax: Axes) -> tuple[float, float]:
    """Width and height of the figure, or of the part of one, that holds the Axes."""
    figure = ax.get_figure(root=False)
    box, dpi = figure.bbox, ax.get_figure(root=True).dpi
    return box.width / dpi, box.height / dpi


def settle(ax: Axes) -> None:
    """Let a figure that lays itself out (as ours do) find its sizes, so that text can be fitted to them."""
    if ax.get_figure(root=True).get_layout_engine() is not None:
        lay_out(ax)


def lay_out(ax: Axes) -> None:
    """Find limits and sizes, without the other parts of the figure: each part is laid out by itself."""
    figure = ax.get_figure(root=True)
    others = [one for one in figure.axes if one.get_figure(root=False) is not ax.get_figure(root=False)]
    hidden = [one for one in others if one.get_visible()]
    for one in hidden:
        one.set_visible(False)
    figure.draw_without_rendering()
    for one in hidden:
        one.set_visible(True)


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
