"""Tree, lineage graph, pseudotime and paths on AnnData."""

from itertools import pairwise

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components
from scipy.stats import spearmanr

import hdtree_sc as ht
from hdtree_sc.tl._lineage_path import least_cells, shortest_way


def earliest(adata):
    """Name of the medoid of the earliest cells."""
    early = np.flatnonzero(adata.obs["time"] <= np.percentile(adata.obs["time"], 2))
    points = adata.obsm["X_hdtree"][early]
    return adata.obs_names[early[np.square(points - points.mean(0)).sum(1).argmin()]]


def on_a_fork(n=300, gap=0.0, seed=0):
    """Cells on a Y in the plane: a stem from 0 to 1, arms to (2, 1) and (2, -1); ``gap`` moves the second arm away."""
    rng = np.random.default_rng(seed)
    arm, along = rng.integers(0, 3, n), rng.random(n)
    ends = np.array([[0, 0], [1, 0], [1, 0]]), np.array([[1, 0], [2, 1], [2, -1]])
    points = ends[0][arm] + along[:, None] * (ends[1] - ends[0])[arm]
    points[arm == 2] += [0, -gap]
    adata = AnnData(np.zeros((n, 1), np.float32), obs=pd.DataFrame({"arm": np.array(["stem", "up", "down"])[arm]}))
    adata.obs_names = [f"c{i}" for i in range(n)]
    adata.obs["true"] = along + (arm > 0)
    adata.obsm["X_hdtree"] = (points + 0.01 * rng.normal(size=points.shape)).astype(np.float32)
    tree = ht.Tree.from_newick("(stem:3,(up:1,down:1)arms:2)root;")
    adata.uns["hdtree"] = {"nodes": tree.to_frame(), "codebook": np.zeros((len(tree), 2), np.float32)}
    adata.obs["hdtree_leaf"] = pd.Categorical(adata.obs["arm"], categories=list(tree.leaves))
    return adata


# -- tl.tree -------------------------------------------------------------------------------------------------


def test_the_schema_is_complete_and_agrees_with_itself(annotated, model):
    nodes, tree = annotated.uns["hdtree"]["nodes"], ht.get.tree(annotated)
    assert list(nodes.columns[:5]) == ["parent", "level", "n_cells", "is_leaf", "height"]
    assert nodes.loc["root", "n_cells"] == annotated.n_obs
    assert nodes.loc[nodes["is_leaf"], "n_cells"].sum() == annotated.n_obs
    codes = annotated.obsm["hdtree_codes"]
    assert codes.dtype == np.int32
    names = [".".join(str(c) for c in row if c >= 0) for row in codes]
    assert names == list(annotated.obs["hdtree_leaf"].astype(str))
    assert list(annotated.obs["hdtree_leaf"].cat.categories) == list(tree.leaves)
    probabilities = annotated.obsm["hdtree_path_probs"]
    assert (probabilities[codes < 0] == 0).all()
    inside = codes[:, 1:] >= 0
    assert (probabilities[:, 1:][inside] <= probabilities[:, :-1][inside] + 1e-6).all(), (
        "a part is no likelier than the whole"
    )
    depth = (codes >= 0).sum(1) - 1
    np.testing.assert_allclose(
        annotated.obs["hdtree_leaf_prob"], probabilities[np.arange(len(codes)), depth], atol=1e-6
    )
    assert annotated.uns["hdtree"]["params"]["model"] == "HDTree"
    np.testing.assert_allclose(annotated.uns["hdtree"]["codebook"], model.get_tree().codebook)


def test_values_stay_as_they_are_and_copy_leaves_the_original_alone(worm, model):
    adata = worm.copy()
    out = ht.tl.tree(adata, model, copy=True, key_added="mine")
    assert "mine" not in adata.uns
    assert "mine_leaf" in out.obs
    assert ht.tl.tree(adata, model) is None
    assert (adata.X != worm.X).nnz == 0


