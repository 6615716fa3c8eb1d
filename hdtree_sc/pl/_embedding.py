"""The tree, or the lineage graph between its leaves, over the cells on an embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from hdtree_sc._docs import PLOTS, shared_params
from hdtree_sc.pl import _cells, _draw, _layout, _panels, _style
from hdtree_sc.pl._cells import TreeData, shares, tree_data
from hdtree_sc.pl._scatter import CellMap

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray


@shared_params(PLOTS)
def tree_on_embedding(
    adata: AnnData,
    *,
    key: str = "hdtree",
    basis: str | None = None,
    color: _panels.Color = None,
    layer: str | None = None,
    use_raw: bool | None = None,
    palette: _style.Palette | None = None,
    cmap: str | Colormap | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    edges: Literal["tree", "graph"] | None = "tree",
    max_leaves: int | None = None,
    min_cells: int | None = None,
    node_size: float = 16.0,
    show_labels: bool = False,
    size: float | None = None,
    alpha: float | None = None,
    legend_loc: str | None = "right margin",
    legend_fontsize: float | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Any:
    """Draw the cells on a map with the tree, or the lineage graph, over them.

    A leaf lies at the medoid of its cells, a node above (small) at the mean of its children weighted by cells.

    Parameters
    ----------
    adata
        Annotated data after ``hdtree_sc.tl.tree``. Only ``uns["<color>_colors"]`` may be set, as in scanpy.
    color
        Column of ``obs`` or gene for cells and nodes (pies or means); ``None``: the big branches of the tree.
        A list gives a panel for each.
    edges
        ``"tree"``: parents to children; ``"graph"``: the neighbour edges between leaves that
        ``hdtree_sc.tl.lineage_graph`` found, wider where leaves are closer, bridges dashed; ``None``: nodes only.
    max_leaves, min_cells
        Cut the tree for this plot, see `tree`.
    node_size
        Diameter of the largest leaf in points.
    show_labels
        Whether the leaves are named on the map.
    alpha
        Opacity of the cells; default 0.6, so that the tree stands out.
    legend_loc
        ``"right margin"``, ``"on data"``, a place inside the Axes that matplotlib knows, or ``None``.
    title
        Default: `color`. Of the figure where there are several panels.
    ax
        Axes to draw on, for one `color`; a figure made with ``layout="constrained"`` makes room for the legends.

    Returns
    -------
    The Axes, or an array of them for several colours, where ``show=False`` or `ax` is given, else ``None``.

    Raises
    ------
    KeyError
        There is no such tree, graph, `color`, `basis` or `layer`; the message lists what there is.
    ValueError
        `edges` is none of those named above, the embedding has one column only, several colours are with one `ax`, or
        a column holds no values.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ax = ht.pl.tree_on_embedding(adata, color="cell_type", edges="graph", show=False)
    >>> ax.get_title()
    'cell_type'
    """
    if edges not in ("tree", "graph", None):
        msg = f"edges={edges!r} is not one of 'tree', 'graph', None."
        raise ValueError(msg)
    asked = _panels.colors_asked(color, ax)
    data = tree_data(adata, key=key, max_leaves=max_leaves, min_cells=min_cells)
    xy, name = _cells.embedding(adata, basis, key=key)
    columns = [
        branch_values(data) if one is None else _cells.cell_values(adata, one, layer=layer, use_raw=use_raw)
        for one in asked
    ]
    graph = graph_edges(adata, data, key=key) if edges == "graph" else None
    cmap = _style.get_cmap(cmap)
    palettes = _style.colors_of(adata, columns, palette)
    panels = _panels.color_panels(ax, figsize, [(6.4, 4.6)] * len(asked), title)
    where = _cells.node_positions(data.tree, data.node, xy)
    is_leaf = data.tree.is_leaf_mask & np.isfinite(where).all(axis=1)
    largest = max(data.n_cells[is_leaf].max(initial=1), 1)
    for shown, one, values, colors in zip(panels, asked, columns, palettes, strict=True):
        look = {"size": size, "alpha": 0.6 if alpha is None else alpha, "legend_fontsize": legend_fontsize}
        cells = CellMap(shown, xy, name, **look)
        if title is not None and len(panels) == 1:
            shown.set_title(title, fontsize=1.2 * cells.side.fontsize)
        elif one:
            shown.set_title(_style.wrap(one, 40), fontsize=1.2 * cells.side.fontsize, **_style.literal(one))
        if graph is not None:
            _draw_graph(shown, graph, where)
        elif edges == "tree":
            _draw_tree(shown, data, where)
        _style.settle(shown)
        widest = node_size * min(1.0, 0.35 + min(_style.axes_inches(shown)) / 5)
        diameters = widest * (data.n_cells[is_leaf] / largest) ** 0.25
        if values.is_categorical:
            cells.categories(values, colors, legend_loc=legend_loc, title="Branch" if one is None else None)
            _draw.pies(shown, where[is_leaf], shares(data, values)[is_leaf], [*colors, _style.MISSING], diameters)
        else:
            scale = cells.numbers(values, cmap=cmap, vmin=vmin, vmax=vmax)
            means = _cells.node_means(data.tree, data.node, values)[is_leaf]
            _draw.heat_discs(shown, where[is_leaf], means, diameters, cmap=scale.get_cmap(), norm=scale.norm)
        _mark_root(shown, where, widest / 2)
        if show_labels:
            _style.settle(shown)
            cells.write_names(where[is_leaf], np.asarray(data.tree.nodes)[is_leaf], lift=widest / 2 + 2)
    return _style.finish(_panels.gathered(panels), given=ax is not None, show=show)


def branch_values(data: TreeData) -> _cells.CellValues:
    """Big branch of each cell, as categories named by the branch's node."""
    heads, branch = _layout.clades(data.tree)
    return _cells.CellValues("branch", np.append(branch, -1)[data.node], tuple(heads))


