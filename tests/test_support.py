"""How sure a pseudotime and a tree are: intervals of cells, support of nodes and edges, parts that nothing joins."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse.csgraph import connected_components
from scipy.stats import rankdata, spearmanr
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

import hdtree_sc as ht
from hdtree_sc.graph import _tree_replicate
from hdtree_sc.graph._tree_replicate import Procedure, Replicate, Sample, rebuild
from hdtree_sc.growth import _split_support
from hdtree_sc.tl._tree_support import transfer_support


def on_tree(points, leaf, newick):
    """Cells at some points, on a tree that was made elsewhere."""
    tree = ht.Tree.from_newick(newick)
    adata = AnnData(np.zeros((len(points), 1), np.float32))
    adata.obs_names = [f"c{i}" for i in range(len(points))]
    adata.obsm["X_hdtree"] = np.asarray(points, np.float32)
    adata.obs["hdtree_leaf"] = pd.Categorical(leaf, categories=list(tree.leaves))
    nodes = tree.to_frame()
    adata.uns["hdtree"] = {"nodes": nodes, "codebook": np.zeros((len(tree), points.shape[1]), np.float32)}
    return adata


def two_lines(n=150, gap=20.0, seed=0):
    """Two lines of cells, far apart; the second is twice as long, and both begin at the same end."""
    rng = np.random.default_rng(seed)
    along = rng.random(2 * n)
    second = np.arange(2 * n) >= n
    points = np.c_[along * np.where(second, 2.0, 1.0), gap * second] + 0.005 * rng.normal(size=(2 * n, 2))
    adata = on_tree(points, np.where(second, "b", "a"), "(a:1,b:1)root;")
    adata.obs["along"] = along
    ht.tl.lineage_graph(adata, n_neighbors=10)
    return adata, second


@pytest.fixture(scope="module")
def simulated():
    """1,000 simulated cells of a tree with 4 tips, in components of their own counts, with a lineage graph."""
    import scanpy as sc

    adata = ht.datasets.branching(1000, 400, "easy", seed=1)
    logged = adata.copy()
    sc.pp.normalize_total(logged, target_sum=1e4)
    sc.pp.log1p(logged)
    points = PCA(10, random_state=0).fit_transform(logged.X.toarray())
    out = on_tree(points, np.full(1000, "0"), "(0:1)root;")
    out.obs["pt"] = adata.obs["pt"].to_numpy()
    ht.tl.lineage_graph(out)
    ht.tl.pseudotime(out, root=out.obs_names[int(out.obs["pt"].argmin())], n_boot=30)
    return out


# -- interval of a pseudotime --------------------------------------------------------------------------------


def test_the_interval_holds_the_estimate_and_is_written_beside_it(simulated):
    obs = simulated.obs
    low, time, high = (obs[f"hdtree_pseudotime{end}"] for end in ("_low", "", "_high"))
    assert ((low >= 0) & (low <= time) & (time <= high) & (high <= 1)).all()
    assert (obs["hdtree_pseudotime_sd"] > 0).mean() > 0.99
    assert simulated.uns["hdtree"]["pseudotime"]["n_boot"] == 30


def test_wide_intervals_are_where_the_order_is_wrong(simulated):
    obs, n = simulated.obs, simulated.n_obs
    error = np.abs(rankdata(obs["hdtree_pseudotime"]) - rankdata(obs["pt"])) / n
    ordered = np.sort(obs["hdtree_pseudotime"])
    ends = [np.searchsorted(ordered, obs[f"hdtree_pseudotime_{end}"]) / n for end in ("low", "high")]
    width = ends[1] - ends[0]
    narrow, wide = np.quantile(width, [1 / 3, 2 / 3])
    assert error[width >= wide].mean() > 1.3 * error[width <= narrow].mean()
    truth = rankdata(obs["pt"]) / n
    # a bootstrap sees scatter and not bias, so this is far from 95 %, as the docs say
    assert ((truth >= ends[0] - 1 / n) & (truth <= ends[1] + 1 / n)).mean() > 0.4


def test_fewer_cells_give_wider_intervals(simulated):
    few = simulated[::4].copy()
    ht.tl.lineage_graph(few)
    ht.tl.pseudotime(few, root=few.obs_names[int(few.obs["pt"].argmin())], n_boot=30)
    assert few.obs["hdtree_pseudotime_sd"].median() > 1.2 * simulated.obs["hdtree_pseudotime_sd"].median()


def test_replicates_repeat_with_their_seed_and_leave_the_order_alone(annotated):
    ht.tl.pseudotime(annotated, root_key="cell_type", root_value="Neuroblast_ASG_AWA")
    order = annotated.obs["hdtree_pseudotime"].copy()
    said = [
        ht.tl.pseudotime(
            annotated, root_key="cell_type", root_value="Neuroblast_ASG_AWA", n_boot=5, seed=seed, copy=True
        ).obs
        for seed in (0, 0, 1)
    ]
    assert said[0].equals(said[1])
    assert not said[0]["hdtree_pseudotime_low"].equals(said[2]["hdtree_pseudotime_low"])
    assert all((one["hdtree_pseudotime"] == order).all() for one in said)


def test_a_root_that_is_a_scattered_group_makes_the_beginning_uncertain(simulated):
    """The medoid of a resampled group moves, a cell named by the user only to its neighbours."""
    cells = simulated.copy()
    cells.obs["start"] = np.where(np.random.default_rng(0).random(cells.n_obs) < 0.02, "yes", "no")
    ht.tl.pseudotime(cells, root_key="start", root_value="yes", n_boot=20)
    of_group = cells.obs["hdtree_pseudotime_sd"].mean()
    ht.tl.pseudotime(cells, root=cells.uns["hdtree"]["pseudotime"]["root_cell"], n_boot=20)
    assert of_group > 1.2 * cells.obs["hdtree_pseudotime_sd"].mean()


def test_a_call_without_replicates_takes_the_interval_of_an_earlier_one_away(simulated):
    again = simulated.copy()
    ht.tl.pseudotime(again, root=again.obs_names[0])
    assert not [column for column in again.obs if column.startswith("hdtree_pseudotime_")]
    assert "hdtree_part" not in again.obs


def test_bad_arguments_are_refused_before_anything_is_written(annotated):
    before = annotated.obs.columns.tolist()
    with pytest.raises(ValueError, match="n_boot: 1 given"):
        ht.tl.pseudotime(annotated, root="root", n_boot=1)
    with pytest.raises(ValueError, match="disconnected: 'join' is unknown; choose 'bridge' or 'separate'"):
        ht.tl.pseudotime(annotated, root="root", disconnected="join")
    assert annotated.obs.columns.tolist() == before


# -- parts ---------------------------------------------------------------------------------------------------


def test_parts_that_only_bridges_join_are_said_and_bridged():
    adata, second = two_lines()
    with pytest.warns(UserWarning, match=r"2 parts that hardly any neighbours join .*disconnected='separate'"):
        ht.tl.pseudotime(adata, root=adata.obs_names[int(adata.obs["along"].to_numpy()[~second].argmin())])
    assert adata.uns["hdtree"]["pseudotime"]["n_parts"] == 2
    assert (adata.obs["hdtree_part"].astype(str).to_numpy() == np.where(second, "1", "0")).all()
    assert np.isfinite(adata.obs["hdtree_pseudotime"]).all()
    assert adata.obs["hdtree_pseudotime"][second].min() > adata.obs["hdtree_pseudotime"][~second].max()


def test_parts_can_have_orders_of_their_own():
    adata, second = two_lines()
    root = adata.obs_names[int(adata.obs["along"].to_numpy()[~second].argmin())]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ht.tl.pseudotime(adata, root=root, disconnected="separate", n_boot=20)
    time = adata.obs["hdtree_pseudotime"].to_numpy()
    starts = adata.obs_names.get_indexer(adata.uns["hdtree"]["pseudotime"]["starts"])
    assert starts[0] == adata.obs_names.get_loc(root)
    assert second[starts[1]]
    assert starts[1] in adata.obs_names.get_indexer(adata.uns["hdtree"]["bridges"].to_numpy().ravel())
    for part, start in zip((~second, second), starts, strict=True):
        assert (time[part].min(), time[part].max()) == (0, 1)
        away = np.abs(adata.obs["along"].to_numpy()[part] - adata.obs["along"].iloc[start])
        assert spearmanr(time[part], away)[0] > 0.95
    assert (adata.obs["hdtree_pseudotime_sd"] < 0.2).all()


def test_a_stray_link_does_not_make_one_part_of_two():
    """One odd cell half way has neighbours in both lines, so that no bridge is needed."""
    adata, second = two_lines()
    points = adata.obsm["X_hdtree"].copy()
    odd = np.flatnonzero(~second)[0]
    points[odd] = [0.5, 10.0]
    adata.obsm["X_hdtree"] = points
    ht.tl.lineage_graph(adata, n_neighbors=10)
    assert len(adata.uns["hdtree"]["bridges"]) == 0
    with pytest.warns(UserWarning, match="parts that hardly any neighbours join"):
        ht.tl.pseudotime(adata, root=adata.obs_names[np.flatnonzero(~second)[1]])
    others = np.flatnonzero(~second)[1:]
    assert adata.obs["hdtree_part"].iloc[others].nunique() == 1
    assert set(adata.obs["hdtree_part"].iloc[others]).isdisjoint(adata.obs["hdtree_part"][second])


def test_without_its_bridges_the_graph_falls_into_the_parts():
    adata, second = two_lines()
    bridges = adata.uns["hdtree"]["bridges"]
    ends = [adata.obs_names.get_indexer(bridges[end]) for end in ("source", "target")]
    assert (second[ends[0]] != second[ends[1]]).all()
    graph = adata.obsp["hdtree_distances"].tolil()
    assert connected_components(graph)[0] == 1
    graph[ends[0], ends[1]] = graph[ends[1], ends[0]] = 0
    assert connected_components(graph)[0] == 2


def test_a_graph_that_is_torn_has_a_finite_order_either_way():
    """Cells taken out after the graph was made may take the bridge with them."""
    adata, _ = two_lines()
    ends = adata.uns["hdtree"]["bridges"].to_numpy().ravel()
    torn = adata[~adata.obs_names.isin(ends)].copy()
    for disconnected in ("bridge", "separate"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ht.tl.pseudotime(torn, root=torn.obs_names[0], disconnected=disconnected, n_boot=5)
        assert torn.uns["hdtree"]["pseudotime"]["n_parts"] == 2
        assert np.isfinite(torn.obs.filter(like="hdtree_pseudotime").to_numpy()).all()


def test_connected_cells_are_one_part_and_nothing_is_said(annotated):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ht.tl.pseudotime(annotated, root="root")
        assert "hdtree_part" not in annotated.obs
        ht.tl.pseudotime(annotated, root="root", disconnected="separate")
    assert annotated.uns["hdtree"]["pseudotime"]["n_parts"] == 1
    assert (annotated.obs["hdtree_part"] == "0").all()


# -- support of a tree ---------------------------------------------------------------------------------------


def blobs(n=600, seed=0):
    """Four groups in two pairs; each group is cut in two at a random line through its middle, for no reason."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 4, n)
    centres = np.zeros((4, 8))
    centres[:, 0], centres[:, 1] = [-20, -20, 20, 20], [-8, 8, -8, 8]
    own = rng.normal(size=(n, 8))
    lines = rng.normal(size=(4, 8))
    side = ((own * lines[group]).sum(1) > 0).astype(int)
    leaf = np.array([f"{g // 2}.{g % 2}.{s}" for g, s in zip(group, side, strict=True)])
    pairs = ",".join(f"(({p}.0.0,{p}.0.1){p}.0,({p}.1.0,{p}.1.1){p}.1){p}" for p in (0, 1))
    return on_tree(centres[group] + own, leaf, f"({pairs})root;")