def test_everything_survives_h5ad_and_zarr(annotated, tmp_path):
    ht.tl.pseudotime(annotated, root=earliest(annotated))
    ht.tl.lineage_path(annotated, "Neuroblast_ASG_AWA", "ASG", groupby="cell_type")
    annotated.write_h5ad(tmp_path / "a.h5ad")
    annotated.write_zarr(tmp_path / "a.zarr")
    for again in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        assert ht.get.tree(again) == ht.get.tree(annotated)
        np.testing.assert_array_equal(again.obsm["X_hdtree"], annotated.obsm["X_hdtree"])
        assert (again.obs["hdtree_leaf"].astype(str) == annotated.obs["hdtree_leaf"].astype(str)).all()
        before = again.obs["hdtree_pseudotime"].copy()
        ht.tl.pseudotime(again, root=earliest(annotated))
        np.testing.assert_allclose(again.obs["hdtree_pseudotime"], before)
        table = ht.tl.lineage_path(again, "ASG", "AWA", groupby="cell_type")
        assert len(again.uns["hdtree"]["paths"]) == 2
        assert len(table) >= 2


# -- lineage graph -------------------------------------------------------------------------------------------


def test_the_graph_is_connected_with_positive_costs(annotated):
    graph = annotated.uns["hdtree"]["graph"]
    tree = ht.get.tree(annotated)
    assert (graph["weight"] > 0).all()
    assert set(graph["kind"]) <= {"knn", "bridge", "tree"}
    assert (graph["kind"] == "tree").sum() == len(tree) - 1
    distances = annotated.obsp["hdtree_distances"]
    assert connected_components(distances)[0] == 1
    assert abs(distances - distances.T).max() < 1e-5
    connectivities = annotated.obsp["hdtree_connectivities"]
    assert connectivities.max() <= 1
    assert connected_components(connectivities)[0] == 1
    # what is trusted is a part of what is near
    assert ((connectivities != 0) > (distances != 0)).nnz == 0


def test_a_common_ancestor_never_cuts_short_what_cells_support(annotated):
    import networkx as nx

    graph, tree = annotated.uns["hdtree"]["graph"], ht.get.tree(annotated)
    own = nx.from_pandas_edgelist(graph[graph["kind"] != "tree"], "source", "target", "weight")
    full = nx.from_pandas_edgelist(graph, "source", "target", "weight")
    root = tree.leaves[0]
    over_cells = nx.single_source_dijkstra_path_length(own, root)
    over_all = nx.single_source_dijkstra_path_length(full, root)
    assert all(over_all[leaf] == pytest.approx(over_cells[leaf]) for leaf in tree.leaves)


def test_scanpy_takes_the_cell_graph(annotated):
    import scanpy as sc

    sc.tl.diffmap(annotated, neighbors_key="hdtree_neighbors", n_comps=5)
    assert annotated.obsm["X_diffmap"].shape[1] == 5


def test_parts_that_no_cell_joins_are_bridged():
    adata = on_a_fork(gap=50)
    ht.tl.lineage_graph(adata)
    graph = adata.uns["hdtree"]["graph"]
    assert (graph["kind"] == "bridge").sum() == 1
    assert connected_components(adata.obsp["hdtree_distances"])[0] == 1
    ht.tl.pseudotime(adata, root_key="arm", root_value="stem")
    time = adata.obs["hdtree_pseudotime"]
    assert np.isfinite(time).all()
    assert time[adata.obs["arm"] == "down"].min() > time[adata.obs["arm"] == "up"].max(), "beyond the gap is far"


@pytest.mark.parametrize("n_neighbors", [0, -3])
def test_no_neighbours_are_too_few(annotated, n_neighbors):
    with pytest.raises(ValueError, match="n_neighbors"):
        ht.tl.lineage_graph(annotated, n_neighbors=n_neighbors)


# -- pseudotime ----------------------------------------------------------------------------------------------


def test_cells_on_a_fork_are_ordered_along_both_arms():
    adata = on_a_fork()
    ht.tl.lineage_graph(adata)
    ht.tl.pseudotime(adata, root=adata.obs_names[int(adata.obs["true"].argmin())])
    for arm in ("stem", "up", "down"):
        part = adata.obs[adata.obs["arm"] == arm]
        assert spearmanr(part["hdtree_pseudotime"], part["true"])[0] > 0.97
    assert spearmanr(adata.obs["hdtree_pseudotime"], adata.obs["true"])[0] > 0.97


