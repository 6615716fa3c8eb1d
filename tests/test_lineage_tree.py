"""The lineage: progenitors above their descendants, ends where development ends, on real and on simulated cells."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.cluster.hierarchy import ward
from scipy.stats import spearmanr
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

import hdtree_sc as ht
from hdtree_sc.graph._backbone import backbone
from hdtree_sc.graph._order import consensus_order, links_of_starts, order_from

N_LEAVES = 40


@pytest.fixture(scope="module")
def worm_lineage(fitted):
    """The worm's cells with their lineage, from the earliest cell."""
    adata = fitted[1].copy()
    ht.tl.lineage_tree(adata, earliest(adata), groupby="cell_type", n_boot=20)
    return adata


@pytest.fixture(scope="module")
def branching():
    """Cells of a simulated tree of four tips, on a tree of likeness that no model made."""
    adata = ht.datasets.branching(1000, n_tips=4, difficulty="easy", seed=1)
    logged = np.log1p(1e4 * adata.X.toarray() / adata.X.sum(1))
    adata.obsm["X_hdtree"] = PCA(15, random_state=0).fit_transform(np.asarray(logged)).astype(np.float32)
    groups = KMeans(N_LEAVES, n_init=2, random_state=0).fit(adata.obsm["X_hdtree"])
    merges = ward(groups.cluster_centers_)[:, :2].astype(int)
    parents = np.full(2 * N_LEAVES - 1, -1)
    for i, pair in enumerate(merges):
        parents[pair] = N_LEAVES + i
    tree = ht.Tree([f"n{i}" for i in range(len(parents))], parents)
    adata.uns["hdtree"] = {"nodes": tree.to_frame(), "codebook": np.zeros((len(tree), 15), np.float32)}
    adata.obs["hdtree_leaf"] = pd.Categorical([f"n{i}" for i in groups.labels_], categories=tree.leaves)
    ht.tl.lineage_tree(adata, adata.obs_names[adata.obs["pt"].argmin()], groupby="branch")
    return adata


def earliest(adata) -> str:
    return str(adata.obs_names[int(np.nanargmin(adata.obs["time"].to_numpy(float)))])


def stones_of(adata) -> pd.DataFrame:
    return adata.uns["hdtree"]["lineage"]["milestones"]