def test_true_splits_are_supported_and_cuts_through_noise_are_not():
    adata = blobs()
    ht.tl.tree_support(adata, n_boot=20, key="hdtree")
    support = adata.uns["hdtree"]["nodes"]["support"]
    assert np.isnan(support["root"])
    level = adata.uns["hdtree"]["nodes"]["level"]
    assert support[level.isin([1, 2])].min() > 0.95
    assert support[level == 3].max() < 0.7
    assert support[level == 3].mean() < 0.5


def test_support_counts_the_cells_to_move():
    """10 cells; the other tree has 2 of the 4 cells of a node elsewhere, and all of the other node."""
    mine, other = ht.Tree.from_newick("(a,b)root;"), ht.Tree.from_newick("(x,y)root;")
    here, there = np.repeat(["a", "b"], [4, 6]), np.repeat(["x", "y"], [3, 7])
    said = transfer_support(Replicate(mine, mine.index(here)), Replicate(other, other.index(there)))
    np.testing.assert_allclose(said, [np.nan, 1 - 1 / 4, 1 - 1 / 4])
    same = transfer_support(Replicate(mine, mine.index(here)), Replicate(mine, mine.index(here)))
    np.testing.assert_array_equal(same, [np.nan, 1, 1])
    # no node of the other tree is like it: 2 and 3 of its cells are in each
    mixed = transfer_support(Replicate(mine, mine.index(here)), Replicate(other, other.index(np.tile(["x", "y"], 5))))
    np.testing.assert_allclose(mixed[1:], 0)


