"""Genes that tell nodes apart, and genes that change along a path."""

from __future__ import annotations

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import hdtree_sc as ht


@pytest.fixture(scope="module")
def routed(fitted):
    """The shared cells with pseudotime and a path through a neuroblast to its daughter."""
    adata = fitted[1].copy()
    first = adata.obs_names[int(np.argmin(adata.obs["time"].to_numpy()))]
    ht.tl.pseudotime(adata, root=first)
    types = adata.obs["cell_type"].astype(str)
    source = next(name for name in types.unique() if name.startswith("Neuroblast"))
    target = "ASG" if (types == "ASG").any() else types[~types.str.startswith("Neuroblast")].iloc[0]
    ht.tl.lineage_path(adata, source, target, groupby="cell_type")
    return adata


class TestNodeMarkers:
    def test_every_node_but_the_root_is_compared_with_its_sibling(self, annotated):
        markers = ht.tl.node_markers(annotated, n_genes=5, min_cells=5)
        tree = ht.get.tree(annotated)
        assert set(markers["node"]) <= set(tree.nodes) - {tree.root}
        one = markers.iloc[0]
        assert one["sibling"] in tree.children(tree.parent(one["node"]))
        assert (markers.groupby("node").size() <= 5).all()
        assert markers["pval_adj"].between(0, 1).all()

    def test_the_scores_of_two_siblings_are_each_others_negative(self, annotated):
        tree = ht.get.tree(annotated)
        left, right = tree.children(tree.root)[:2]
        markers = ht.tl.node_markers(annotated, [left, right])
        table = markers.pivot_table(index="gene", columns="node", values="score")
        np.testing.assert_allclose(table[left], -table[right], atol=1e-4)

    def test_it_is_the_test_of_scanpy(self, annotated):
        import scanpy as sc

        tree = ht.get.tree(annotated)
        node = tree.children(tree.root)[0]
        found = ht.tl.node_markers(annotated, node).set_index("gene")["score"]
        below = annotated.obs["hdtree_leaf"].astype(str).isin(tree.subtree_leaves(node))
        annotated.obs["side"] = pd.Categorical(np.where(below, "in", "out"))
        sc.pp.normalize_total(annotated, target_sum=1e4)
        sc.pp.log1p(annotated)
        sc.tl.rank_genes_groups(annotated, "side", groups=["in"], method="wilcoxon", tie_correct=True)
        peer = sc.get.rank_genes_groups_df(annotated, "in").set_index("names")["scores"]
        np.testing.assert_allclose(found, peer[found.index], atol=2e-2)

    def test_markers_of_a_group_that_is_known_are_found(self, annotated):
        """A gene that only the cells below one node have is its first marker."""
        tree = ht.get.tree(annotated)
        node = tree.children(tree.root)[0]
        below = annotated.obs["hdtree_leaf"].astype(str).isin(tree.subtree_leaves(node)).to_numpy()
        counts = sparse.lil_matrix(annotated.X)
        counts[:, 3] = 0
        counts[np.flatnonzero(below), 3] = 20
        annotated.X = counts.tocsr()
        first = ht.tl.node_markers(annotated, node, n_genes=1).iloc[0]
        assert first["gene"] == annotated.var_names[3]
        assert first["fraction"] == 1
        assert first["fraction_sibling"] == 0
        assert first["log2fc"] > 3

    def test_the_genes_of_a_batch_do_not_mark_the_node_that_it_fills(self, annotated):
        tree = ht.get.tree(annotated)
        node = tree.children(tree.root)[0]
        below = annotated.obs["hdtree_leaf"].astype(str).isin(tree.subtree_leaves(node)).to_numpy()
        rng = np.random.default_rng(0)
        donor = np.where(rng.random(annotated.n_obs) < np.where(below, 0.85, 0.15), "a", "b")
        annotated.obs["donor"] = donor
        counts = sparse.lil_matrix(annotated.X)
        counts[:, 3] = (rng.poisson(np.where(donor == "a", 8.0, 0.5))[:, None]).astype(np.float32)
        annotated.X = counts.tocsr()
        gene = annotated.var_names[3]
        naive = ht.tl.node_markers(annotated, node).set_index("gene").loc[gene]
        aware = ht.tl.node_markers(annotated, node, batch_key="donor").set_index("gene").loc[gene]
        assert naive["pval_adj"] < 1e-6
        assert aware["pval_adj"] > 1e-3
        assert abs(aware["log2fc"]) < 0.5 * abs(naive["log2fc"])
        assert aware["n_batches"] == 2

    def test_genes_that_a_batch_does_not_have_are_no_cause_for_warnings(self, annotated):
        tables = []
        for batch_key in (None, "batch"):
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ nodes are left out")
                tables.append(ht.tl.node_markers(annotated, batch_key=batch_key))
        assert all(np.isfinite(table[["score", "log2fc", "pval_adj"]]).all(axis=None) for table in tables)

    def test_dense_sparse_and_single_precision_agree(self, annotated):
        tree = ht.get.tree(annotated)
        node = tree.children(tree.root)[0]
        a = ht.tl.node_markers(annotated, node)
        annotated.X = annotated.X.toarray().astype(np.float64)
        b = ht.tl.node_markers(annotated, node)
        np.testing.assert_allclose(a.set_index("gene")["score"], b.set_index("gene")["score"][a["gene"]], atol=1e-2)

    def test_mistakes_are_answered(self, annotated):
        with pytest.raises(KeyError, match="not nodes"):
            ht.tl.node_markers(annotated, "nowhere")
        with pytest.raises(ValueError, match="root"):
            ht.tl.node_markers(annotated, "root")
        with pytest.raises(KeyError, match="batch_key"):
            ht.tl.node_markers(annotated, batch_key="nothing")
        with pytest.raises(ValueError, match="method"):
            ht.tl.node_markers(annotated, method="magic")  # type: ignore[arg-type]
        with pytest.warns(UserWarning, match="left out"):
            assert len(ht.tl.node_markers(annotated, min_cells=10_000)) == 0
        annotated.X = annotated.X.toarray() - 1.0
        with pytest.raises(ValueError, match="negative"):
            ht.tl.node_markers(annotated)