def test_pseudotime_follows_embryo_time_in_c_elegans(annotated):
    ht.tl.pseudotime(annotated, root=earliest(annotated))
    time = annotated.obs["hdtree_pseudotime"]
    assert time.between(0, 1).all()
    assert time[annotated.uns["hdtree"]["pseudotime"]["root_cell"]] == 0
    assert spearmanr(time, annotated.obs["time"])[0] > 0.8
    nodes = annotated.uns["hdtree"]["nodes"]
    assert nodes.loc["root", "pseudotime"] == pytest.approx(time.mean())


def test_nodes_of_a_subset_have_its_cells_and_their_mean(annotated):
    emptied = annotated.obs["hdtree_leaf"].iloc[0]
    part = annotated[(annotated.obs["hdtree_leaf"] != emptied).to_numpy()].copy()
    ht.tl.lineage_graph(part)
    ht.tl.pseudotime(part, root=part.obs_names[0])
    nodes = part.uns["hdtree"]["nodes"]
    assert nodes.loc["root", "n_cells"] == part.n_obs
    assert nodes.loc[emptied, "n_cells"] == 0
    assert np.isnan(nodes.loc[emptied, "pseudotime"])
    held = part.obs.groupby("hdtree_leaf", observed=True)["hdtree_pseudotime"].mean()
    np.testing.assert_allclose(nodes.loc[held.index, "pseudotime"], held)


def test_a_root_is_a_cell_a_node_or_a_group(annotated):
    tree = ht.get.tree(annotated)
    ht.tl.pseudotime(annotated, root=tree.leaves[3])
    assert annotated.uns["hdtree"]["pseudotime"]["root_node"] == tree.leaves[3]
    ht.tl.pseudotime(annotated, root_key="cell_type", root_value="ADL")
    assert annotated.obs.loc[annotated.uns["hdtree"]["pseudotime"]["root_cell"], "cell_type"] == "ADL"
    out = (
        ht.tl.pseudotime(annotated, root_key="embryo_time_bin", root_value="510-580", copy=True)
        if ("510-580" in set(annotated.obs["embryo_time_bin"].astype(str)))
        else ht.tl.pseudotime(annotated, root=tree.leaves[0], copy=True)
    )
    assert out is not annotated


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, ValueError, "root"),
        ({"root": "no such cell"}, ValueError, "no such cell"),
        ({"root": "0", "root_key": "cell_type"}, ValueError, "one start"),
        ({"root_key": "cell_type"}, ValueError, "root_value"),
        ({"root_key": "cell_type", "root_value": "Martian"}, ValueError, "Martian.*ASG"),
        ({"root_key": "nope", "root_value": "ASG"}, KeyError, "nope.*cell_type"),
    ],
)
def test_a_root_that_does_not_exist(annotated, arguments, error, words):
    before = annotated.obs.copy()
    with pytest.raises(error, match=words):
        ht.tl.pseudotime(annotated, **arguments)
    pd.testing.assert_frame_equal(annotated.obs, before)


def test_what_to_run_first_is_said(worm, model):
    adata = worm.copy()
    with pytest.raises(KeyError, match=r"tl\.tree"):
        ht.tl.lineage_graph(adata)
    with pytest.raises(KeyError, match=r"tl\.tree"):
        ht.tl.pseudotime(adata, root=adata.obs_names[0])
    ht.tl.tree(adata, model)
    with pytest.raises(KeyError, match=r"tl\.lineage_graph"):
        ht.tl.pseudotime(adata, root=adata.obs_names[0])
    with pytest.raises(KeyError, match=r"tl\.lineage_graph"):
        ht.tl.lineage_path(adata, "ASG", "AWA", groupby="cell_type")


# -- paths ---------------------------------------------------------------------------------------------------


def test_a_path_leads_from_the_mother_to_the_neuron(annotated):
    table = ht.tl.lineage_path(annotated, "Neuroblast_ASG_AWA", "ASG", groupby="cell_type")
    assert table["composition"].iloc[0] == "Neuroblast_ASG_AWA"
    assert table["composition"].iloc[-1] == "ASG"
    assert list(table["order"]) == list(range(len(table)))
    assert table["distance"].iloc[0] == 0
    assert (np.diff(table["distance"]) > 0).all()
    assert table["share"].between(0, 1).all()
    kept = annotated.uns["hdtree"]["paths"][annotated.uns["hdtree"]["last_path"]]
    pd.testing.assert_frame_equal(kept, table)