def test_on_all_cells_the_tree_of_the_model_comes_out_again(model, annotated):
    """The procedure is the model's own: same cells, same splits, but for a few whose worth is just their price."""
    latent, tree = annotated.obsm["X_hdtree"], ht.get.tree(annotated)
    fitted = np.asarray(model.train_indices_)
    sample = Sample(fitted, np.ones(len(fitted)), model._split.held_out)
    procedure = Procedure("information", model._max_leaves, model._min_cells, 10)
    found = rebuild(latent, annotated.obsm["X_hdtree_pca_plain"], sample, procedure, seed=0)
    # on some processors a second of 28 leaves is one of those few
    assert abs(len(found.tree.leaves) - len(tree.leaves)) <= 0.1 * len(tree.leaves)
    assert adjusted_rand_score(found.leaf, annotated.obs["hdtree_leaf"]) > 0.9
    mine = Replicate(tree, tree.index(annotated.obs["hdtree_leaf"]))
    support = transfer_support(mine, found)
    assert np.nanmin(support[tree.levels <= 3]) > 0.95
    assert np.nanmean(support) > 0.9


def test_the_price_of_a_split_is_that_of_the_model():
    assert _tree_replicate.MIN_AGREEMENT == _split_support.MIN_AGREEMENT


@pytest.mark.parametrize("with_model", [True, False])
def test_nodes_and_edges_of_the_worm_get_their_support(model, annotated, with_model, tmp_path):
    ht.tl.tree_support(annotated, model if with_model else None, n_boot=5)
    nodes, graph = annotated.uns["hdtree"]["nodes"], annotated.uns["hdtree"]["graph"]
    support = nodes["support"].drop("root")
    assert support.between(0, 1).all()
    # types part near the root, noise at the leaves
    assert support[nodes["level"] <= 2].mean() > support[nodes["is_leaf"]].mean()
    assert graph["support"].between(0, 1).all()
    knn, tree = graph[graph["kind"] == "knn"], graph[graph["kind"] == "tree"]
    assert knn["support"].mean() > 0.7
    np.testing.assert_array_equal(tree["support"], nodes["support"].loc[tree["target"]])
    assert annotated.uns["hdtree"]["support"]["held_out"] == ("validation" if with_model else "not drawn")
    annotated.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.uns["hdtree"]["nodes"]["support"], nodes["support"])