class TestRealCells:
    def test_mothers_are_before_their_daughters(self, worm_lineage):
        time = worm_lineage.obs.groupby("cell_type", observed=True)["hdtree_pseudotime"].median()
        for mother, daughter in (("Neuroblast_ASG_AWA", "ASG_AWA"), ("ASG_AWA", "ASG"), ("ASG_AWA", "AWA")):
            assert time[mother] < time[daughter]
        assert time["ADL_parent"] < time["ADL"]

    def test_time_order_holds(self, worm_lineage):
        assert spearmanr(worm_lineage.obs["hdtree_pseudotime"], worm_lineage.obs["time"], nan_policy="omit")[0] > 0.75

    def test_ends_are_neurons_and_no_progenitors(self, worm_lineage):
        stones = stones_of(worm_lineage)
        ends = set(stones.loc[stones["is_terminal"], "label"])
        assert len(ends) >= 3
        assert ends <= {"ADL", "ASG", "AWA", "AWB", "AWC", "AWC_ON"}

    def test_the_fields_say_what_the_docstring_says(self, worm_lineage):
        obs, stones = worm_lineage.obs, stones_of(worm_lineage)
        for column in ("hdtree_pseudotime", "hdtree_edge_position"):
            assert obs[column].between(0, 1).all()
        assert set(obs["hdtree_milestone"]) == set(stones.index)
        assert set(obs["hdtree_branch"]) <= set(stones["branch"])
        assert (stones["n_cells"] == obs["hdtree_milestone"].value_counts()[stones.index].to_numpy()).all()
        below = stones[stones["parent"] != ""]
        assert len(below) == len(stones) - 1
        assert (below["pseudotime"].to_numpy() >= stones["pseudotime"][below["parent"]].to_numpy()).all()
        assert below["support"].between(0, 1).all()
        # a parent comes first
        assert all(stones.index.get_loc(p) < i for i, p in enumerate(stones["parent"]) if p)
        counts = worm_lineage.uns["hdtree"]["lineage"]["composition"]
        assert counts.to_numpy().sum() == obs["cell_type"].notna().sum()

    @pytest.mark.xfail(
        reason="holds in the whole suite and fails where this file runs alone, also before the order went along the "
        "tree: of 722 cells and 485 genes progenitors may be leaves of the tree of types; the cause is not known",
        strict=False,
    )
    def test_the_tree_of_types_has_progenitors_inside(self, worm_lineage):
        tree = ht.get.lineage_tree(worm_lineage, groupby="cell_type")
        assert "ADL_parent" not in tree.leaves
        assert "Neuroblast_ASG_AWA" in tree.path("ASG")

    def test_the_tree_of_types_holds_all_their_cells(self, worm_lineage):
        tree = ht.get.lineage_tree(worm_lineage, groupby="cell_type")
        assert set(worm_lineage.obs["cell_type"].dropna()) <= set(tree.nodes)
        assert tree.n_cells[0] == worm_lineage.obs["cell_type"].notna().sum()

    def test_the_tree_counts_the_cells_that_are_there(self, worm_lineage):
        tree = ht.get.lineage_tree(worm_lineage[:200])
        assert tree.n_cells[0] == 200
        assert ht.get.lineage_tree(worm_lineage).nodes == tree.nodes

    def test_it_survives_a_file(self, worm_lineage, tmp_path):
        worm_lineage.write_h5ad(tmp_path / "cells.h5ad")
        back = ad.read_h5ad(tmp_path / "cells.h5ad")
        assert ht.get.lineage_tree(back).to_newick() == ht.get.lineage_tree(worm_lineage).to_newick()
        assert ht.get.lineage_tree(back, "cell_type") == ht.get.lineage_tree(worm_lineage, "cell_type")

    def test_the_same_seed_gives_the_same_lineage(self, worm_lineage, fitted):
        again = fitted[1].copy()
        ht.tl.lineage_tree(again, earliest(again), groupby="cell_type", n_boot=20)
        pd.testing.assert_frame_equal(stones_of(again), stones_of(worm_lineage))
        assert (again.obs["hdtree_pseudotime"] == worm_lineage.obs["hdtree_pseudotime"]).all()

    def test_times_of_half_of_the_cells_find_the_root_and_improve_the_order(self, annotated):
        time = annotated.obs["time"].astype(float)
        known = time.where(np.random.default_rng(0).random(len(time)) < 0.5)
        annotated.obs["known"] = known
        ht.tl.lineage_tree(annotated, time_key="known")
        order = annotated.obs["hdtree_pseudotime"]
        assert order.between(0, 1).all()
        told = spearmanr(order, time, nan_policy="omit")[0]
        ht.tl.pseudotime(annotated, annotated.uns["hdtree"]["lineage"]["params"]["root_cell"])
        assert told > spearmanr(annotated.obs["hdtree_pseudotime"], time, nan_policy="omit")[0]

    def test_any_groups_can_be_milestones(self, annotated):
        annotated.obs["groups"] = annotated.obs["hdtree_leaf"].astype(str)
        ht.tl.lineage_tree(annotated, earliest(annotated), milestone_key="groups")
        assert len(stones_of(annotated)) <= annotated.obs["groups"].nunique()
        # milestones are whole groups
        assert (annotated.obs.groupby("groups")["hdtree_milestone"].nunique() == 1).all()