def test_paths_between_nodes_and_cells(annotated):
    tree = ht.get.tree(annotated)
    first, last = tree.leaves[0], tree.leaves[-1]
    table = ht.tl.lineage_path(annotated, first, last)
    assert table["node"].iloc[0] == first
    assert table["node"].iloc[-1] == last
    assert "composition" not in table
    cell = annotated.obs_names[annotated.obs["hdtree_leaf"] == last][0]
    assert list(ht.tl.lineage_path(annotated, first, cell)["node"]) == list(table["node"])
    assert len(ht.tl.lineage_path(annotated, first, first)) == 1
    back = ht.tl.lineage_path(annotated, last, first)
    assert list(back["node"]) == list(table["node"])[::-1]


def test_paths_between_groups_hold_leaves_only_each_cell_once_and_are_the_same_back(annotated):
    """They start at the leaf of the medoid, as pseudotime does."""
    types = annotated.obs["cell_type"].cat.categories
    tree = ht.get.tree(annotated)
    paths = {(a, b): ht.tl.lineage_path(annotated, a, b, groupby="cell_type") for a in types for b in types if a != b}
    for (a, b), path in paths.items():
        assert set(path["node"]) <= set(tree.leaves)
        assert path["node"].is_unique
        assert path["n_cells"].tolist() == tree.n_cells[tree.index(path["node"])].tolist()
        assert list(path["node"]) == list(paths[b, a]["node"])[::-1]
    for a in types:
        ht.tl.pseudotime(annotated, root_key="cell_type", root_value=a)
        assert {paths[a, b]["node"].iloc[0] for b in types if b != a} == {
            annotated.uns["hdtree"]["pseudotime"]["root_node"]
        }


def test_an_inner_node_stands_for_its_cells_as_in_pseudotime(annotated):
    tree = ht.get.tree(annotated)
    inner, other = (max(tree.children(tree.root), key=lambda n: tree.n_cells[tree.index(n)]), tree.leaves[0])
    path = ht.tl.lineage_path(annotated, inner, other)
    ht.tl.pseudotime(annotated, root=inner)
    assert path["node"].iloc[0] == annotated.uns["hdtree"]["pseudotime"]["root_node"]
    assert path["node"].iloc[0] in tree.subtree_leaves(inner)
    assert set(path["node"]) <= set(tree.leaves)


def test_to_a_leaf_without_cells_the_way_is_over_the_tree_and_no_cell_is_counted_twice(annotated):
    tree = ht.get.tree(annotated)
    start, empty = tree.leaves[0], tree.leaves[-1]
    part = annotated[(annotated.obs["hdtree_leaf"] != empty).to_numpy()].copy()
    ht.tl.lineage_graph(part)
    path = ht.tl.lineage_path(part, start, empty)
    is_inner = ~path["node"].isin(tree.leaves).to_numpy()
    assert path["node"].iloc[[0, -1]].tolist() == [start, empty]
    assert is_inner.any(), "no cell says where the leaf is"
    assert (path["n_cells"][is_inner] == 0).all()
    back = ht.tl.lineage_path(part, empty, start)
    assert list(back["node"]) == list(path["node"])[::-1]


def test_cells_without_a_leaf_are_left_out_of_paths_and_named_elsewhere(annotated):
    annotated.obs.iloc[:7, annotated.obs.columns.get_loc("hdtree_leaf")] = np.nan
    path = ht.tl.lineage_path(annotated, "ASG", "AWA", groupby="cell_type")
    counts = annotated.obs["hdtree_leaf"].value_counts()
    assert path["n_cells"].tolist() == counts[path["node"]].tolist()
    assert ht.get.tree(annotated).n_cells[0] == annotated.n_obs - 7
    for call in (ht.tl.lineage_graph, lambda a: ht.tl.pseudotime(a, root_key="cell_type", root_value="ASG")):
        with pytest.raises(ValueError, match="hdtree_leaf.*7 cells are on no node"):
            call(annotated)


EIGHT = ht.Tree.from_newick("(((a:1,b:1):1,(c:1,d:1):1):1,((e:1,f:1):1,(g:1,h:1):1):1);")