def test_few_links_make_an_edge_doubtful():
    """Edges whose leaves have links far beyond the threshold are in every replicate, those at the threshold are not."""
    adata = ht.datasets.celegans()[::3, :1].copy()
    rng = np.random.default_rng(0)
    adata.obsm["X_hdtree"] = rng.normal(size=(adata.n_obs, 2)).astype(np.float32)
    east = np.where(adata.obsm["X_hdtree"][:, 0] > 0, "e", "w")
    corner = np.where(adata.obsm["X_hdtree"][:, 1] > 0, "n", "s")
    adata = on_tree(adata.obsm["X_hdtree"], np.char.add(corner, east), "((ne,nw)n,(se,sw)s)root;")
    ht.tl.lineage_graph(adata)
    ht.tl.tree_support(adata, n_boot=20)
    graph = adata.uns["hdtree"]["graph"].query("kind != 'tree'").set_index(["source", "target"])["support"]
    assert graph["ne", "nw"] == graph["ne", "se"] == 1, "sides touch along a line"


def test_support_leaves_a_copy_and_other_keys_alone(model, worm):
    adata = worm.copy()
    ht.tl.tree(adata, model, key_added="mine")
    out = ht.tl.tree_support(adata, model, n_boot=2, key="mine", copy=True)
    assert "support" not in adata.uns["mine"]["nodes"]
    assert "support" in out.uns["mine"]["nodes"]
    assert "graph" not in out.uns["mine"]
    for first, second in ((0, 0), (0, 1)):
        one, two = (
            ht.tl.tree_support(adata, model, n_boot=2, key="mine", seed=s, copy=True).uns["mine"]["nodes"]["support"]
            for s in (first, second)
        )
        assert one.equals(two) == (first == second)


