"""Plots: what is drawn says what the data say. Looks at artists, never at pixels."""

from __future__ import annotations

import subprocess
import sys

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.legend import Legend
from matplotlib.text import Annotation, Text
from scipy.sparse import csr_matrix

import hdtree_sc as ht
from hdtree_sc.pl import _cells, _layout, _panels, _style
from hdtree_sc.pl._path import path_table
from hdtree_sc.pl._tree import tree_data
from hdtree_sc.tree import Tree

LEAVES = ["0.0", "0.1", "1"]
# Cells per leaf and type; the types are chosen so that shares are round: 0.0 is all A, 0.1 half A, 1 a quarter B.
COUNTS = {"0.0": {"A": 20}, "0.1": {"A": 10, "B": 10}, "1": {"B": 10, "C": 30}}


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def make(counts: dict[str, dict[str, int]] = COUNTS) -> ad.AnnData:
    """Eighty cells on a tree of five nodes, with every field that the plots read."""
    rows = [(leaf, kind) for leaf, kinds in counts.items() for kind, n in kinds.items() for _ in range(n)]
    leaf, kind = (np.array(column, dtype=object) for column in zip(*rows, strict=True))
    rng = np.random.default_rng(0)
    where = {"0.0": (0, 0), "0.1": (4, 0), "1": (2, 8)}
    xy = np.array([where[name] for name in leaf]) + rng.normal(scale=0.3, size=(len(leaf), 2))
    time = np.array([LEAVES.index(name) for name in leaf]) / 2
    adata = ad.AnnData(
        csr_matrix(np.column_stack([kind == "A", kind == "B", kind == "C"]).astype(np.float32)),
        obs=pd.DataFrame(
            {
                "type": pd.Categorical(kind),
                "time": 10 * time + 5,
                "hdtree_leaf": pd.Categorical(leaf, categories=LEAVES),
                "hdtree_pseudotime": np.clip(time + rng.normal(scale=0.02, size=len(time)), 0, 1),
            },
            index=[f"cell{i}" for i in range(len(leaf))],
        ),
        var=pd.DataFrame(index=["geneA", "geneB", "geneC"]),
        obsm={"X_hdtree_2d": xy.astype(np.float32), "X_umap": xy[:, ::-1].astype(np.float32)},
    )
    nodes = Tree(
        ["root", "0", "0.0", "0.1", "1"], [-1, 0, 1, 1, 0], heights=[4, 1, 0, 0, 0], n_cells=[80, 40, 20, 20, 40]
    ).to_frame()
    graph = pd.DataFrame(
        {
            "source": ["0.0", "0.1", "root"],
            "target": ["0.1", "1", "0"],
            "kind": ["knn", "bridge", "tree"],
            "weight": [1.0, 2.0, 5.0],
        }
    )
    path = pd.DataFrame(
        {
            "node": ["0.0", "0", "root", "1"],
            "order": range(4),
            "n_cells": [20, 40, 80, 40],
            "distance": [0.0, 1.0, 3.0, 5.0],
            "composition": ["A", "A", "A", "C"],
            "share": [1.0, 0.75, 0.375, 0.75],
            "groupby": "type",
        }
    )
    adata.uns["hdtree"] = {
        "nodes": nodes,
        "graph": graph,
        "pseudotime": {"root_cell": "cell3", "root_node": "0.0"},
        "paths": {"0.0 -> 1": path, "a|b -> 1": path.iloc[[0, 3]]},
        "last_path": "0.0 -> 1",
    }
    return adata


@pytest.fixture
def adata() -> ad.AnnData:
    return make()


def star(n: int) -> ad.AnnData:
    """A root with `n` leaves of five cells each, every leaf a type of its own with a long name."""
    names = [str(i) for i in range(n)]
    leaf = np.repeat(names, 5)
    adata = ad.AnnData(np.zeros((5 * n, 1), dtype=np.float32))
    adata.obs["hdtree_leaf"] = pd.Categorical(leaf, categories=names)
    adata.obs["type"] = pd.Categorical([f"a population of cells with a very long name, number {i}" for i in leaf])
    adata.obsm["X_hdtree_2d"] = np.random.default_rng(1).normal(size=(5 * n, 2))
    adata.uns["hdtree"] = {"nodes": Tree(["root", *names], [-1] + [0] * n, heights=[1] + [0] * n).to_frame()}
    return adata


def labels(ax: plt.Axes) -> list[str]:
    """Texts at the leaves that can be seen."""
    return [t.get_text() for t in ax.texts if isinstance(t, Annotation) and t.get_visible() and t.get_text()]


def legends(ax: plt.Axes) -> list[Legend]:
    return [artist for artist in ax.get_children() if isinstance(artist, Legend)]


def entries(ax: plt.Axes) -> list[str]:
    return [text.get_text() for legend in legends(ax) for text in legend.get_texts()]


def rasters(ax: plt.Axes) -> list[PathCollection]:
    return [artist for artist in ax.collections if isinstance(artist, PathCollection) and artist.get_rasterized()]


