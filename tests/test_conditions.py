"""Conditions on one tree: which nodes gain or lose cells, and which genes change within them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.special import expit

import hdtree_sc as ht
from hdtree_sc.stats._shares import _fit


def with_samples(adata, *, depleted: str | None = None, n: int = 4, seed: int = 0):
    """Samples of two conditions; in the treated ones a node has lost most of its cells."""
    rng = np.random.default_rng(seed)
    names = [f"control_{i}" for i in range(n)] + [f"treated_{i}" for i in range(n)]
    sample = rng.choice(names, adata.n_obs)
    if depleted is not None:
        tree = ht.get.tree(adata)
        below = adata.obs["hdtree_leaf"].isin(tree.subtree_leaves(depleted)).to_numpy()
        gone = below & np.char.startswith(sample.astype(str), "treated") & (rng.random(adata.n_obs) < 0.85)
        adata = adata[~gone].copy()
        sample = sample[~gone]
    adata.obs["sample"] = sample
    adata.obs["condition"] = pd.Categorical([name.split("_")[0] for name in sample], ["control", "treated"])
    return adata


def smaller_child(adata) -> str:
    tree = ht.get.tree(adata)
    return min(tree.children(tree.root), key=lambda name: int(tree.n_cells[tree.index(name)]))


class TestAbundance:
    def test_the_node_that_lost_its_cells_is_found_and_the_others_are_not(self, annotated):
        node = smaller_child(annotated)
        adata = with_samples(annotated, depleted=node)
        table = ht.tl.compare_conditions(adata, "condition", "sample").set_index("node")
        assert table.loc[node, "fdr"] < 0.01
        assert table.loc[node, "log2fc"] < -1.5
        tree = ht.get.tree(adata)
        (sibling,) = set(tree.children(tree.root)) - {node}
        assert table.loc[sibling, "log2fc"] > 0
        # splits below are as before, though their shares of the whole changed
        below = [name for name in table.index if tree.parent(name) not in (None, tree.root)]
        assert (table.loc[below, "fdr"].dropna() < 0.05).mean() < 0.1

    def test_samples_that_differ_by_chance_give_nothing(self, annotated):
        found = 0
        for seed in range(3):
            table = ht.tl.compare_conditions(with_samples(annotated, seed=seed), "condition", "sample")
            found += int((table["fdr"] < 0.05).sum())
        assert found <= 1

    def test_without_samples_it_warns_that_cells_are_no_replicates(self, annotated):
        adata = with_samples(annotated, depleted=smaller_child(annotated))
        with pytest.warns(UserWarning, match="sample_key"):
            table = ht.tl.compare_conditions(adata, "condition")
        assert (table["fdr"] < 0.05).any()

    def test_a_condition_of_one_sample_is_refused(self, annotated):
        adata = with_samples(annotated, n=1)
        with pytest.raises(ValueError, match="sample"):
            ht.tl.compare_conditions(adata, "condition", "sample")
        assert "conditions" not in adata.uns["hdtree"]

    def test_unknown_columns_and_references_are_named(self, annotated):
        adata = with_samples(annotated)
        with pytest.raises(KeyError, match="nothing"):
            ht.tl.compare_conditions(adata, "nothing")
        with pytest.raises(ValueError, match="reference"):
            ht.tl.compare_conditions(adata, "condition", "sample", reference="nothing")


class TestExpression:
    def test_a_gene_that_rises_in_one_node_is_found_there(self, annotated):
        adata = with_samples(annotated)
        node = smaller_child(adata)
        tree = ht.get.tree(adata)
        below = adata.obs["hdtree_leaf"].isin(tree.subtree_leaves(node)).to_numpy()
        treated = (adata.obs["condition"] == "treated").to_numpy()
        counts = sparse.lil_matrix(adata.X)
        counts[:, 2] = np.random.default_rng(0).poisson(np.where(below & treated, 9.0, 1.0))[:, None].astype(np.float32)
        adata.X = counts.tocsr()
        ht.tl.compare_conditions(adata, "condition", "sample", expression=True, min_cells=5)
        genes = adata.uns["hdtree"]["conditions"]["expression"]
        first = genes[genes["node"] == node].sort_values("p").iloc[0]
        assert first["gene"] == adata.var_names[2]
        assert first["log2fc"] > 1
        assert first["fdr"] < 0.01


class TestPlot:
    def test_the_tree_shows_what_changed(self, annotated):
        adata = with_samples(annotated, depleted=smaller_child(annotated))
        with pytest.raises(KeyError, match="compare_conditions"):
            ht.pl.tree(adata, compare=True, show=False)
        ht.tl.compare_conditions(adata, "condition", "sample")
        ax = ht.pl.tree(adata, compare=True, show=False)
        assert len(ax.collections) > 0
        plt.close("all")


def test_fitted_shares_are_those_of_the_two_groups_however_unequal_their_samples_are():
    # full Newton steps ran away here in one of a hundred fits
    rng = np.random.default_rng(0)
    treated = np.arange(8) % 2 == 0
    n = rng.integers(1, 5000, (8, 400))
    k = rng.binomial(n, expit(rng.normal(0, 5, 400) + rng.normal(0, 4, (8, 400))))
    share, _, settled = _fit(k.astype(float), n.astype(float), np.column_stack([np.ones(8), treated]))
    assert settled.all()
    for group in (treated, ~treated):
        pooled = np.broadcast_to(k[group].sum(0) / n[group].sum(0), share[group].shape)
        np.testing.assert_allclose(share[group], pooled, atol=1e-5)