def test_a_tree_of_one_leaf_has_no_split_to_support():
    adata = on_tree(np.random.default_rng(0).normal(size=(50, 3)), np.full(50, "0"), "(0:1)root;")
    ht.tl.tree_support(adata, n_boot=2)
    assert adata.uns["hdtree"]["nodes"]["support"].isna().tolist() == [True, False]
    only = on_tree(np.random.default_rng(0).normal(size=(50, 3)), np.full(50, "root"), "root;")
    ht.tl.tree_support(only, n_boot=2)
    assert only.uns["hdtree"]["nodes"]["support"].isna().all()


@pytest.mark.parametrize("builder", ["links", "ward"])
def test_other_builders_find_true_splits_too(builder):
    adata = blobs()
    ht.tl.tree_support(adata, n_boot=5, builder=builder)
    nodes = adata.uns["hdtree"]["nodes"]
    assert nodes["support"][nodes["level"].isin([1, 2])].min() > 0.9
    assert adata.uns["hdtree"]["support"]["builder"] == builder


def test_what_support_cannot_do_is_said(annotated):
    with pytest.raises(ValueError, match="n_boot: 0 given, at least 1"):
        ht.tl.tree_support(annotated, n_boot=0)
    with pytest.raises(ValueError, match="builder: 'bisecting' needs more than latents; give one of information"):
        ht.tl.tree_support(annotated, builder="bisecting")
    with pytest.raises(ValueError, match="3 cells; at least 10"):
        ht.tl.tree_support(annotated[:3].copy())
    with pytest.raises(KeyError, match="run hdtree_sc.tl.tree"):
        ht.tl.tree_support(annotated, key="other")
    assert "support" not in annotated.uns["hdtree"]["nodes"]