def overlaps(texts: list) -> int:
    """Pairs of texts that cover each other."""
    boxes = [text.get_window_extent() for text in texts]
    return sum(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


class TestLayout:
    def test_inner_nodes_stand_over_the_middle_of_their_children(self):
        tree = Tree(["r", "a", "b", "c", "d"], [-1, 0, 0, 1, 1], heights=[9, 4, 0, 0, 0])
        layout = _layout.tree_layout(tree, np.ones(5), branch_lengths="height")
        assert layout["x"].to_dict() == {"r": 1.75, "a": 1.0, "c": 0.5, "d": 1.5, "b": 2.5}
        assert layout["y"].to_dict() == {"r": 9, "a": 4, "c": 0, "d": 0, "b": 0}

    def test_sqrt_keeps_the_order_of_heights_and_level_puts_a_level_in_line(self):
        tree = Tree(["r", "a", "b", "c", "d"], [-1, 0, 0, 1, 1], heights=[9, 4, 0, 0, 0])
        assert list(_layout.tree_layout(tree, np.ones(5), branch_lengths="sqrt")["y"]) == [3, 2, 0, 0, 0]
        assert list(_layout.tree_layout(tree, np.ones(5), branch_lengths="level")["y"]) == [2, 1, 0, 0, 1]

    def test_larger_leaves_get_more_room_and_no_leaf_changes_place(self):
        tree = Tree(["r", "a", "b", "c"], [-1, 0, 0, 0])
        x = _layout.tree_layout(tree, np.array([111, 100, 10, 1]), spacing="cells")["x"].to_numpy()
        assert (np.diff(x[1:]) > 0).all()
        assert x[2] - x[1] > x[3] - x[2]

    def test_edges_are_elbows_from_parent_to_child(self):
        tree = Tree(["r", "a", "b"], [-1, 0, 0], heights=[1, 0, 0])
        segments = _layout.elbows(_layout.tree_layout(tree, np.ones(3), branch_lengths="height"))
        assert segments[0].tolist() == [[1, 1], [0.5, 1], [0.5, 0]]
        assert segments.shape == (2, 3, 2)

    @pytest.mark.parametrize(
        ("orientation", "axis", "sign"), [("top", 1, 1), ("bottom", 1, -1), ("left", 0, -1), ("right", 0, 1)]
    )
    def test_the_root_lies_where_it_was_asked_for(self, orientation, axis, sign):
        root, leaf = _layout.orient(np.array([[1.0, 5.0], [1.0, 0.0]]), orientation)
        assert sign * (root[axis] - leaf[axis]) == 5

    def test_neighbouring_leaves_never_touch(self):
        xy = np.array([[10.0, 50.0], [5.0, 0.0], [15.0, 0.0]])
        diameter, _ = _layout.fit_diameters(
            xy, np.array([200, 100, 100]), np.array([False, True, True]), largest=50, room=10
        )
        assert diameter[1:].max() < 10

    def test_labels_that_do_not_fit_go_the_smallest_first(self):
        keep = _layout.spread(np.array([0.0, 1.0, 2.0, 10.0]), np.full(4, 1.5), np.array([1, 5, 1, 1]))
        assert keep.tolist() == [False, True, False, True]


class TestNodes:
    def test_composition_of_a_node_is_that_of_its_subtree(self, adata):
        data = tree_data(adata, key="hdtree")
        counts = _cells.node_counts(data.tree, data.node, _cells.cell_values(adata, "type"))
        assert counts.loc["0"].to_dict() == {"A": 30, "B": 10, "C": 0, "NA": 0}
        assert counts.loc["root"].sum() == adata.n_obs

    def test_mean_of_a_node_ignores_missing_values(self, adata):
        adata.obs.loc[adata.obs_names[:10], "time"] = np.nan
        data = tree_data(adata, key="hdtree")
        means = _cells.node_means(data.tree, data.node, _cells.cell_values(adata, "time"))
        kept = adata.obs.loc[adata.obs["hdtree_leaf"].isin(["0.0", "0.1"]), "time"]
        assert means[data.tree.index("0")] == pytest.approx(kept.mean())

    def test_a_subset_of_the_cells_counts_only_itself(self, adata):
        data = tree_data(adata[adata.obs["hdtree_leaf"] == "1"], key="hdtree")
        assert data.tree.nodes == ("root", "0", "0.0", "0.1", "1")
        assert data.n_cells.tolist() == [40, 0, 0, 0, 40]

    def test_a_cut_moves_cells_to_the_node_that_stays(self, adata):
        data = tree_data(adata, key="hdtree", max_leaves=2)
        assert data.tree.leaves == ("0", "1")
        assert np.bincount(data.node).tolist() == [0, 40, 40]

    def test_a_leaf_lies_on_one_of_its_cells_and_its_parent_between_the_leaves(self, adata):
        data, xy = tree_data(adata, key="hdtree"), np.asarray(adata.obsm["X_hdtree_2d"], dtype=float)
        where = _cells.node_positions(data.tree, data.node, xy)
        own = xy[(adata.obs["hdtree_leaf"] == "0.0").to_numpy()]
        assert (own == where[data.tree.index("0.0")]).all(axis=1).any()
        assert where[data.tree.index("0")] == pytest.approx(where[data.tree.index(["0.0", "0.1"])].mean(axis=0))


class TestTree:
    def test_pies_have_a_wedge_for_each_type_in_each_node(self, adata):
        ax = ht.pl.tree(adata, color="type", show=False)
        wedges = next(c for c in ax.collections if isinstance(c, PathCollection) and len(c.get_paths()) > 1)
        # root A B C, "0" A B, "0.0" A, "0.1" A B, "1" B C
        assert len(wedges.get_paths()) == 3 + 2 + 1 + 2 + 2
        colors = adata.uns["type_colors"]
        assert [to_hex(c) for c in wedges.get_facecolors()[:3]] == colors
        assert len(next(c for c in ax.collections if isinstance(c, LineCollection)).get_segments()) == 4

    def test_leaves_are_named_by_their_commonest_type_and_its_share(self, adata):
        assert labels(ht.pl.tree(adata, color="type", show=False)) == ["A 100%", "A 50%", "C 75%"]

    def test_without_a_category_leaves_have_their_own_names(self, adata):
        assert labels(ht.pl.tree(adata, color="time", show=False))[:3] == LEAVES
        assert labels(ht.pl.tree(adata, show=False)) == LEAVES

    def test_groupby_names_the_leaves_of_a_gene_plot(self, adata):
        ax = ht.pl.tree(adata, color="geneA", groupby="type", show=False)
        assert labels(ax)[:3] == ["A 100%", "A 50%", "C 75%"]

    def test_a_gene_is_drawn_as_the_mean_of_each_node(self, adata):
        ax = ht.pl.tree(adata, color="geneA", show=False)
        heat = next(c for c in ax.collections if c.get_array() is not None)
        assert np.asarray(heat.get_array()).tolist() == pytest.approx([30 / 80, 30 / 40, 1, 0.5, 0])
        assert len(ax.child_axes) == 1

    def test_layer_and_raw_are_read_where_they_are_asked_for(self, adata):
        adata.layers["twice"] = 2 * adata.X
        adata.raw = ad.AnnData(3 * adata.X, var=adata.var)
        read = {"layer": {"layer": "twice"}, "raw": {}, "X": {"use_raw": False}}
        top = {name: _cells.cell_values(adata, "geneA", **how).values.max() for name, how in read.items()}
        assert top == {"layer": 2, "raw": 3, "X": 1}

    def test_more_cells_make_larger_nodes_and_wider_edges(self, adata):
        ax = ht.pl.tree(adata, color="time", show=False)
        size = next(c for c in ax.collections if c.get_array() is not None).get_sizes()
        assert size[0] > size[1] > size[2]  # 80, 40 and 20 cells
        widths = next(c for c in ax.collections if isinstance(c, LineCollection)).get_linewidths()
        assert widths[0] > widths[1]  # into "0" and "0.0"

    def test_legend_names_types_and_sizes_and_none_leaves_them_out(self, adata):
        ax = ht.pl.tree(adata, color="type", show=False)
        assert entries(ax)[:3] == ["A", "B", "C"]
        assert [legend.get_title().get_text().strip() for legend in legends(ax)] == ["", "Cells"]
        assert legends(ht.pl.tree(adata, color="type", legend_loc=None, show=False)) == []

    def test_missing_types_are_grey_and_named(self, adata):
        adata.obs["some"] = adata.obs["type"].where(adata.obs["type"] != "C")
        ax = ht.pl.tree(adata, color="some", show=False)
        assert "NA" in entries(ax)
        assert labels(ax)[-1] == "NA 75%"

    @pytest.mark.parametrize("orientation", ["top", "bottom", "left", "right"])
    def test_nothing_is_cut_off_on_any_side(self, adata, orientation):
        adata.obs["type"] = adata.obs["type"].cat.rename_categories(lambda name: f"a rather long name of type {name}")
        ax = ht.pl.tree(adata, color="type", orientation=orientation, figsize=(6, 5), show=False)
        ax.figure.draw_without_rendering()
        page = ax.figure.bbox
        beside = [legend.get_window_extent() for legend in legends(ax)]
        written = [text.get_window_extent() for text in ax.texts if text.get_text()]
        boxes = [*beside, *written]
        assert all(page.x0 <= box.x0 and box.x1 <= page.x1 for box in boxes)
        assert all(page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)
        assert not any(legend.overlaps(text) for legend in beside for text in written)

    @pytest.mark.parametrize("figsize", [(3, 3), None, (14, 8)])
    def test_sixty_labels_never_cover_each_other(self, figsize):
        ax = ht.pl.tree(star(60), color="type", figsize=figsize, legend_loc=None, show=False)
        ax.figure.draw_without_rendering()
        seen = [text for text in ax.texts if text.get_visible()]
        assert len(seen) >= 15
        centres = sorted(text.get_window_extent().x0 + text.get_window_extent().width / 2 for text in seen)
        tallest = max(text.get_fontsize() for text in seen) * ax.figure.dpi / 72
        assert np.diff(centres).min() > 0.9 * tallest

    def test_labels_stay_inside_axes_whose_figure_does_not_lay_itself_out(self, adata):
        _, (ax, _) = plt.subplots(1, 2, figsize=(8, 3))
        ht.pl.tree(adata, color="type", ax=ax)
        floor = ax.get_window_extent().y0
        assert all(text.get_window_extent().y0 > floor - 2 for text in ax.texts if text.get_text())

    def test_labels_give_way_when_the_figure_fills_up(self):
        fig, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
        ht.pl.tree(star(12), color="type", ax=axes[0], legend_loc=None)
        before = axes[0].texts[0].get_fontsize()
        for ax in axes[1:]:
            ax.text(1, 0.5, "x" * 40)
        fig.draw_without_rendering()  # lays the figure out anew, with less room for the tree
        fig.canvas.draw()
        assert axes[0].texts[0].get_fontsize() < before
        seen = [text.get_window_extent() for text in axes[0].texts if text.get_visible()]
        assert not any(a.x1 > b.x0 + 1 for a, b in zip(seen[:-1], seen[1:], strict=True))

    def test_one_leaf_is_the_root_alone(self, adata):
        ax = ht.pl.tree(adata, color="type", max_leaves=1, show=False)
        assert labels(ax) == ["A 38%"]
        assert sum(len(c.get_segments()) for c in ax.collections if isinstance(c, LineCollection)) == 0

    def test_min_cells_draws_only_leaves_that_have_them(self, adata):
        assert labels(ht.pl.tree(adata, min_cells=30, show=False)) == ["0", "1"]

    def test_levels_of_unequal_depth_are_led_to_the_labels(self, adata):
        ax = ht.pl.tree(adata, branch_lengths="level", show=False)
        dotted = [c for c in ax.collections if isinstance(c, LineCollection)][-1]
        assert len(dotted.get_segments()) == 1  # leaf "1" ends a level early
        assert ax.get_ylabel() == "Level"

    def test_heights_can_be_read_off_the_axis(self, adata):
        ax = ht.pl.tree(adata, show=False)
        at = dict(zip((t.get_text() for t in ax.get_yticklabels()), ax.get_yticks(), strict=True))
        assert at["4"] == pytest.approx(2)  # the axis is a square root, its numbers are heights

    def test_dark_style_gives_light_ink(self, adata):
        with plt.style.context("dark_background"):
            ax = ht.pl.tree(adata, color="type", show=False)
            assert {to_hex(text.get_color()) for text in ax.texts if text.get_text()} == {"#ffffff"}
            edges = next(c for c in ax.collections if isinstance(c, LineCollection))
            assert np.asarray(edges.get_colors())[0, :3].mean() > 0.4


class TestPalette:
    def test_stored_colours_are_used_and_kept(self, adata):
        adata.uns["type_colors"] = ["#ff0000", "#00ff00", "#0000ff"]
        ht.pl.tree(adata, color="type", show=False)
        assert list(adata.uns["type_colors"]) == ["#ff0000", "#00ff00", "#0000ff"]

    @pytest.mark.parametrize("stored", [["#ff0000"], ["#ff0000", "no colour", "#0000ff"]])
    def test_too_few_or_broken_colours_are_replaced_as_in_scanpy(self, adata, stored):
        adata.uns["type_colors"] = stored
        ht.pl.tree(adata, color="type", show=False)
        assert adata.uns["type_colors"] == _style.default_palette(3)

    @pytest.mark.parametrize(
        "palette", [{"A": "red", "B": "lime", "C": "blue"}, ["red", "lime", "blue"], "brg", ("red", "lime", "blue")]
    )
    def test_palette_may_be_a_mapping_a_list_or_a_map(self, adata, palette):
        ht.pl.tree(adata, color="type", palette=palette, show=False)
        assert len(set(adata.uns["type_colors"])) == 3

    def test_palette_without_a_type_names_it(self, adata):
        with pytest.raises(ValueError, match="'C'"):
            ht.pl.tree(adata, color="type", palette={"A": "red", "B": "lime"}, show=False)

    @pytest.mark.parametrize("n", [10, 20, 28, 102])
    def test_default_palettes_are_scanpys(self, n):
        scanpy_utils = pytest.importorskip("scanpy.plotting._utils")
        obs = pd.DataFrame({"g": pd.Categorical(range(n))}, index=[str(i) for i in range(n)])
        adata = ad.AnnData(np.zeros((n, 1)), obs=obs)
        scanpy_utils._set_default_colors_for_categorical_obs(adata, "g")
        expected = [to_hex(color) for color in adata.uns["g_colors"]]
        assert [to_hex(color) for color in _style.default_palette(n)] == expected

    @pytest.mark.parametrize("n", [103, 137, 500])
    def test_more_categories_than_scanpy_has_colours_for_get_colours_of_their_own(self, n):
        colors = _style.default_palette(n)
        assert len({to_hex(color) for color in colors}) == n
        assert colors[:102] == _style.default_palette(102)

    def test_colours_are_those_of_the_categories_there_are_now(self, adata):
        clusters = np.arange(adata.n_obs)
        for n, stored in ((4, ["grey"] * 137), (80, None), (4, None), (1, None)):
            adata.obs["leiden"] = pd.Categorical((clusters % n).astype(str))
            if stored is not None:
                adata.uns["leiden_colors"] = stored
            ht.pl.tree(adata, color="leiden", legend_loc=None, show=False)
            assert adata.uns["leiden_colors"] == [to_hex(color) for color in _style.default_palette(n)]

    def test_the_grey_that_scanpy_gives_to_too_many_categories_is_replaced(self):
        names = tuple(str(i) for i in range(103))
        adata = ad.AnnData(np.zeros((103, 1)))
        adata.uns["g_colors"] = ["#808080"] * 103
        values = _cells.CellValues("g", np.arange(103), names, is_obs=True)
        assert len(set(_style.category_colors(adata, values))) == 103
        assert len(set(adata.uns["g_colors"])) == 103

    def test_a_colour_map_with_too_few_colours_is_said(self, adata):
        adata.obs["many"] = pd.Categorical((np.arange(adata.n_obs) % 34).astype(str))
        with pytest.warns(UserWarning, match="palette has 20 colours for 34 categories"):
            ht.pl.tree(adata, color="many", palette="tab20", legend_loc=None, show=False)

    def test_nothing_is_stored_before_all_colours_are_found(self, adata):
        adata.obs["other"] = adata.obs["type"].cat.rename_categories({"A": "a"})
        for color, palette in ((["type", "no"], None), (["type", "other"], {"A": "red", "B": "lime", "C": "blue"})):
            with pytest.raises((KeyError, ValueError)):
                ht.pl.tree(adata, color=color, palette=palette, show=False)
        assert [key for key in adata.uns if key.endswith("_colors")] == []

    def test_nothing_else_of_the_users_data_is_touched(self, adata):
        before = adata.copy()
        ht.pl.tree(adata, color="type", show=False)
        ht.pl.tree_on_embedding(adata, color="time", edges="graph", show=False)
        ht.pl.pseudotime(adata, groupby="type", show=False)
        ht.pl.lineage_path(adata, show=False)
        pd.testing.assert_frame_equal(adata.obs, before.obs)
        assert set(adata.uns) - set(before.uns) == {"type_colors"}
        for slot in ("nodes", "graph"):
            pd.testing.assert_frame_equal(adata.uns["hdtree"][slot], before.uns["hdtree"][slot])

    def test_a_view_stays_a_view(self, adata):
        view = adata[:50]
        ht.pl.tree(view, color="type", show=False)
        assert view.is_view
        assert "type_colors" not in view.uns


class TestTreeOnEmbedding:
    def test_cells_are_one_rasterised_scatter_with_nodes_and_edges_over_them(self, adata):
        ax = ht.pl.tree_on_embedding(adata, color="type", show=False)
        (cells,) = rasters(ax)
        assert len(cells.get_offsets()) == adata.n_obs
        lines = [c for c in ax.collections if isinstance(c, LineCollection)]
        assert len(lines[0].get_segments()) == 4
        assert all(c.get_zorder() > cells.get_zorder() for c in lines)

    def test_cells_have_the_colours_of_their_types(self, adata):
        (cells,) = rasters(ht.pl.tree_on_embedding(adata, color="type", alpha=1, show=False))
        at = {tuple(xy): to_hex(c) for xy, c in zip(cells.get_offsets().tolist(), cells.get_facecolors(), strict=True)}
        colors = dict(zip("ABC", adata.uns["type_colors"], strict=True))
        for xy, kind in zip(adata.obsm["X_hdtree_2d"].astype(float).tolist(), adata.obs["type"], strict=True):
            assert at[tuple(xy)] == colors[kind]

    def test_graph_joins_leaves_and_dashes_bridges(self, adata):
        ax = ht.pl.tree_on_embedding(adata, edges="graph", show=False)
        knn, bridge = (c for c in ax.collections if isinstance(c, LineCollection))
        assert len(knn.get_segments()) == len(bridge.get_segments()) == 1
        assert knn.get_linewidths()[0] > bridge.get_linewidths()[0]  # 1 is nearer than 2
        assert knn.get_linestyle()[0][1] is None
        assert bridge.get_linestyle()[0][1] is not None

    def test_cut_tree_takes_its_graph_along(self, adata):
        ax = ht.pl.tree_on_embedding(adata, edges="graph", max_leaves=2, show=False)
        (bridge,) = (c for c in ax.collections if isinstance(c, LineCollection))
        assert len(bridge.get_segments()) == 1  # 0.0 - 0.1 is inside node 0 now

    @pytest.mark.parametrize("basis", ["umap", "X_umap"])
    def test_basis_may_be_named_with_or_without_x(self, adata, basis):
        ax = ht.pl.tree_on_embedding(adata, basis=basis, show=False)
        assert ax.get_xlabel() == "umap 1"

    def test_without_colour_the_big_branches_are_named(self, adata):
        ax = ht.pl.tree_on_embedding(adata, show=False)
        assert entries(ax) == ["0.0", "0.1", "1"]
        assert [key for key in adata.uns if key.endswith("_colors")] == []

    def test_names_on_data_do_not_cover_each_other(self, adata):
        adata.obsm["X_hdtree_2d"] = adata.obsm["X_hdtree_2d"] * 0.01
        ax = ht.pl.tree_on_embedding(adata, color="type", legend_loc="on data", show=False)
        assert sorted(t.get_text() for t in ax.texts) == ["A", "B", "C"]
        assert overlaps(list(ax.texts)) == 0

    def test_cells_without_a_value_are_grey(self, adata):
        adata.obs.loc[adata.obs_names[:7], "time"] = np.nan
        grey, coloured = rasters(ht.pl.tree_on_embedding(adata, color="time", show=False))
        assert len(grey.get_offsets()) == 7
        assert len(coloured.get_offsets()) == adata.n_obs - 7


class TestPseudotime:
    def test_map_marks_the_root_cell(self, adata):
        ax = ht.pl.pseudotime(adata, show=False)
        star = ax.collections[-1]
        assert star.get_offsets()[0].tolist() == pytest.approx(adata.obsm["X_hdtree_2d"][3].tolist())
        assert "root" in labels(ax)

    def test_root_node_is_marked_where_no_cell_is_known(self, adata):
        adata.uns["hdtree"]["pseudotime"]["root_cell"] = ""
        assert "root" in labels(ht.pl.pseudotime(adata, show=False))
        del adata.uns["hdtree"]["pseudotime"]
        assert "root" not in labels(ht.pl.pseudotime(adata, show=False))

    @pytest.mark.parametrize("kind", ["violin", "box"])
    def test_groups_are_ordered_by_their_median(self, adata, kind):
        ax = ht.pl.pseudotime(adata, groupby="type", kind=kind, show=False)
        assert [t.get_text() for t in ax.get_yticklabels()] == ["A (30)", "B (20)", "C (30)"]
        medians = next(c for c in ax.collections if isinstance(c, LineCollection)).get_segments()
        expected = adata.obs.groupby("type", observed=True)["hdtree_pseudotime"].median().to_numpy()
        assert [segment[0, 0] for segment in medians] == pytest.approx(np.sort(expected))
        low, high = ax.get_ylim()
        assert low > high  # the earliest group is on top

    def test_groups_without_cells_have_no_row(self, adata):
        adata.obs["type"] = adata.obs["type"].cat.add_categories("D")
        assert len(ht.pl.pseudotime(adata, groupby="type", show=False).get_yticks()) == 3

    def test_measured_time_is_compared_by_rank(self, adata):
        ax = ht.pl.pseudotime(adata, time_key="time", show=False)
        assert ax.get_title(loc="right").startswith("Spearman's rho = 0.9")
        assert [t.get_text() for t in ax.get_xticklabels()] == ["5", "10", "15"]

    def test_many_times_are_a_cloud_with_its_running_median(self, adata):
        adata.obs["minutes"] = np.linspace(0, 100, adata.n_obs)
        (line,) = ht.pl.pseudotime(adata, time_key="minutes", show=False).lines
        assert (np.diff(line.get_xdata()) > 0).all()

    def test_groups_can_be_coloured_by_measured_time(self, adata):
        ax = ht.pl.pseudotime(adata, groupby="type", time_key="time", show=False)
        assert len(ax.child_axes) == 1


class TestLineagePath:
    def test_nodes_are_numbered_and_inner_nodes_hollow(self, adata):
        ax = ht.pl.lineage_path(adata, show=False)
        assert labels(ax) == ["1", "2", "3", "4"]
        discs = ax.collections[-1]
        hollow = [to_hex(color) == "#ffffff" for color in discs.get_facecolors()]
        assert hollow == [False, True, True, False]

    def test_cells_on_the_path_are_coloured_the_others_grey(self, adata):
        every, on_path = rasters(ht.pl.lineage_path(adata, show=False))
        assert len(every.get_offsets()) == 80
        assert len(on_path.get_offsets()) == 60  # leaves 0.0 and 1

    def test_strip_shows_the_composition_and_cells_of_each_step(self, adata):
        strip = ht.pl.lineage_path(adata, show=False).child_axes[-1]
        assert [t.get_text() for t in strip.texts] == ["20", "40", "80", "40"]
        heights = {}
        for bar in strip.patches:
            step = round(bar.get_x() + bar.get_width() / 2)
            heights.setdefault(step, []).append(bar.get_height())
        assert [sum(heights[i]) for i in range(4)] == pytest.approx([1, 1, 1, 1])
        assert heights[3][1:] == pytest.approx([0.25, 0.75])

    def test_a_number_gives_bars_of_cells(self, adata):
        ax = ht.pl.lineage_path(adata, color="time", show=False)
        assert [bar.get_height() for bar in ax.child_axes[-1].patches] == [20, 40, 80, 40]

    @pytest.mark.parametrize("path", ["a/b -> 1", "a|b -> 1"])
    def test_paths_are_found_by_name(self, adata, path):
        assert labels(ht.pl.lineage_path(adata, path=path, show=False)) == ["1", "2"]

    def test_table_may_be_given_itself(self, adata):
        table = pd.DataFrame({"node": ["1", "0.1"]})
        assert labels(ht.pl.lineage_path(adata, path=table, show=False)) == ["1", "2"]

    def test_rows_are_taken_in_their_order(self, adata):
        table = adata.uns["hdtree"]["paths"]["0.0 -> 1"].iloc[::-1]
        assert path_table(adata, table, key="hdtree")["node"].tolist() == ["0.0", "0", "root", "1"]

    def test_nodes_in_one_place_are_moved_apart(self, adata):
        adata.obsm["X_hdtree_2d"][:] = adata.obsm["X_hdtree_2d"] * 1e-3
        adata.obsm["X_hdtree_2d"][0] = [50, 50]
        ax = ht.pl.lineage_path(adata, show=False)
        discs = ax.collections[-1]
        at = ax.transData.transform(discs.get_offsets())
        gap = np.sqrt(((at[:, None] - at[None]) ** 2).sum(-1)) + np.eye(4) * 1e9
        assert gap.min() > 0.9 * np.sqrt(discs.get_sizes().min()) * ax.figure.dpi / 72


class TestTraining:
    @staticmethod
    def history(n: int = 12) -> dict[str, pd.DataFrame]:
        epochs = pd.Index(range(n), name="epoch")
        fall = np.exp(-np.arange(n) / 3)
        names = ["train_loss_epoch", "validation_loss", "elbo_train", "elbo_validation", "kl_weight"]
        return {
            **{name: pd.DataFrame({name: 100 * fall + i}, index=epochs) for i, name in enumerate(names)},
            "train_loss_step": pd.DataFrame({"train_loss_step": np.ones(100)}),
            "lr": pd.DataFrame({"lr": np.full(n, np.nan)}, index=epochs),
        }

    def test_splits_of_one_loss_share_a_panel(self):
        axes = ht.pl.training(self.history(), show=False)
        assert [ax.get_title() for ax in axes] == ["loss", "elbo", "kl weight"]
        named = [[line.get_label() for line in ax.lines if not line.get_label().startswith("_")] for ax in axes]
        assert named == [["train", "validation"], ["train", "validation"], ["kl_weight"]]
        assert axes[0].lines[0].get_ydata().tolist() == self.history()["train_loss_epoch"].iloc[:, 0].tolist()

    def test_takes_a_model_and_one_axes(self):
        class Model:
            history = TestTraining.history()

        _, ax = plt.subplots()
        assert ht.pl.training(Model(), keys="elbo", ax=ax, log=True) is ax
        assert ax.get_yscale() == "log"
        with pytest.raises(ValueError, match="choose one with keys="):
            ht.pl.training(Model(), ax=ax)

    def test_one_epoch_is_a_point(self):
        axes = ht.pl.training(self.history(1), show=False)
        assert axes[0].lines[0].get_marker() == "o"

    def test_says_what_to_do(self):
        with pytest.raises(ValueError, match="train"):
            ht.pl.training({}, show=False)
        with pytest.raises(KeyError, match="'elbo'"):
            ht.pl.training(self.history(), keys=["ebo"], show=False)


SEVERAL = {
    "tree": lambda a, **more: ht.pl.tree(a, show=False, **more),
    "tree_on_embedding": lambda a, **more: ht.pl.tree_on_embedding(a, show=False, **more),
    "lineage_path": lambda a, **more: ht.pl.lineage_path(a, show=False, **more),
}


class TestSeveralColours:
    @pytest.mark.parametrize("draw", SEVERAL.values(), ids=SEVERAL)
    def test_each_has_a_panel_with_its_own_legend(self, adata, draw):
        axes = draw(adata, color=["type", "geneA", None])
        assert [ax.get_title() for ax in axes[:2]] == ["type", "geneA"]
        assert len({ax.figure.get_figure(root=True) for ax in axes}) == 1
        assert entries(axes[0])[:3] == ["A", "B", "C"]
        assert axes[1].child_axes  # the colour bar
        axes[0].get_figure(root=True).canvas.draw()
        boxes = [ax.get_tightbbox() for ax in axes]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])

    @pytest.mark.parametrize("draw", SEVERAL.values(), ids=SEVERAL)
    def test_a_list_of_one_is_that_one(self, adata, draw):
        assert isinstance(draw(adata, color=["type"]), plt.Axes)

    @pytest.mark.parametrize("color", [["a", "b"], ("a", "b"), pd.Index(["a", "b"]), np.array(["a", "b"])])
    def test_any_list_of_names_will_do(self, color):
        assert _panels.colors_asked(color, None) == ["a", "b"]

    @pytest.mark.parametrize("draw", SEVERAL.values(), ids=SEVERAL)
    def test_what_is_no_list_of_names_is_refused(self, adata, draw):
        _, ax = plt.subplots()
        figures = plt.get_fignums()
        for color, error, says in (
            (["type", "time"], ValueError, "color names 2 panels"),
            ([], ValueError, "color: an empty list"),
            (3, TypeError, r"color: 3 \(int\) is no name"),
            (["type", 3], TypeError, r"color: 3 \(int\) is no name"),
            (["type", "typ"], KeyError, "'typ'"),
        ):
            with pytest.raises(error, match=says):
                draw(adata, color=color, ax=None if error is KeyError else ax)
        assert plt.get_fignums() == figures
        assert draw(adata, color=["type"], ax=ax) is ax

    def test_the_title_is_that_of_the_figure(self, adata):
        axes = ht.pl.tree(adata, color=["type", "time"], title="both", figsize=(9, 3), show=False)
        figure = axes[0].get_figure(root=True)
        assert figure.get_suptitle() == "both"
        assert figure.get_size_inches().tolist() == [9, 3]

    def test_panels_of_genes_take_one_colour(self, adata):
        with pytest.raises(ValueError, match="color: 2 given"):
            ht.pl.gene_trends(adata, genes="geneA", color=["type", "time"], show=False)


