"""Trees on fewer nodes: the cut that pays most, and the cut where neighbour links say so."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

import hdtree_sc as ht
from hdtree_sc import Tree
from hdtree_sc.graph._prune import modularity_gains, prune
from hdtree_sc.tl import _cut_tree

QUICK = settings(max_examples=50, deadline=None)


@st.composite
def shapes(draw, max_nodes=13):
    """A tree of any shape."""
    n = draw(st.integers(1, max_nodes))
    return Tree([f"n{i}" for i in range(n)], [-1, *(draw(st.integers(0, i - 1)) for i in range(1, n))])


def prunings(tree: Tree, node: str) -> list[frozenset[str]]:
    """Every set of splits that can be kept below a node: none, or its own with any choice below each child."""
    if tree.is_leaf(node):
        return [frozenset()]
    kept = [frozenset([node])]
    for child in tree.children(node):
        kept = [above | below for above in kept for below in prunings(tree, child)]
    return [frozenset(), *kept]


def splits(tree: Tree) -> set[str]:
    return {name for name in tree.nodes if not tree.is_leaf(name)}


@given(shapes(), st.data())
@QUICK
def test_no_other_pruning_gains_more(tree, data):
    gains = np.array(data.draw(st.lists(st.integers(-9, 9), min_size=len(tree), max_size=len(tree))))
    gains[tree.is_leaf_mask] = 0
    cut = prune(tree, gains)
    kept = splits(cut)
    best = max(sum(gains[tree.index(name)] for name in choice) for choice in prunings(tree, tree.root))
    assert sum(gains[tree.index(name)] for name in kept) == best
    assert kept in prunings(tree, tree.root), "what is kept hangs together from the root"
    if kept:
        assert best > 0


def test_a_split_that_does_not_pay_stays_for_one_below_that_does():
    tree = Tree.from_newick("(((a,b)ab,c)abc,(d,e)de)root;")
    gains = np.zeros(len(tree))
    for name, gain in {"root": -1, "abc": -1, "ab": 3, "de": -0.1}.items():
        gains[tree.index(name)] = gain
    cut = prune(tree, gains)
    assert cut.leaves == ("a", "b", "c", "de")
    gains[tree.index("ab")] = 1.5
    assert prune(tree, gains).nodes == ("root",), "1.5 does not pay for the two splits above it"


def random_links(tree: Tree, seed: int) -> np.ndarray:
    """Symmetric counts of links between the leaves, most of them within."""
    rng = np.random.default_rng(seed)
    leaf = np.flatnonzero(tree.is_leaf_mask)
    links = np.zeros((len(tree), len(tree)))
    links[np.ix_(leaf, leaf)] = rng.poisson(3, (len(leaf), len(leaf))) + np.diag(rng.poisson(5, len(leaf)))
    return links + links.T


@given(shapes(), st.integers(0, 1000), st.sampled_from([0.5, 1.0, 1.7]))
@QUICK
def test_gains_add_up_to_the_modularity_of_the_leaves(tree, seed, resolution):
    links = random_links(tree, seed)
    if not links.any():
        return
    graph = nx.Graph()
    for i, j in zip(*np.nonzero(np.triu(links)), strict=True):
        # a link within counts from both its ends in the matrix, and once as networkx's loop
        graph.add_edge(int(i), int(j), weight=links[i, j] / (2 if i == j else 1))
    gains = modularity_gains(tree, links, resolution=resolution)
    assert (gains[tree.is_leaf_mask] == 0).all()
    cut = prune(tree, gains)

    def modularity(shape: Tree) -> float:
        places = shape.index(shape.project(np.array(tree.nodes)[sorted(graph)], within=tree))
        groups = [{n for n, p in zip(sorted(graph), places, strict=True) if p == place} for place in set(places)]
        return nx.community.modularity(graph, groups, resolution=resolution)

    one = 1.0 - resolution
    assert gains.sum() == pytest.approx(modularity(tree) - one, abs=1e-9)
    kept = [tree.index(name) for name in splits(cut)]
    assert gains[kept].sum() == pytest.approx(modularity(cut) - one, abs=1e-9)
    assert modularity(cut) >= modularity(tree) - 1e-9


def test_without_any_link_nothing_is_worth_a_split():
    tree = Tree.from_newick("((a,b)ab,c)root;")
    assert prune(tree, modularity_gains(tree, np.zeros((5, 5)))).nodes == ("root",)


# -- cells on the cut tree -----------------------------------------------------------------------------------


def three_blobs(n: int = 300, seed: int = 0) -> AnnData:
    """Blobs at 0, 2 and 20 on a line; the tree cuts every one in two at random, which no cell supports."""
    rng = np.random.default_rng(seed)
    blob = rng.permutation(np.arange(n) % 3)
    points = np.c_[np.array([0.0, 2.0, 20.0])[blob], np.zeros(n)] + 0.1 * rng.normal(size=(n, 2))
    adata = AnnData(np.zeros((n, 1), np.float32))
    adata.obs_names = [f"c{i}" for i in range(n)]
    adata.obs["blob"] = np.array(["x", "y", "z"])[blob]
    adata.obs["hdtree_leaf"] = [f"{'xyz'[b]}{side}" for b, side in zip(blob, rng.integers(0, 2, n), strict=True)]
    adata.obsm["X_hdtree"] = points.astype(np.float32)
    tree = Tree.from_newick("(((x0:1,x1:1)x:2,(y0:1,y1:1)y:2)xy:3,(z0:1,z1:1)z:5)root;")
    nodes = tree.to_frame()
    held = adata.obs["hdtree_leaf"]
    nodes["n_cells"] = [held.isin(tree.subtree_leaves(name)).sum() for name in tree.nodes]
    adata.uns["hdtree"] = {"nodes": nodes, "codebook": np.zeros((len(tree), 2), np.float32)}
    return adata


def test_the_data_choose_the_groups_they_have():
    adata = three_blobs()
    ht.tl.cut_tree(adata)
    assert (adata.obs["hdtree_cut"].astype(str) == adata.obs["blob"]).all()
    assert list(adata.obs["hdtree_cut"].cat.categories) == ["x", "y", "z"], "in tree order"
    assert set(adata.obs["hdtree_cut"]) <= set(ht.get.tree(adata).nodes)


def test_a_higher_resolution_keeps_more_leaves_and_a_low_one_joins_nothing_without_links():
    adata = three_blobs()
    for resolution, n_leaves in ((0.1, 3), (1.0, 3), (30.0, 6)):
        ht.tl.cut_tree(adata, resolution=resolution)
        assert adata.obs["hdtree_cut"].nunique() == n_leaves


def test_counting_links_on_some_of_the_cells_gives_the_same_cut(monkeypatch):
    adata = three_blobs()
    monkeypatch.setattr(_cut_tree, "MAX_CELLS", 100)
    ht.tl.cut_tree(adata)
    assert (adata.obs["hdtree_cut"].astype(str) == adata.obs["blob"]).all()


def test_number_and_size_of_leaves_can_be_said(annotated):
    tree = ht.get.tree(annotated)
    for n_leaves in (1, 4, len(tree.leaves)):
        ht.tl.cut_tree(annotated, n_leaves)
        cut = tree.cut(n_leaves=n_leaves)
        assert tuple(annotated.obs["hdtree_cut"].cat.categories) == cut.leaves
        assert len(cut.leaves) <= n_leaves
    same = annotated.obs["hdtree_cut"].astype(str) == annotated.obs["hdtree_leaf"].astype(str)
    assert same.all(), "nothing is cut"
    out = ht.tl.cut_tree(annotated, min_cells=60, key_added="large", copy=True)
    assert out.obs["large"].value_counts().min() >= 60
    assert "large" not in annotated.obs


def test_every_cell_is_on_an_ancestor_of_its_leaf(annotated):
    ht.tl.cut_tree(annotated)
    tree = ht.get.tree(annotated)
    for cut, leaf in annotated.obs[["hdtree_cut", "hdtree_leaf"]].drop_duplicates().astype(str).to_numpy():
        assert leaf in tree.subtree_leaves(cut)


def test_cut_leaves_tell_cell_types_with_fewer_clusters(annotated):
    ht.tl.cut_tree(annotated)
    types, cut, leaf = (annotated.obs[name] for name in ("cell_type", "hdtree_cut", "hdtree_leaf"))
    assert 2 <= cut.nunique() < leaf.nunique()
    assert normalized_mutual_info_score(types, cut) > normalized_mutual_info_score(types, leaf) - 0.05


def test_cells_of_a_subset_are_counted(annotated):
    part = annotated[np.arange(annotated.n_obs) % 4 == 0].copy()
    tree = ht.get.tree(part)
    assert tree.n_cells[0] == part.n_obs
    counts = part.obs["hdtree_leaf"].value_counts()
    assert [tree.n_cells[tree.index(leaf)] for leaf in tree.leaves] == [counts[leaf] for leaf in tree.leaves]
    ht.tl.cut_tree(part, min_cells=30)
    assert part.obs["hdtree_cut"].value_counts().min() >= 30
    assert ht.get.tree(annotated).n_cells[0] == annotated.n_obs, "the whole is as it was"


def test_counts_stay_where_the_column_is_of_another_tree(annotated):
    annotated.obs["hdtree_leaf"] = "elsewhere"
    assert ht.get.tree(annotated).n_cells[0] == annotated.uns["hdtree"]["nodes"].loc["root", "n_cells"]
    del annotated.obs["hdtree_leaf"]
    assert ht.get.tree(annotated).n_cells[0] == annotated.uns["hdtree"]["nodes"].loc["root", "n_cells"]


def test_cells_without_a_leaf_are_in_no_group_of_a_cut(annotated):
    whole = ht.tl.cut_tree(annotated, 4, copy=True).obs["hdtree_cut"].astype(object)
    annotated.obs.iloc[:9, annotated.obs.columns.get_loc("hdtree_leaf")] = np.nan
    ht.tl.cut_tree(annotated, 4)
    assert annotated.obs["hdtree_cut"].isna().sum() == 9
    assert (annotated.obs["hdtree_cut"].astype(object)[9:] == whole[9:]).all()
    ht.tl.cut_tree(annotated)
    assert annotated.obs["hdtree_cut"].notna().sum() == annotated.n_obs - 9


def test_a_query_gets_the_cut_of_the_reference(annotated, model, worm):
    query = worm[(worm.obs["time"] < worm.obs["time"].median()).to_numpy()].copy()
    ht.tl.tree(query, ht.HDTree.load_query_data(query, model))
    assert query.uns["hdtree"]["params"]["is_query"]
    assert not annotated.uns["hdtree"]["params"]["is_query"]
    for arguments in ({}, {"min_cells": 40}, {"n_leaves": 8, "min_cells": 40}, {"resolution": 2.0}):
        ht.tl.cut_tree(annotated, **arguments)
        with pytest.raises(ValueError, match="reference: adata is a query"):
            ht.tl.cut_tree(query, **arguments)
        ht.tl.cut_tree(query, reference=annotated, **arguments)
        groups = list(annotated.obs["hdtree_cut"].cat.categories)
        assert list(query.obs["hdtree_cut"].cat.categories) == groups
    ht.tl.cut_tree(query, min_cells=40, reference=query)
    assert query.obs["hdtree_cut"].value_counts().min() >= 40
    # a number of leaves depends on the tree only
    ht.tl.cut_tree(annotated, 5)
    ht.tl.cut_tree(query, 5)
    assert list(query.obs["hdtree_cut"].cat.categories) == list(annotated.obs["hdtree_cut"].cat.categories)


def test_a_copy_of_the_training_cells_is_no_query(annotated, model, worm):
    """Its own cells choose, with genes in any order; other values, or some of the cells, are a query."""
    ht.tl.cut_tree(annotated)
    for copy in (worm.copy(), worm[:, ::-1]):
        again = ht.tl.tree(copy, model, copy=True)
        assert not again.uns["hdtree"]["params"]["is_query"]
        ht.tl.cut_tree(again)
        assert list(again.obs["hdtree_cut"]) == list(annotated.obs["hdtree_cut"])
    doubled = worm.copy()
    doubled.X = doubled.X * 2
    for other in (doubled, worm[::-1], worm[:50]):
        assert ht.tl.tree(other, model, copy=True).uns["hdtree"]["params"]["is_query"]


def test_a_reference_has_to_be_on_the_same_tree(annotated):
    other = three_blobs()
    with pytest.raises(ValueError, match="reference: its tree"):
        ht.tl.cut_tree(annotated, reference=other)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"resolution": 0}, ValueError, "resolution"),
        ({"n_neighbors": 0}, ValueError, "n_neighbors"),
        ({"n_leaves": 99}, ValueError, "n_leaves=99"),
        ({"min_cells": 0}, ValueError, "min_cells=0"),
        ({"key": "nope"}, KeyError, r"nope.*tl\.tree"),
    ],
)
def test_cuts_that_do_not_exist(arguments, error, words):
    adata = three_blobs()
    with pytest.raises(error, match=words):
        ht.tl.cut_tree(adata, **arguments)
    assert "hdtree_cut" not in adata.obs