class TestKnownTree:
    def test_tips_are_ends_and_ends_are_tips(self, branching):
        stones, tips = stones_of(branching), set(true_tree(branching).leaves)
        assert set(stones.loc[stones["is_terminal"], "label"]) == tips
        assert stones["is_terminal"].sum() == len(tips)

    def test_branches_are_those_of_the_simulation(self, branching):
        both = pd.crosstab(branching.obs["branch"], branching.obs["hdtree_branch"]).to_numpy()
        assert both.max(0).sum() / both.sum() > 0.75
        assert both.shape[1] <= both.shape[0] + 2

    def test_the_order_is_that_of_the_simulation(self, branching):
        assert spearmanr(branching.obs["hdtree_pseudotime"], branching.obs["pt"])[0] > 0.9

    def test_the_tree_of_groups_has_progenitors_inside(self, branching):
        tree, truth = ht.get.lineage_tree(branching, groupby="branch"), true_tree(branching)
        inner = set(truth.nodes) - set(truth.leaves)
        assert not inner & set(tree.leaves)
        held = [node for node in truth.nodes if node in tree.nodes]
        mothers = [(truth.path(node)[-2], node) for node in held if len(truth.path(node)) > 1]
        assert np.mean([mother in tree.path(node) for mother, node in mothers if mother in held]) >= 0.75

    def test_fates_are_the_ends_of_the_lineage(self, branching):
        out = ht.tl.fate_probabilities(branching, groupby="branch", copy=True)
        truth, stones = true_tree(branching), stones_of(branching)
        assert sorted(out.obsm["hdtree_fates"].columns) == sorted(stones.loc[stones["is_terminal"], "label"])
        right = [
            str(fate) in set(truth.leaves) & below(truth, branch)
            for fate, branch in zip(out.obs["hdtree_fate"], out.obs["branch"].astype(str), strict=True)
        ]
        assert np.mean(right) > 0.8
        # terminal cells are late ones of terminal milestones
        terminal = out.obs["hdtree_terminal"].notna()
        assert stones.loc[out.obs.loc[terminal, "hdtree_milestone"].astype(str), "is_terminal"].all()

    def test_fates_need_no_lineage_tree_and_have_the_same_ends(self, branching):
        alone = branching.copy()
        del alone.uns["hdtree"]["lineage"]
        ht.tl.pseudotime(alone, branching.uns["hdtree"]["lineage"]["params"]["root_cell"])
        ht.tl.fate_probabilities(alone, groupby="branch")
        assert set(alone.obsm["hdtree_fates"].columns) == set(true_tree(branching).leaves)

    def test_cells_without_an_end_have_the_fates_of_the_others(self, branching):
        stones = stones_of(branching)
        for gone in stones.index[stones["is_terminal"]]:
            part = branching[(branching.obs["hdtree_milestone"] != gone).to_numpy()].copy()
            ht.tl.fate_probabilities(part)
            assert part.obsm["hdtree_fates"].shape == (part.n_obs, stones["is_terminal"].sum() - 1)

    def test_a_path_goes_along_the_lineage(self, branching):
        tips = true_tree(branching).leaves
        path = ht.tl.lineage_path(branching, tips[0], tips[-1], groupby="branch")
        stone = branching.obs.groupby("hdtree_leaf", observed=True)["hdtree_milestone"].agg(lambda s: s.mode().iloc[0])
        above = stones_of(branching)["parent"]
        way = [str(stone[node]) for node in path["node"] if node in stone.index]
        for one, other in zip(way[:-1], way[1:], strict=True):
            assert one == other or above[one] == other or above[other] == one

    def test_cells_of_one_line_have_one_end(self, branching):
        tree = true_tree(branching)
        part = branching[branching.obs["branch"].isin(tree.path(tree.leaves[0])).to_numpy()].copy()
        del part.uns["hdtree_neighbors"]
        ht.tl.lineage_tree(part, part.obs_names[part.obs["pt"].argmin()])
        assert stones_of(part)["is_terminal"].sum() == 1