NASTY = {"A": "$x_1$", "B": "IL-2 ($^$)", "C": r"_a\b {50}%"}


class TestNamesAsSpelled:
    @pytest.fixture
    def named(self, adata):
        """Names that mathtext would typeset or cannot read, everywhere a plot takes one from."""
        adata.obs["$k$"] = adata.obs["type"].cat.rename_categories(NASTY)
        adata.obs["$t$"] = adata.obs["time"]
        adata.var_names = ["$g_1$", "$^$", "c"]
        adata.obsm["X_$m$"] = adata.obsm["X_umap"]
        paths = adata.uns["hdtree"]["paths"]
        adata.uns["hdtree"]["paths"] = {"$^$ -> $x_1$": paths["0.0 -> 1"].assign(groupby="$k$")}
        adata.uns["hdtree"]["last_path"] = "$^$ -> $x_1$"
        fate = adata.obs["$k$"].cat.remove_categories([NASTY["C"]]).fillna(NASTY["A"])
        adata.obs["hdtree_fate"], adata.obs["hdtree_terminal"] = fate, fate
        ends = pd.get_dummies(fate).astype(float)
        adata.obsm["hdtree_fates"] = ends.set_axis(list(map(str, ends.columns)), axis=1)
        return adata

    @pytest.mark.parametrize(
        "draw",
        [
            lambda a: ht.pl.tree(a, color="$k$", show=False),
            lambda a: ht.pl.tree(a, color=["$k$", "$^$"], orientation="left", show=False),
            lambda a: ht.pl.tree(a, color="$k$", legend_loc="upper left", show=False),
            lambda a: ht.pl.tree_on_embedding(a, color="$k$", basis="$m$", show=False),
            lambda a: ht.pl.tree_on_embedding(a, color=["$k$", "$g_1$"], legend_loc="on data", show=False),
            lambda a: ht.pl.pseudotime(a, groupby="$k$", time_key="$t$", show=False),
            lambda a: ht.pl.pseudotime(a, time_key="$t$", show=False),
            lambda a: ht.pl.lineage_path(a, show=False),
            lambda a: ht.pl.lineage_path(a, color=["$k$", "$^$"], show=False),
            lambda a: ht.pl.fates(a, show=False),
            lambda a: ht.pl.fates(a, panels=True, show=False),
            lambda a: ht.pl.fates(a, groupby="$k$", show=False),
            lambda a: ht.pl.path_heatmap(a, show=False),
            lambda a: ht.pl.gene_trends(a, genes=["$g_1$", "$^$"], show=False),
            lambda a: ht.pl.gene_trends(a, {"$^$": None, "$x_1$": None}, genes="$g_1$", show=False),
            lambda a: ht.pl.training({"train_loss_$^$": pd.DataFrame({"x": [2.0, 1.0]})}, show=False),
        ],
    )
    def test_no_name_is_mathematics(self, named, draw):
        figure = np.ravel(draw(named))[0].get_figure(root=True)
        figure.canvas.draw()
        names = [text for text in figure.findobj(Text) if "$" in text.get_text()]
        assert names
        assert [text.get_text() for text in names if text.get_parse_math()] == []

    def test_axes_of_the_user_are_no_exception(self, named):
        figure, ax = plt.subplots()
        ax.set_title("before")
        figure.canvas.draw()  # its ticks are made
        ht.pl.pseudotime(named, groupby="$k$", ax=ax)
        figure.canvas.draw()
        assert sum("$" in text.get_text() for text in ax.get_yticklabels()) == 2

    def test_what_the_user_writes_may_be_mathematics(self, named):
        ax = ht.pl.tree(named, color="type", title=r"$\alpha$", show=False)
        assert ax.title.get_parse_math()
        assert ht.pl.tree(named, color="type", show=False).title.get_parse_math()

    def test_tex_reads_no_name(self):
        with plt.rc_context({"text.usetex": True}):
            assert _style.literal("a_b") == _style.literal("5 %") == _style.literal("\u03b2") == {"usetex": False}
            assert _style.literal("T cells") == {}

    def test_logarithmic_axes_keep_their_powers(self):
        ax = ht.pl.training({"train_loss": pd.DataFrame({"x": [1e3, 1.0]})}, log=True, show=False)
        ax.figure.canvas.draw()
        assert all(text.get_parse_math() for text in ax.get_yticklabels())


