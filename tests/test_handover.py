"""What scanpy, CellRank and TreeData get from us. Those of the extra ``lineage`` run in ``make test-lineage``."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import hdtree_sc as ht


@pytest.fixture
def ordered(annotated):
    ht.tl.pseudotime(annotated, root=annotated.obs_names[int(np.argmin(annotated.obs["time"].to_numpy()))])
    ht.tl.fate_probabilities(annotated, n_terminal=3)
    return annotated


class TestScanpy:
    def test_paga_draws_our_graph(self, annotated):
        import scanpy as sc

        ht.tl.to_paga(annotated)
        n = len(annotated.obs["hdtree_leaf"].cat.categories)
        matrix = annotated.uns["paga"]["connectivities"]
        assert matrix.shape == (n, n)
        assert abs(matrix - matrix.T).max() < 1e-12
        assert matrix.max() <= 1
        # what is joined there is joined here
        graph = annotated.uns["hdtree"]["graph"]
        knn = graph[graph["kind"] == "knn"] if (graph["kind"] == "knn").any() else graph
        leaves = set(annotated.obs["hdtree_leaf"].cat.categories)
        pairs = knn[knn["source"].isin(leaves) & knn["target"].isin(leaves)]
        assert matrix.nnz == 2 * len(pairs.drop_duplicates(["source", "target"]))
        sc.pl.paga(annotated, pos=np.random.default_rng(0).random((n, 2)), show=False)
        plt.close("all")

    def test_dot_plots_are_ordered_as_the_tree_is(self, annotated):
        import scanpy as sc

        ht.tl.to_dendrogram(annotated)
        stored = annotated.uns["dendrogram_hdtree_leaf"]
        tree = ht.get.tree(annotated)
        held = [name for name in tree.leaves if (annotated.obs["hdtree_leaf"] == name).any()]
        assert list(stored["categories_ordered"]) == held
        heights = stored["linkage"][:, 2]
        assert (np.diff(heights) >= -1e-9).all()
        sc.pl.dotplot(annotated, list(annotated.var_names[:3]), groupby="hdtree_leaf", dendrogram=True, show=False)
        plt.close("all")

    def test_scanpy_finds_our_neighbours_by_their_key(self, annotated):
        import scanpy as sc

        sc.tl.umap(annotated, neighbors_key="hdtree_neighbors", maxiter=5)
        assert annotated.obsm["X_umap"].shape == (annotated.n_obs, 2)

    def test_groups_of_a_cut_are_taken_and_others_refused(self, annotated):
        ht.tl.cut_tree(annotated, n_leaves=5)
        ht.tl.to_paga(annotated, groupby="hdtree_cut")
        assert annotated.uns["paga"]["groups"] == "hdtree_cut"
        with pytest.raises(ValueError, match="no nodes of the tree"):
            ht.tl.to_dendrogram(annotated, groupby="cell_type")


class TestCellRank:
    def test_transitions_lead_forward_and_fates_are_taken_over(self, ordered):
        pytest.importorskip("cellrank")
        kernel = ht.tl.to_cellrank(ordered)
        matrix = kernel.transition_matrix
        np.testing.assert_allclose(np.asarray(matrix.sum(1)).ravel(), 1, atol=1e-6)
        time = ordered.obs["hdtree_pseudotime"].to_numpy()
        step = matrix @ time - time
        assert np.mean(step) > 0

    def test_without_it_the_message_says_what_to_install(self, ordered, monkeypatch):
        import sys

        for name in ("cellrank", "cellrank.kernels"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=r"hdtree-sc\[lineage\]"):
            ht.tl.to_cellrank(ordered)


class TestTreeData:
    def test_cells_are_leaves_of_the_tree(self, annotated):
        pytest.importorskip("treedata")
        tdata = ht.get.treedata(annotated)
        graph = tdata.obst["hdtree"]
        ends = {node for node in graph if graph.out_degree(node) == 0}
        assert ends == set(annotated.obs_names)
        cell = annotated.obs_names[7]
        (above,) = graph.predecessors(cell)
        assert graph.nodes[above]["hdtree_node"] == annotated.obs["hdtree_leaf"].iloc[7]

    def test_pycea_draws_it(self, annotated):
        pycea = pytest.importorskip("pycea")
        tdata = ht.get.treedata(annotated)
        pycea.pl.tree(tdata, tree="hdtree", depth_key="depth")
        plt.close("all")

    def test_without_it_the_message_says_what_to_install(self, annotated, monkeypatch):
        import sys

        monkeypatch.setitem(sys.modules, "treedata", None)
        with pytest.raises(ImportError, match=r"hdtree-sc\[lineage\]"):
            ht.get.treedata(annotated)


class TestNewick:
    def test_the_tree_reads_back(self, annotated):
        tree = ht.get.tree(annotated)
        again = ht.Tree.from_newick(tree.to_newick())
        assert again.to_newick() == tree.to_newick()
        assert isinstance(tree.to_frame(), pd.DataFrame)