def true_tree(adata) -> ht.Tree:
    return ht.Tree.from_newick(adata.uns["tree_newick"])


def below(tree: ht.Tree, branch: str) -> set[str]:
    """Tips that cells of a branch can come to."""
    return {tip for tip in tree.leaves if branch in tree.path(tip)}


class TestOrder:
    def test_a_few_strays_make_no_short_cut(self):
        """A long chain of cells, thirty wide, and three links from its start to its end."""
        n, wide = 900, 30
        rng = np.random.default_rng(0)
        place = np.sort(rng.random(n))
        source = np.repeat(np.arange(n), 8)
        target = np.clip(source + rng.integers(-wide, wide + 1, len(source)), 0, n - 1)
        odd = np.array([[3, 880], [5, 890], [8, 895]])
        rows, columns = np.append(source, odd[:, 0]), np.append(target, odd[:, 1])
        length = np.append(np.abs(place[source] - place[target]) + 1e-3, np.full(3, 1e-3))
        apart = rows != columns
        graph = sparse.csr_matrix((length[apart], (rows[apart], columns[apart])), shape=(n, n))
        graph = graph.maximum(graph.T)
        strength = graph.astype(bool).astype(float)
        groups = [np.arange(n) * m // n for m in (8, 12)]
        starts, part = np.array([0]), np.zeros(n, dtype=int)
        assert spearmanr(order_from(graph, strength, starts, part), place)[0] < 0.6
        assert spearmanr(consensus_order(graph, strength, groups, starts, part), place)[0] > 0.97

    def test_early_cells_of_another_group_are_not_reached_through_late_ones_only(self):
        """A ring of cells whose two ends, both early, are neighbours in space and not in the graph."""
        n = 300
        place = np.linspace(0, 1, n)
        points = np.column_stack([np.cos(2 * np.pi * place), np.sin(2 * np.pi * place)])
        apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
        near = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= 8
        np.fill_diagonal(near, val=False)
        graph = sparse.csr_matrix(np.where(near, apart, 0.0))
        strength, groups = graph.astype(bool).astype(float), [np.zeros(n, dtype=int)]
        starts, part = np.array([0]), np.zeros(n, dtype=int)
        ends, middle = np.arange(n - 20, n), np.arange(n // 2 - 20, n // 2 + 20)
        without = consensus_order(graph, strength, groups, starts, part)
        assert without[ends].min() > without[middle].max()
        order = consensus_order(graph, strength, groups, starts, part, links_of_starts(points, starts, part, 15))
        assert order[ends].max() < order[middle].min()

    def test_a_start_is_linked_within_its_part(self):
        links = links_of_starts(np.arange(6.0)[:, None], np.array([0, 3]), np.array([0, 0, 0, 1, 1, 1]), 9)
        assert sorted(zip(*links.nonzero(), strict=True)) == [(0, 1), (0, 2), (3, 4), (3, 5)]

    @pytest.mark.parametrize("method", ["consensus", "geodesic", "distance"])
    def test_each_method_is_an_order_from_the_root(self, annotated, method):
        root = earliest(annotated)
        ht.tl.pseudotime(annotated, root, method=method)
        order = annotated.obs["hdtree_pseudotime"]
        assert order.between(0, 1).all()
        assert order[root] == 0
        assert annotated.uns["hdtree"]["pseudotime"]["method"] == method


@settings(max_examples=40, deadline=None)
@given(n=st.integers(3, 80), m=st.integers(1, 12), seed=st.integers(0, 10_000))
def test_a_backbone_is_a_rooted_tree_of_the_groups(n, m, seed):
    rng = np.random.default_rng(seed)
    group, time = rng.integers(0, m, n), rng.random(n)
    neighbors = np.array([rng.choice(np.delete(np.arange(n), i), min(5, n - 1), replace=False) for i in range(n)])
    grown = backbone([group], time, neighbors, int(time.argmin()), min_cells=2)
    assert (grown.parent < 0).sum() == 1
    assert grown.parent[grown.group[time.argmin()]] == -1
    assert set(grown.group) == set(range(len(grown.parent)))
    # each way leads to the root
    assert grown.below()[int(np.flatnonzero(grown.parent < 0)[0])].all()
    # groups join, and never part
    assert (pd.Series(grown.group).groupby(group).nunique() == 1).all()
    assert 0 <= grown.modularity <= 1 or len(grown.parent) == 1 or grown.modularity > -1


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, ValueError, "root: name one start"),
        ({"root": "nobody"}, (KeyError, ValueError), "nobody"),
        ({"root_key": "cell_type", "root_value": "nothing"}, (KeyError, ValueError), "nothing"),
        ({"root_key": "cell_type", "root_value": "ADL", "groupby": "nope"}, KeyError, "groupby: .*nope"),
        ({"time_key": "nope"}, KeyError, "time_key: .*nope"),
        ({"time_key": "cell_type"}, ValueError, "time_key: .*numbers"),
        ({"root_key": "cell_type", "root_value": "ADL", "milestone_key": "half"}, ValueError, "milestone_key: 361"),
        ({"root_key": "cell_type", "root_value": "ADL", "n_boot": -1}, ValueError, "n_boot: -1"),
        ({"root_key": "cell_type", "root_value": "ADL", "min_cells": 0}, ValueError, "min_cells: 0"),
        ({"root_key": "cell_type", "root_value": "ADL", "key": "other"}, KeyError, "other"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_nothing_is_changed(fitted, arguments, error, words):
    adata = fitted[1].copy()
    del adata.uns["hdtree_neighbors"]
    adata.obs["half"] = pd.Series("a", index=adata.obs_names[::2]).reindex(adata.obs_names)
    with pytest.raises(error, match=words):
        ht.tl.lineage_tree(adata, **arguments)
    assert "hdtree_neighbors" not in adata.uns
    assert "lineage" not in adata.uns["hdtree"]
    assert not {"hdtree_milestone", "hdtree_branch", "hdtree_pseudotime"} & set(adata.obs)


def test_without_a_lineage_the_error_says_what_to_run(annotated):
    for call in (ht.get.lineage_tree, ht.pl.lineage_tree):
        with pytest.raises(KeyError, match=r"tl\.lineage_tree"):
            call(annotated)


class TestFigure:
    @pytest.fixture(autouse=True)
    def _close(self):
        yield
        plt.close("all")

    def test_ends_are_named_and_the_axis_is_pseudotime(self, worm_lineage):
        ax = ht.pl.lineage_tree(worm_lineage, show=False)
        assert ax.get_xlabel() == "Pseudotime"
        stones = stones_of(worm_lineage)
        written = {text.get_text() for text in ax.texts}
        assert set(stones.loc[stones["is_terminal"], "label"]) <= written
        assert any(text.isdigit() for text in written)
        bare = ht.pl.lineage_tree(worm_lineage, show=False, show_support=False, show_cells=False)
        assert len(bare.texts) == stones["is_terminal"].sum()

    def test_cells_stand_at_their_pseudotime(self, worm_lineage):
        ax = ht.pl.lineage_tree(worm_lineage, color="time", show=False)
        drawn = max((c.get_offsets() for c in ax.collections), key=len)
        np.testing.assert_allclose(np.sort(drawn[:, 0]), np.sort(worm_lineage.obs["hdtree_pseudotime"]), atol=1e-9)

    def test_numbers_genes_and_several_panels(self, worm_lineage):
        gene = worm_lineage.var_names[0]
        panels = ht.pl.lineage_tree(worm_lineage, color=["cell_type", "time", gene], show=False)
        assert len(panels) == 3
        alone = ht.pl.lineage_tree(worm_lineage, color=gene, ax=plt.figure().subplots())
        assert alone.get_title() == gene
