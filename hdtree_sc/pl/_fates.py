"""Fates: which end each cell is on the way to, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_hex, to_rgb

from hdtree_sc._docs import PLOTS, shared_params
from hdtree_sc._errors import listing, require_obs, require_obsm
from hdtree_sc._keys import Keys
from hdtree_sc.pl import _cells, _panels, _style
from hdtree_sc.pl._pseudotime import root_position
from hdtree_sc.pl._scatter import CellMap
from hdtree_sc.pl._side import SideColumn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray

PALE = 0.15
"""Strength of the colour of a cell whose fate is open."""


@shared_params(PLOTS)
def fates(
    adata: AnnData,
    ends: str | Sequence[str] | None = None,
    *,
    key: str = "hdtree",
    groupby: str | None = None,
    panels: bool | None = None,
    basis: str | None = None,
    palette: _style.Palette | None = None,
    cmap: str | Colormap | None = None,
    size: float | None = None,
    alpha: float | None = None,
    legend_loc: str | None = "right margin",
    legend_fontsize: float | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Any:
    """Draw fate probabilities: on one map, on a map for each end, or as the mean of groups of cells.

    On the one map each cell has the colour of its most likely end, the paler the less is decided (by the entropy);
    terminal cells lie under the name of their end.

    Parameters
    ----------
    adata
        Annotated data after ``hdtree_sc.tl.fate_probabilities``. Only colours may be set in ``uns``, as in scanpy.
    ends
        Columns of ``obsm["<key>_fates"]`` to draw, each on its own map (or as a column of the means).
    groupby
        Column of ``obs``: instead of a map, the mean probabilities of each group, groups sorted by their fate.
    panels
        Whether to draw a map for each end; default: where `ends` are named.
    palette
        Colours of the ends, see `tree`.
    cmap
        Colour map for probabilities.
    legend_loc
        Of the one map: ``"right margin"``, a place inside the Axes that matplotlib knows, or ``None``; names of the
        ends are written on the map in any case.
    title
        Of the one map or of the means.
    ax
        Axes to draw on, for one map or for the means.

    Returns
    -------
    The Axes, or an array of them for several panels, where ``show=False`` or `ax` is given, else ``None``.

    Raises
    ------
    KeyError
        There are no fates, or no such end, column or map; the message lists what there is.
    ValueError
        `ax` is one Axes and several maps are asked for.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ht.tl.fate_probabilities(adata, ["ASG", "AWA"], groupby="cell_type")
    >>> ax = ht.pl.fates(adata, show=False)
    >>> panels = ht.pl.fates(adata, ["ASG", "AWA"], show=False)
    >>> len(panels)
    2
    """
    keys = Keys(key)
    run = f"hdtree_sc.tl.fate_probabilities(adata, key={key!r})"
    probabilities = require_obsm(adata, keys.fates, run)
    if not isinstance(probabilities, pd.DataFrame):
        msg = f"adata.obsm[{keys.fates!r}] is no DataFrame with a column for each end: run {run}."
        raise KeyError(msg)
    given = [ends] if isinstance(ends, str) else None if ends is None else [str(end) for end in ends]
    unknown = [end for end in given or [] if end not in probabilities]
    if unknown or given == []:
        which = listing(unknown) if unknown else "an empty list"
        msg = f"ends: {which} is not in adata.obsm[{keys.fates!r}], which has {listing(probabilities, 30)}."
        raise KeyError(msg)
    names = list(map(str, probabilities.columns)) if given is None else given
    cmap = _style.get_cmap(cmap)
    if groupby is not None:
        groups = _cells.categorical_values(adata, groupby)
        shown = _means(probabilities[names], groups, ax, figsize, cmap, legend_fontsize)
        if title is not None:
            shown.set_title(title)
        return _style.finish(shown, given=ax is not None, show=show)

    xy, name = _cells.embedding(adata, basis, key=key)
    look = {"size": size, "alpha": alpha, "legend_fontsize": legend_fontsize}
    if panels if panels is not None else given is not None:
        if ax is not None and len(names) > 1:
            msg = f"ax is one Axes, but {len(names)} ends want a map each: name one end, or leave ax away."
            raise ValueError(msg)
        drawn, beside = _panels.panels(len(names), ax, figsize, single=(5.6, 4.4), each=(2.9, 2.6))
        for panel, end in zip(drawn, names, strict=True):
            cells = CellMap(panel, xy, name, **look)
            values = _cells.CellValues(end, probabilities[end].to_numpy(float))
            cells.numbers(values, cmap=cmap, vmin=0.0, vmax=1.0, title="Probability", colorbar=panel is beside)
            text = _style.title(panel, title or end, 1.1 * cells.side.fontsize)
            panel.set_title(text, fontsize=1.1 * cells.side.fontsize, **({} if title else _style.literal(end)))
        axes = drawn[0] if len(drawn) == 1 else np.array(drawn, dtype=object)
        return _style.finish(axes, given=ax is not None, show=show)

    require_obs(adata, keys.fate, run)
    fate = _cells.categorical_values(adata, keys.fate)
    colors = _style.category_colors(adata, fate, palette)
    shown = _style.new_axes(ax, figsize, (6.6, 4.6))
    cells = CellMap(shown, xy, name, **look)
    _one_map(cells, fate, probabilities.to_numpy(float), colors, legend_loc)
    _name_ends(cells, adata, keys, fate.categories)
    at = root_position(adata, xy, key=key)
    if at is not None:
        shown.scatter(*at, marker="*", s=200, c="#e4342d", edgecolors=_style.paper(shown), linewidths=1.2, zorder=6)
    if title is not None:
        shown.set_title(title)
    return _style.finish(shown, given=ax is not None, show=show)


def decided(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the fate of each cell is decided: 1 less its entropy over that of a cell whose fate is open."""
    n = probabilities.shape[1]
    if n == 1:
        return np.ones(len(probabilities))
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    return np.clip(1.0 + (probabilities * logs).sum(1) / np.log(n), 0.0, 1.0)