def graph_edges(adata: AnnData, data: TreeData, *, key: str) -> pd.DataFrame:
    """Edges of the lineage graph between the drawn leaves: ``source``, ``target`` (node numbers), ``kind``, ``weight``.

    Of the edges that a cut has brought between the same two nodes, the shortest stays.

    Parameters
    ----------
    adata
        Annotated data.
    data
        The drawn tree.
    key
        The tree's key.

    Raises
    ------
    KeyError
        There is no lineage graph.
    """
    stored: dict[str, Any] = adata.uns[key]
    if "graph" not in stored:
        msg = f"adata.uns[{key!r}] has no 'graph': run hdtree_sc.tl.lineage_graph(adata, key={key!r}) first."
        raise KeyError(msg)
    graph: pd.DataFrame = stored["graph"]
    graph = graph[graph["kind"].astype(str).isin(["knn", "bridge"])]
    full = _cells.stored_tree(adata, key)
    ends = [data.tree.index(data.tree.project(graph[end].astype(str), within=full)) for end in ("source", "target")]
    pair = np.sort(np.stack(ends, axis=1), axis=1).reshape(-1, 2)
    table = pd.DataFrame(
        {
            "source": pair[:, 0],
            "target": pair[:, 1],
            "kind": graph["kind"].astype(str).to_numpy(),
            "weight": graph["weight"].to_numpy(dtype=float),
        }
    )
    table = table[table["source"] != table["target"]].sort_values("weight", kind="stable")
    return table.drop_duplicates(["source", "target"]).reset_index(drop=True)


def _draw_tree(ax: Axes, data: TreeData, where: NDArray) -> None:
    child = np.arange(1, len(data.tree))
    child = child[np.isfinite(where[child]).all(axis=1)]
    segments = np.stack([where[data.tree.parents[child]], where[child]], axis=1)
    widths = _draw.edge_widths(data.n_cells[child], thin=0.8, thick=3.0)
    made = _draw.edges(ax, segments, widths, _style.muted(ax, 0.85))
    made.set_path_effects(_style.halo(ax, 4.5))
    inner = ~data.tree.is_leaf_mask & np.isfinite(where).all(axis=1)
    ax.scatter(*where[inner].T, s=14, c=_style.paper(ax), edgecolors=_style.ink(), linewidths=0.9, zorder=3)


def _draw_graph(ax: Axes, graph: pd.DataFrame, where: NDArray) -> None:
    segments = where[graph[["source", "target"]].to_numpy()]
    seen = np.isfinite(segments).all(axis=(1, 2))
    weight = graph["weight"].to_numpy()
    near = weight.min(initial=np.inf) / np.maximum(weight, 1e-12)
    # A graph of many long edges is a mesh: what is far joins faintly, what is near stands on top.
    opacity = np.clip(1.6 * near, 0.1, 0.95) if len(graph) > len(where) else np.full(len(graph), 0.95)
    for kind, style in (("knn", "solid"), ("bridge", (0, (3, 2)))):
        chosen = np.flatnonzero(seen & (graph["kind"] == kind).to_numpy())[::-1]
        if len(chosen):
            made = _draw.edges(ax, segments[chosen], 0.6 + 2.6 * near[chosen], _style.muted(ax, 0.85))
            made.set_linestyle(style)
            made.set_alpha(1.0 if kind == "bridge" else opacity[chosen])


def _mark_root(ax: Axes, where: NDArray, size: float) -> None:
    if len(where) > 1 and np.isfinite(where[0]).all():
        ax.scatter(
            *where[0], s=size**2, marker="D", c=_style.ink(), edgecolors=_style.paper(ax), linewidths=1, zorder=5
        )