class TestPathGenes:
    def test_a_gene_that_was_made_to_rise_is_the_first(self, routed):
        adata = routed.copy()
        nodes = adata.uns["hdtree"]["paths"][adata.uns["hdtree"]["last_path"]]["node"]
        along = adata.obs["hdtree_leaf"].isin(nodes).to_numpy()
        time = adata.obs["hdtree_pseudotime"].to_numpy()
        share = np.clip((time - time[along].min()) / np.ptp(time[along]), 0, 1)
        counts = sparse.lil_matrix(adata.X)
        counts[:, 0] = np.random.default_rng(0).poisson(12 * share)[:, None].astype(np.float32)
        adata.X = counts.tocsr()
        genes = ht.tl.path_genes(adata, order="pseudotime")
        assert genes.loc[adata.var_names[0], "pval_adj"] < 1e-6
        assert genes.loc[adata.var_names[0], "trend"] == "up"
        assert genes.loc[adata.var_names[0], "effect"] > 1

    def test_with_the_order_shuffled_nothing_is_found(self, routed):
        adata, orders = routed.copy(), np.random.default_rng(1)
        found, below = [], []
        for _ in range(8):
            adata.obs["hdtree_pseudotime"] = orders.permutation(routed.obs["hdtree_pseudotime"])
            genes = ht.tl.path_genes(adata, order="pseudotime")
            found.append((genes["pval_adj"] < 0.05).mean())
            below.append((genes["pval"] < 0.1).mean())
        assert np.mean(found) < 0.01
        # uniform: as many below a level as the level says; genes go together, so that one order alone says little
        assert np.mean(below) == pytest.approx(0.1, abs=0.06), below

    def test_the_real_order_finds_many(self, routed):
        genes = ht.tl.path_genes(routed)
        assert (genes["pval_adj"] < 0.05).mean() > 0.1
        assert genes["pval"].is_monotonic_increasing
        assert {"effect", "trend", "peak", "pval", "pval_adj"} <= set(genes.columns)

    def test_a_growing_library_is_not_taken_for_rising_genes(self, routed):
        adata, found = routed.copy(), []
        order, matrix = adata.obs["hdtree_pseudotime"].to_numpy(), adata.X.tocsr().astype(np.int64)
        # a few dozen genes: of one order in which nothing happens, two false calls would be 5 % of them already
        for seed in range(3):
            rng = np.random.default_rng(seed)
            time = rng.permutation(order)
            adata.obs["hdtree_pseudotime"] = time
            keep = 0.2 + 0.8 * (time - time.min()) / np.ptp(time)
            thinned = matrix.astype(np.float32)
            thinned.data[:] = rng.binomial(matrix.data, np.repeat(keep, np.diff(matrix.indptr)))
            adata.X = thinned
            found.append(ht.tl.path_genes(adata, order="pseudotime")["pval_adj"])
        assert (pd.concat(found) < 0.05).mean() < 0.05

    def test_mistakes_are_answered(self, routed):
        with pytest.raises(KeyError, match="paths"):
            ht.tl.path_genes(routed, "nowhere -> nowhere")
        with pytest.raises(ValueError, match="n_knots"):
            ht.tl.path_genes(routed, n_knots=1)
        with pytest.raises(KeyError, match="layer"):
            ht.tl.path_genes(routed, layer="nothing")