class TestColumns:
    def test_a_gene_that_is_there_twice_is_refused_by_name(self, adata):
        adata.var_names = ["twice", "twice", "once"]
        draws = [
            lambda: ht.pl.tree(adata, color="twice", show=False),
            lambda: ht.pl.tree_on_embedding(adata, color=["type", "twice"], show=False),
            lambda: ht.pl.lineage_path(adata, color="twice", show=False),
            lambda: ht.pl.gene_trends(adata, genes=["once", "twice"], show=False),
            lambda: ht.pl.path_heatmap(adata, genes=["twice"], show=False),
        ]
        for draw in draws:
            with pytest.raises(ValueError, match="'twice' more than once; make the names unique"):
                draw()
        assert _cells.cell_values(adata, "once").values.sum() == 30

    def test_of_a_column_and_a_gene_of_one_name_the_column_is_drawn_and_that_is_said(self, adata):
        adata.obs["geneA"] = np.arange(80.0)
        with pytest.warns(UserWarning, match="color='geneA' is a column of adata.obs and a gene: the column is drawn"):
            ax = ht.pl.tree(adata, color="geneA", show=False)
        heat = next(c for c in ax.collections if c.get_array() is not None)
        assert np.asarray(heat.get_array())[0] == 39.5

    @pytest.mark.parametrize(
        "column", [np.full(80, np.nan), np.full(80, np.inf), pd.Categorical([None] * 80, categories=["A"])]
    )
    def test_a_column_without_values_is_refused_by_name(self, adata, column):
        adata.obs["empty"] = column
        for draw in SEVERAL.values():
            with pytest.raises(ValueError, match=r"adata.obs\['empty'\] holds no values"):
                draw(adata, color="empty")

    def test_true_and_false_are_categories(self, adata):
        adata.obs["bool"] = np.arange(80) % 4 == 0
        adata.obs["gaps"] = pd.array([True, False, None, True] * 20, dtype="boolean")
        assert entries(ht.pl.tree(adata, color="bool", show=False))[:2] == ["False", "True"]
        assert entries(ht.pl.tree(adata, color="gaps", show=False))[:3] == ["False", "True", "NA"]
        assert "bool_colors" not in adata.uns

    @pytest.mark.parametrize(
        "draw", [*list(SEVERAL.values())[:2], lambda a, **m: ht.pl.pseudotime(a, groupby=m["color"], show=False)]
    )
    def test_categories_that_no_cell_has_any_more_are_not_named(self, adata, draw):
        ht.pl.tree(adata, color="type", show=False)
        part = adata[adata.obs["type"] != "A"].copy()
        part.obs["type"] = part.obs["type"].astype(object).astype(pd.CategoricalDtype(["A", "B", "C", "D"]))
        part.uns["type_colors"] = [*adata.uns["type_colors"], "#000000"]
        ax = draw(part, color="type")
        names = entries(ax) or [label.get_text().split()[0] for label in ax.get_yticklabels()]
        assert not {"A", "D"} & set(names)
        assert part.uns["type_colors"][:3] == adata.uns["type_colors"]

    def test_names_that_begin_with_an_underscore_are_in_the_legend(self, adata):
        adata.obs["type"] = adata.obs["type"].cat.rename_categories({"A": "_A"})
        for loc in ("right margin", "upper left"):
            assert "_A" in entries(ht.pl.tree(adata, color="type", legend_loc=loc, show=False))


