"""Curves of a training: each loss in its panel, training and validation together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import MaxNLocator

from hdtree_sc._errors import listing
from hdtree_sc.pl import _panels, _style
from hdtree_sc.pl._side import side_fontsize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

_SPLIT = re.compile(r"(?:^|_)(train|validation|val|test)(?=_|$)")
_PACE = re.compile(r"_(epoch|step)$")


def training_curves(history: Mapping[str, Any]) -> dict[str, dict[str, pd.Series]]:
    """The curves of a training: component -> split (``"train"``, ``"validation"``, ``"test"`` or ``""``) -> values.

    ``elbo_train`` and ``elbo_validation`` are two splits of ``elbo``; ``train_loss_epoch`` is a split of ``loss``. What
    was kept per step is left out where it is there per epoch too. Index: epoch or step; missing values are dropped.

    Parameters
    ----------
    history
        Name -> DataFrame with one column, or Series, as scvi-tools keeps them.
    """
    curves: dict[str, dict[str, pd.Series]] = {}
    per_epoch = {_PACE.sub("", name) for name in history if not name.endswith("_step")}
    for name, kept in history.items():
        if name.endswith("_step") and _PACE.sub("", name) in per_epoch:
            continue
        values = kept.iloc[:, 0] if isinstance(kept, pd.DataFrame) else pd.Series(kept)
        # Some loggers keep 0-d tensors in object columns.
        numbers = pd.Series([float(v) for v in values], index=values.index, dtype=float, name=name).dropna()
        if numbers.empty:
            continue
        base = _PACE.sub("", name)
        found = _SPLIT.search(base)
        split = "" if found is None else found.group(1)
        split = "validation" if split == "val" else split
        base = (base if found is None else base[: found.start()] + base[found.end() :]).strip("_") or "loss"
        curves.setdefault(base, {})[split] = numbers
    return curves


def training(
    model: Any,
    *,
    keys: Sequence[str] | str | None = None,
    log: bool = False,
    ncols: int = 3,
    legend_loc: str | None = "best",
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Any:
    """Draw how the losses of a model went down while it was trained.

    Training and validation of one component share a panel; a dot marks where the validation was lowest.

    Parameters
    ----------
    model
        A trained model of this package or of scvi-tools, or its ``history``.
    keys
        Components to draw, for example ``["loss", "elbo"]``; default: all that are not zero throughout.
    log
        Whether the values are on a logarithmic axis, where all are positive.
    ncols
        Most panels in a row.
    legend_loc
        Where matplotlib puts the legend, in the first panel of several curves; ``None``: none.
    title
        Of the figure, or of `ax`.
    figsize
        Inches; default: grows with the panels.
    ax
        Axes to draw on, for one component.
    show
        Show the figure; default: ``scanpy.settings.autoshow``, or not where `ax` is given.

    Returns
    -------
    Where ``show=False`` or `ax` is given, the Axes, an array of them if there are several panels; else ``None``.

    Raises
    ------
    ValueError
        The model is not trained, or `ax` is given for several components.
    KeyError
        A component is not there; the message lists those that are.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ax = ht.pl.training(model, keys="loss", show=False)
    >>> ax.get_xlabel()
    'Epoch'
    """
    history: Mapping[str, Any] = (model if isinstance(model, dict) else getattr(model, "history", None)) or {}
    curves = training_curves(history)
    if not curves:
        msg = "model.history is empty: run model.train() first."
        raise ValueError(msg)
    moved = [name for name, splits in curves.items() if any((values != 0).any() for values in splits.values())]
    chosen = [keys] if isinstance(keys, str) else (moved or list(curves)) if keys is None else list(keys)
    unknown = [name for name in chosen if name not in curves]
    if unknown or not chosen:
        msg = f"keys: {listing(unknown)} not in the history. Components: {listing(curves, 30)}."
        raise KeyError(msg)
    if ax is not None:
        if len(chosen) > 1:
            msg = f"ax is one Axes, but there are {len(chosen)} components ({listing(chosen)}): choose one with keys=."
            raise ValueError(msg)
        panels = [ax]
    else:
        columns = min(ncols, len(chosen))
        rows = -(-len(chosen) // columns)
        size = figsize or (3.4 * columns + 0.4, 2.6 * rows + 0.3)
        figure, grid = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
        panels = list(grid.flat)
        for empty in panels[len(chosen) :]:
            empty.remove()
        panels = panels[: len(chosen)]
        if title is not None:
            figure.suptitle(title)
    explained = next((name for name in chosen if len(curves[name]) > 1), None)
    for panel, name in zip(panels, chosen, strict=True):
        _panel(panel, name, curves[name], log=log, legend_loc=legend_loc if name == explained else None)
    if ax is not None and title is not None:
        ax.set_title(title)
    return _style.finish(_panels.gathered(panels), given=ax is not None, show=show)


def _panel(ax: Axes, name: str, splits: dict[str, pd.Series], *, log: bool, legend_loc: str | None) -> None:
    colors = dict(zip(("train", "validation", "test"), _style.default_palette(3), strict=True))
    fontsize = side_fontsize(*(ax.get_figure(root=True).get_size_inches()))
    for split, values in splits.items():
        color = colors.get(split, _style.muted(ax, 0.7))
        # A single epoch is a point, which a line would not show.
        marker = "o" if len(values) == 1 else ""
        ax.plot(values.index, values, color=color, marker=marker, markersize=4, linewidth=1.5, label=split or name)
        if split == "validation" and len(values) > 1:
            best = values.idxmin()
            ax.plot([best], [values.loc[best]], "o", color=color, markersize=5, markeredgecolor=_style.paper(ax))
    if log and all((values > 0).all() for values in splits.values()):
        ax.set_yscale("log")
    ax.set_title(_style.wrap(name.replace("_", " "), 34), fontsize=1.1 * fontsize, **_style.literal(name))
    # Lightning names the index of what it keeps: epoch or step.
    kept_per = next((str(values.index.name) for values in splits.values() if values.index.name), "epoch")
    ax.set_xlabel(kept_per.capitalize(), fontsize=fontsize)
    ax.tick_params(labelsize=0.9 * fontsize)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if not log:
        ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.margins(x=0.02)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=False)
    if legend_loc not in (None, "none") and len(splits) > 1:
        ax.legend(loc=legend_loc, fontsize=fontsize, frameon=False)