@st.composite
def graphs(draw):
    """The tree of eight leaves and edges between them, with lengths that are often equal, some leaves small."""
    pairs = [(a, b) for i, a in enumerate(EIGHT.leaves) for b in EIGHT.leaves[i + 1 :]]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=16))
    length = [draw(st.sampled_from([0.1, 0.2, 0.3, 0.5])) for _ in chosen]
    child = list(EIGHT.nodes[1:])
    edges = pd.DataFrame(
        {
            "source": [a for a, _ in chosen] + [EIGHT.parent(n) for n in child],
            "target": [b for _, b in chosen] + child,
            "kind": ["knn"] * len(chosen) + ["tree"] * len(child),
            "weight": length + [0.1] * len(child),
        }
    )
    small = np.zeros(len(EIGHT), dtype=bool)
    small[EIGHT.index(draw(st.lists(st.sampled_from(EIGHT.leaves), unique=True, max_size=4)))] = True
    ends = draw(st.lists(st.sampled_from(EIGHT.leaves), unique=True, min_size=2, max_size=2))
    return edges, small, *(EIGHT.index(end) for end in ends)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs())
def test_the_way_is_the_shortest_that_cells_support_and_that_avoids_small_leaves(drawn):
    import networkx as nx

    edges, small, start, end = drawn
    route, way = shortest_way(EIGHT, edges, small, start, end)
    assert route[[0, -1]].tolist() == [start, end]
    assert len(set(route)) == len(route)
    assert way[0] == 0
    assert (np.diff(way) > 0).all()
    back, _ = shortest_way(EIGHT, edges.sample(frac=1, random_state=0), small, end, start)
    assert back.tolist() == route[::-1].tolist()
    cells = nx.from_pandas_edgelist(edges[edges["kind"] == "knn"], "source", "target", "weight")
    cells.add_nodes_from(EIGHT.leaves)
    a, b = EIGHT.nodes[start], EIGHT.nodes[end]
    large = cells.subgraph([n for n in EIGHT.leaves if not small[EIGHT.index(n)] or n in (a, b)])
    for allowed in (large, cells):
        if nx.has_path(allowed, a, b):
            names = [EIGHT.nodes[i] for i in route]
            assert all(allowed.has_edge(*pair) for pair in pairwise(names))
            shortest = nx.dijkstra_path_length(allowed, a, b) if allowed is large else way[-1]
            assert way[-1] == pytest.approx(shortest)
            return
    assert not EIGHT.is_leaf_mask[route].all(), "the tree is the only way"


def test_a_small_leaf_is_no_stepping_stone_unless_there_is_no_other_way():
    adata = on_a_fork()
    adata = adata[~((adata.obs["arm"] == "up") & (adata.obs["arm"].eq("up").cumsum() > 5))].copy()
    ht.tl.lineage_graph(adata)
    ends = [("stem", "up"), ("up", "down"), ("stem", "down")]
    graph = pd.DataFrame(ends, columns=["source", "target"]).assign(kind="knn", weight=[1.0, 1.0, 5.0])
    adata.uns["hdtree"]["graph"] = graph
    assert ht.tl.lineage_path(adata, "stem", "down")["distance"].tolist() == [0, 5]
    assert list(ht.tl.lineage_path(adata, "stem", "down", min_cells=5)["node"]) == ["stem", "up", "down"]
    assert list(ht.tl.lineage_path(adata, "stem", "up")["node"]) == ["stem", "up"]
    adata.uns["hdtree"]["graph"] = graph.iloc[:2]
    assert ht.tl.lineage_path(adata, "stem", "down")["n_cells"].tolist()[1] == 5
    with pytest.raises(ValueError, match="min_cells: -1"):
        ht.tl.lineage_path(adata, "stem", "up", min_cells=-1)


def test_what_is_small_is_as_the_model_says_and_less_of_few_cells():
    assert least_cells({}, 1000) == 10
    assert least_cells({"min_cells": 30}, 1000) == 30
    assert least_cells({"min_leaf_size": 7}, 1000) == 7
    assert least_cells({"min_cells": 30}, 100) == 5
    assert least_cells({}, 10) == 2


def test_ends_that_do_not_exist(annotated):
    with pytest.raises(ValueError, match="Martian.*ASG"):
        ht.tl.lineage_path(annotated, "ASG", "Martian", groupby="cell_type")
    with pytest.raises(ValueError, match="source.*Martian.*groupby="):
        ht.tl.lineage_path(annotated, "Martian", "0")
    with pytest.raises(KeyError, match="nope"):
        ht.tl.lineage_path(annotated, "ASG", "AWA", groupby="nope")
