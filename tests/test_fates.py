"""Ends of development and the probability to come to each, on simulated trees whose truth is known."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pytest

import hdtree_sc as ht


@pytest.fixture(scope="module")
def ordered(fitted):
    """The shared cells with pseudotime."""
    adata = fitted[1].copy()
    ht.tl.pseudotime(adata, root=adata.obs_names[int(np.argmin(adata.obs["time"].to_numpy()))])
    return adata


def y_shape(n: int = 300, seed: int = 0) -> ad.AnnData:
    """Cells on a stem that parts in two; the first axis is time."""
    rng = np.random.default_rng(seed)
    time = np.sort(rng.random(n))
    side = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    xy = np.column_stack([time, side * np.maximum(time - 0.4, 0.0)]) * 20 + rng.normal(0, 0.25, (n, 2))
    adata = ad.AnnData(np.zeros((n, 3), dtype=np.float32))
    adata.obs["time"], adata.obs["side"] = time, np.where(time < 0.4, "stem", np.where(side > 0, "up", "down"))
    tree = ht.Tree.from_newick("((a,b)left,(c,d)right)root;")
    leaf = np.where(time < 0.4, np.where(time < 0.2, "a", "b"), np.where(side > 0, "c", "d"))
    adata.obsm["X_hand"] = np.column_stack([xy, np.zeros(n)]).astype(np.float32)
    adata.obsm["X_hand_2d"] = xy
    return adata, tree, leaf


@pytest.fixture(scope="module")
def hand() -> ad.AnnData:
    """A tree from elsewhere, under a key of its own: no model has seen these cells."""
    import pandas as pd

    adata, tree, leaf = y_shape()
    adata.uns["hand"] = {"nodes": tree.to_frame(), "params": {"latent": "X_hand"}}
    adata.obs["hand_leaf"] = pd.Categorical(leaf, categories=list(tree.leaves))
    ht.tl.lineage_graph(adata, key="hand")
    ht.tl.pseudotime(adata, root=adata.obs_names[0], key="hand")
    return adata


class TestFateProbabilities:
    def test_both_ends_of_a_fork_are_found_unaided(self, hand):
        out = ht.tl.fate_probabilities(hand, key="hand", copy=True)
        fates = out.obsm["hand_fates"]
        assert sorted(fates.columns) == ["c", "d"]
        np.testing.assert_allclose(fates.sum(1), 1, atol=1e-6)
        late = out.obs["time"] > 0.6
        hit = out.obs["hand_fate"].astype(str)[late] == out.obs["hand_leaf"].astype(str)[late]
        assert hit.mean() > 0.98
        # the stem is undecided, the tips are not
        entropy = out.obs["hand_fate_entropy"]
        assert entropy[out.obs["time"] < 0.3].mean() > 0.8 * np.log(2)
        assert entropy[out.obs["time"] > 0.9].mean() < 0.1
        assert "hand_fates" not in hand.obsm

    def test_ends_can_be_named_and_are_then_the_columns(self, ordered):
        types = ordered.obs["cell_type"].astype(str)
        names = [name for name in types.unique() if not name.startswith("Neuroblast")][:2]
        ht.tl.fate_probabilities(ordered, names, groupby="cell_type")
        fates = ordered.obsm["hdtree_fates"]
        assert set(fates.columns) == {name.replace("/", "|") for name in names}
        for name in names:
            own = fates[name.replace("/", "|")]
            assert own[types == name].mean() > 0.95
            assert set(ordered.obs["hdtree_terminal"].dropna()) == set(fates.columns)

    def test_measured_time_can_say_where_forward_is(self, hand):
        out = ht.tl.fate_probabilities(hand, key="hand", time_key="time", copy=True)
        assert set(out.obsm["hand_fates"].columns) == {"c", "d"}
        assert out.uns["hand"]["fates"]["direction"] == "time"

    def test_the_number_of_ends_can_be_given(self, ordered):
        out = ht.tl.fate_probabilities(ordered, n_terminal=3, copy=True)
        assert out.obsm["hdtree_fates"].shape[1] == 3
        assert out.uns["hdtree"]["fates"]["terminal"].shape[0] == 3

    def test_the_result_survives_a_file(self, ordered, tmp_path):
        ht.tl.fate_probabilities(ordered)
        ordered.write_h5ad(tmp_path / "cells.h5ad")
        back = ad.read_h5ad(tmp_path / "cells.h5ad")
        np.testing.assert_allclose(back.obsm["hdtree_fates"], ordered.obsm["hdtree_fates"])

    def test_nothing_is_written_before_the_arguments_are_checked(self, hand):
        before = set(hand.obs.columns) | set(hand.obsm)
        for wrong, error in (
            ({"terminal": "nowhere"}, ValueError),
            ({"groupby": "nothing"}, KeyError),
            ({"time_key": "nothing"}, KeyError),
            ({"n_terminal": 0}, ValueError),
            ({"min_significance": 0.0}, ValueError),
            ({"terminal": "c", "n_terminal": 2}, ValueError),
        ):
            with pytest.raises(error):
                ht.tl.fate_probabilities(hand, key="hand", **wrong)
        assert before == set(hand.obs.columns) | set(hand.obsm)

    def test_without_a_graph_it_says_what_to_run(self, cells):
        with pytest.raises(KeyError, match="hdtree_sc.tl"):
            ht.tl.fate_probabilities(cells)


class TestPlot:
    def test_one_map_panels_and_means(self, hand):
        adata = ht.tl.fate_probabilities(hand, key="hand", copy=True)
        ax = ht.pl.fates(adata, key="hand", show=False)
        written = {text.get_text() for text in ax.texts}
        assert {"c", "d"} <= written
        panels = ht.pl.fates(adata, ["c", "d"], key="hand", show=False)
        assert [panel.get_title() for panel in panels] == ["c", "d"]
        means = ht.pl.fates(adata, key="hand", groupby="side", show=False)
        assert {label.get_text() for label in means.get_yticklabels()} == {"stem", "up", "down"}
        plt.close("all")

    def test_undecided_cells_are_paler(self):
        from hdtree_sc.pl._fates import decided

        np.testing.assert_allclose(decided(np.array([[1.0, 0.0], [0.5, 0.5]])), [1.0, 0.0], atol=1e-12)

    def test_mistakes_are_answered(self, hand, cells):
        adata = ht.tl.fate_probabilities(hand, key="hand", copy=True)
        with pytest.raises(KeyError, match="ends"):
            ht.pl.fates(adata, "nowhere", key="hand", show=False)
        with pytest.raises(KeyError, match="fate_probabilities"):
            ht.pl.fates(cells, show=False)
        _, ax = plt.subplots()
        with pytest.raises(ValueError, match="one Axes"):
            ht.pl.fates(adata, ["c", "d"], key="hand", ax=ax)
        plt.close("all")