class TestPlots:
    def test_the_heat_map_names_its_genes_in_the_order_of_their_peaks(self, routed):
        table = ht.tl.path_genes(routed)
        ax = ht.pl.path_heatmap(routed, genes=list(table.index[:12]), show=False)
        named = [label.get_text() for label in ax.get_yticklabels()]
        assert set(named) == set(table.index[:12])
        peaks = table.loc[named, "peak"].to_numpy()
        assert np.corrcoef(np.arange(len(peaks)), peaks)[0, 1] > 0.5
        plt.close("all")

    def test_the_heat_map_chooses_what_path_genes_ranks_first(self, routed):
        table = ht.tl.path_genes(routed)
        ax = ht.pl.path_heatmap(routed, n_genes=10, show=False)
        named = {label.get_text() for label in ax.get_yticklabels()}
        assert len(named & set(table.index[:12])) >= 8
        plt.close("all")

    def test_a_band_holds_its_trend_and_narrows_with_the_level(self, routed):
        gene = ht.tl.path_genes(routed).index[0]
        ax = ht.pl.gene_trends(routed, genes=gene, show=False)
        wide = ax.collections[-1].get_paths()[0].vertices[:, 1]
        line = ax.lines[0].get_ydata()
        assert wide.min() <= line.min()
        assert wide.max() >= line.max()
        narrow = ht.pl.gene_trends(routed, genes=gene, level=0.5, show=False).collections[-1].get_paths()[0].vertices
        assert np.ptp(narrow[:, 1]) < np.ptp(wide)
        plt.close("all")

    def test_several_genes_and_several_paths(self, routed):
        genes = list(ht.tl.path_genes(routed).index[:4])
        panels = ht.pl.gene_trends(routed, genes=genes, show=False)
        assert [panel.get_title() for panel in panels] == genes
        name = routed.uns["hdtree"]["last_path"]
        both = ht.pl.gene_trends(routed, {"one": name, "two": name}, genes[0], show=False)
        assert len(both.lines) == 2
        plt.close("all")

    def test_mistakes_are_answered(self, routed):
        with pytest.raises(ValueError, match="genes"):
            ht.pl.gene_trends(routed, show=False)
        with pytest.raises(KeyError, match="genes"):
            ht.pl.gene_trends(routed, genes="nothing", show=False)
        with pytest.raises(ValueError, match="level"):
            ht.pl.gene_trends(routed, genes=routed.var_names[0], level=95, show=False)
        with pytest.raises(ValueError, match="standard_scale"):
            ht.pl.path_heatmap(routed, standard_scale="obs", show=False)  # type: ignore[arg-type]
        _, ax = plt.subplots()
        with pytest.raises(ValueError, match="one Axes"):
            ht.pl.gene_trends(routed, genes=list(routed.var_names[:2]), ax=ax)
        plt.close("all")