def _one_map(
    cells: CellMap,
    fate: _cells.CellValues,
    probabilities: NDArray[np.float64],
    colors: list[str],
    legend_loc: str | None,
) -> None:
    paper = np.array(to_rgb(_style.muted(cells.ax, 0.2)))
    full = np.array([to_rgb(color) for color in colors])[fate.values]
    strength = (PALE + (1.0 - PALE) * decided(probabilities))[:, None]
    # the decided on top: they are what the colours are for
    cells.painted(strength * full + (1.0 - strength) * paper, order=np.argsort(strength[:, 0], kind="stable"))
    cells.side.categories(fate, colors, legend_loc, title="Fate (pale: open)")


def _name_ends(cells: CellMap, adata: AnnData, keys: Keys, names: Sequence[str]) -> None:
    """Each end by its name, at the terminal cell that is nearest to their median."""
    if keys.terminal not in adata.obs:
        return
    terminal = adata.obs[keys.terminal].astype(object).to_numpy()
    where, written = [], []
    for name in names:
        xy = cells.xy[terminal == name]
        xy = xy[np.isfinite(xy).all(1)]
        if len(xy):
            where.append(xy[np.square(xy - np.median(xy, axis=0)).sum(1).argmin()])
            written.append(name)
    if not where:
        return
    place = np.array(where)
    cells.ax.scatter(*place.T, s=42, c=_style.ink(), edgecolors=_style.paper(cells.ax), linewidths=1.2, zorder=6)
    # names are parted at the size that the map will have
    _style.lay_out(cells.ax)
    cells.write_names(place, written, lift=10)


def _means(
    probabilities: pd.DataFrame,
    groups: _cells.CellValues,
    ax: Axes | None,
    figsize: tuple[float, float] | None,
    cmap: Colormap,
    fontsize: float | None,
) -> Axes:
    """Heat map of groups by ends: groups with one fate stand together, the surest first."""
    held = np.flatnonzero(np.bincount(groups.values[groups.values >= 0], minlength=len(groups.categories)))
    mean = np.array([probabilities.to_numpy(float)[groups.values == code].mean(0) for code in held])
    order = np.lexsort((-mean.max(1), mean.argmax(1)))
    mean, rows = mean[order], [groups.categories[code] for code in held[order]]
    n, m = mean.shape
    longest = max(map(len, probabilities.columns))
    size = figsize or (
        float(np.clip(3.2 + 0.42 * m, 4.2, 14)),
        float(np.clip(1.0 + 0.045 * min(longest, 28) + 0.26 * n, 2.4, 16)),
    )
    ax = _style.new_axes(ax, figsize, size)
    side = SideColumn(ax, fontsize)
    shown = ax.imshow(mean, cmap=cmap, vmin=0.0, vmax=1.0, aspect="auto", interpolation="nearest")
    ends = [_style.shorten(str(end)) for end in probabilities.columns]
    ax.set_xticks(range(m), ends, rotation=90, fontsize=side.fontsize, **_style.literal(*ends))
    ax.set_yticks(range(n), [_style.shorten(row) for row in rows], fontsize=side.fontsize, **_style.literal(*rows))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    side.colorbar(ScalarMappable(shown.norm, cmap), title="Mean probability")
    _style.settle(ax)
    width, height = _style.axes_inches(ax)
    if min(width / m, height / n) > 0.24:
        for i, j in np.ndindex(n, m):
            if mean[i, j] >= 0.005:
                shade = _style.readable_on(to_hex(cmap(float(mean[i, j]))))
                ax.text(
                    j,
                    i,
                    f"{mean[i, j]:.2f}".removeprefix("0"),
                    ha="center",
                    va="center",
                    color=shade,
                    fontsize=0.8 * side.fontsize,
                )
    return ax