class TestDoor:
    @pytest.mark.parametrize(
        ("call", "error", "says"),
        [
            (lambda a: ht.pl.tree(a, color="typ"), KeyError, "'type'"),
            (lambda a: ht.pl.tree(a, color="genA"), KeyError, "'geneA'"),
            (lambda a: ht.pl.tree(a, color="geneA", layer="no"), KeyError, "layer='no'"),
            (lambda a: ht.pl.tree(a, color="geneA", use_raw=True), ValueError, "adata.raw"),
            (lambda a: ht.pl.tree(a, groupby="no"), KeyError, "'type'"),
            (lambda a: ht.pl.tree(a, key="treevae"), KeyError, "hdtree_sc.tl.tree"),
            (lambda a: ht.pl.tree(a, orientation="up"), ValueError, "'left'"),
            (lambda a: ht.pl.tree(a, max_leaves=0), ValueError, "max_leaves=0"),
            (lambda a: ht.pl.tree(a, color="time", cmap="no"), ValueError, "cmap='no'"),
            (lambda a: ht.pl.tree_on_embedding(a, basis="tsne"), KeyError, "'X_umap'"),
            (lambda a: ht.pl.tree_on_embedding(a, edges="all"), ValueError, "'graph'"),
            (lambda a: ht.pl.pseudotime(a, time_key="type"), ValueError, "groupby='type'"),
            (lambda a: ht.pl.pseudotime(a, time_key="no"), KeyError, "'time'"),
            (lambda a: ht.pl.pseudotime(a, groupby="no"), KeyError, "'type'"),
            (lambda a: ht.pl.lineage_path(a, path="x -> y"), KeyError, "0.0 -> 1"),
            (lambda a: ht.pl.lineage_path(a, path=pd.DataFrame({"node": ["7"]})), KeyError, "'7'"),
            (lambda a: ht.pl.lineage_path(a, path=pd.DataFrame({"step": [1]})), ValueError, "node"),
        ],
    )
    def test_errors_name_what_was_given_and_what_there_is(self, adata, call, error, says):
        figures = plt.get_fignums()
        with pytest.raises(error) as raised:
            call(adata)
        assert says in str(raised.value)
        assert plt.get_fignums() == figures  # nothing empty is left behind

    @pytest.mark.parametrize(
        ("field", "call", "says"),
        [
            ("graph", lambda a: ht.pl.tree_on_embedding(a, edges="graph"), "tl.lineage_graph"),
            ("paths", lambda a: ht.pl.lineage_path(a), "tl.lineage_path"),
        ],
    )
    def test_what_was_not_computed_is_asked_for(self, adata, field, call, says):
        del adata.uns["hdtree"][field]
        with pytest.raises(KeyError, match=says):
            call(adata)

    def test_pseudotime_has_to_be_computed_first(self, adata):
        del adata.obs["hdtree_pseudotime"]
        with pytest.raises(KeyError, match="tl.pseudotime"):
            ht.pl.pseudotime(adata)

    def test_figures_are_shown_and_returned_as_in_scanpy(self, adata, monkeypatch):
        shown = []
        monkeypatch.setattr(plt, "show", lambda: shown.append(1))
        assert ht.pl.tree(adata) is None
        assert ht.pl.tree(adata, show=False) is not None
        _, ax = plt.subplots()
        assert ht.pl.tree(adata, ax=ax) is ax
        assert len(shown) == 1
        scanpy = pytest.importorskip("scanpy")
        autoshow, scanpy.settings.autoshow = scanpy.settings.autoshow, False
        try:
            assert ht.pl.tree(adata) is not None
        finally:
            scanpy.settings.autoshow = autoshow
        assert len(shown) == 1

    def test_drawing_needs_neither_torch_nor_scanpy(self):
        code = "import sys, hdtree_sc.pl; print({'torch', 'scvi', 'scanpy', 'seaborn'} & set(sys.modules))"
        assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_bundled_cells_read_back_from_a_file(tmp_path):
    """The real data set with a tree of its types: colours of the file, nine names, both bases, after a round trip."""
    adata = ht.datasets.celegans()
    kinds = list(adata.obs["cell_type"].cat.categories)
    tree = Tree(["root", *kinds], [-1] + [0] * len(kinds))
    adata.obs["hdtree_leaf"] = pd.Categorical(adata.obs["cell_type"], categories=kinds)
    adata.obsm["X_hdtree_2d"] = np.column_stack([adata.obs["time"], adata.obs["cell_type"].cat.codes]).astype("float32")
    adata.uns["hdtree"] = {"nodes": tree.to_frame()}
    adata.uns["cell_type_colors"] = _style.default_palette(9)[::-1]
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    ax = ht.pl.tree(back, color="cell_type", show=False)
    assert labels(ax) == [f"{kind} 100%" for kind in kinds]
    assert list(back.uns["cell_type_colors"]) == _style.default_palette(9)[::-1]
    assert entries(ht.pl.tree_on_embedding(back, color="cell_type", show=False)) == kinds
