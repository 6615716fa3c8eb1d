"""Cells that are unlike anything in training: how many are found, and how many known ones are called."""

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from helpers import QUIET

import hdtree_sc as ht
from hdtree_sc.nn._unplaced import UnplacedScore, unexplained, with_peers

WITHHELD = "AWB"


def trained(adata, seed=0, **kwargs):
    """A model after one epoch: the score does not depend on the encoder."""
    scvi.settings.seed = seed
    ht.HDTree.setup_anndata(adata)
    model = ht.HDTree(adata, **kwargs)
    model.train(max_epochs=1, **QUIET)
    return model


@pytest.fixture(scope="module")
def split(worm):
    """A model of four fifths of all types but one, and a query of the rest and of that type."""
    known = (worm.obs["cell_type"] != WITHHELD).to_numpy()
    held = np.random.default_rng(0).random(worm.n_obs) < 0.2
    return trained(worm[known & ~held].copy()), worm[held | ~known].copy()


def test_most_of_a_withheld_type_is_found_and_few_of_the_known_are_called(split):
    model, query = split
    called = model.get_unplaced(query)
    new = (query.obs["cell_type"] == WITHHELD).to_numpy()
    assert called["unplaced"][new].mean() > 0.5
    assert called["unplaced"][~new].mean() < 0.12, "0.05 wanted, of about 120 cells"
    alone = model.get_unplaced(query[~new])
    assert alone["unplaced"].mean() < 0.1
    assert 0.35 < alone["p_value"].median() < 0.65


def test_the_call_is_the_p_value_at_alpha_and_the_same_every_time(split):
    model, query = split
    called, strict = model.get_unplaced(query), model.get_unplaced(query, alpha=0.01)
    assert list(called.index) == list(query.obs_names)
    assert ((called["p_value"] > 0) & (called["p_value"] <= 1)).all()
    assert (called["unplaced"] == (called["p_value"] <= 0.05)).all()
    assert strict["unplaced"].sum() <= called["unplaced"].sum()
    pd.testing.assert_frame_equal(called, model.get_unplaced(query))
    with pytest.raises(ValueError, match="alpha: 5 "):
        model.get_unplaced(query, alpha=5)


def test_a_model_that_is_loaded_without_cells_says_the_same(split, tmp_path):
    model, query = split
    model.save(tmp_path / "m")
    again = ht.HDTree.load(tmp_path / "m", adata=False)
    pd.testing.assert_frame_equal(again.get_unplaced(query), model.get_unplaced(query))
    placed = ht.HDTree.load_query_data(query, str(tmp_path / "m"))
    pd.testing.assert_frame_equal(placed.get_unplaced(), model.get_unplaced(query))


def test_tree_writes_both_columns_and_they_survive_a_file(split, tmp_path):
    model, query = split
    out = ht.tl.tree(query, ht.HDTree.load_query_data(query, model), copy=True)
    expected = model.get_unplaced(query)
    assert out.obs["hdtree_unplaced"].dtype == bool
    assert np.array_equal(out.obs["hdtree_unplaced"], expected["unplaced"])
    assert np.array_equal(out.obs["hdtree_unplaced_p"], expected["p_value"])
    out.write_h5ad(tmp_path / "cells.h5ad")
    strict = ht.tl.tree(out, model, alpha=0.01, copy=True)
    assert np.array_equal(strict.obs["hdtree_unplaced"], expected["p_value"] <= 0.01)
    with pytest.raises(ValueError, match="alpha"):
        ht.tl.tree(out, model, alpha=0)


def test_in_a_small_query_every_cell_speaks_for_itself(split):
    model, query = split
    few = model.get_unplaced(query[:20])
    one = model.get_unplaced(query[7:8])
    assert one["p_value"].iloc[0] == pytest.approx(few["p_value"].iloc[7], abs=1e-6)


def test_cells_of_the_training_are_at_home(model):
    assert model.get_unplaced()["unplaced"].mean() < 0.05


@pytest.mark.slow
def test_files_from_before_the_score_load_and_say_what_to_do(worm, tmp_path):
    model = trained(worm[:200].copy())
    model.save(tmp_path / "m")
    file = tmp_path / "m" / "model.pt"
    held = torch.load(file, weights_only=False)
    for key in [key for key in held["model_state_dict"] if key.startswith("unplaced.")]:
        del held["model_state_dict"][key]
    torch.save(held, file)
    old = ht.HDTree.load(tmp_path / "m", adata=worm[:200].copy())
    with pytest.raises(RuntimeError, match=r"build_tree\(\)"):
        old.get_unplaced()
    cells = worm[:200].copy()
    cells.obs["hdtree_unplaced"] = True
    with pytest.warns(UserWarning, match="hdtree_unplaced.*build_tree"):
        ht.tl.tree(cells, old)
    assert "hdtree_unplaced" not in cells.obs, "an earlier answer does not stand beside a new tree"
    old.build_tree()
    pd.testing.assert_frame_equal(old.get_unplaced(), model.get_unplaced())


@pytest.mark.slow
def test_too_few_cells_to_tell_one_in_twenty(worm):
    model = trained(worm[:36].copy(), tree_depth=4)
    with pytest.raises(RuntimeError, match="fewer than 40"):
        model.get_unplaced()


@pytest.mark.slow
def test_values_that_are_no_counts(worm):
    cells = worm.copy()
    cells.X = np.log1p(cells.X.toarray())
    held = np.random.default_rng(0).random(cells.n_obs) < 0.3
    model = trained(cells[~held].copy(), gene_likelihood="normal")
    called = model.get_unplaced(cells[held].copy())
    assert called["unplaced"].mean() < 0.1
    shuffled = cells[held].copy()
    shuffled.X = np.random.default_rng(0).permuted(shuffled.X, axis=1)
    assert model.get_unplaced(shuffled)["unplaced"].mean() > 0.5


def test_deviance_is_that_of_the_multinomial():
    counts = torch.tensor([[2.0, 0.0, 2.0]])
    profiles = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]))
    deviance, depth = unexplained(counts, profiles, is_count=True)
    # two of four against a half and two of four against a quarter
    assert float(deviance) == pytest.approx(2 * (2 * np.log(1) + 2 * np.log(2)) / 4)
    assert float(depth) == pytest.approx(np.log(4))
    distance, depth = unexplained(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [9.0, 9.0]]), is_count=False)
    assert (float(distance), float(depth)) == (pytest.approx(5), 0)


def test_peers_leave_the_cell_itself_out_and_at_most_double_what_it_says():
    places = torch.tensor([[0.0], [0.1], [0.2], [0.3], [0.4], [0.5], [100.0]])
    own = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 7.0, -2.0])
    score = with_peers(own, places, 100)
    assert score[0] == 2, "peers say 2.2, the cell itself 1"
    assert score[5] == 8
    assert score[6] == -2, "a cell at home is not talked into anything"


def test_quantiles_and_p_values_of_the_null_itself_are_uniform():
    score = UnplacedScore(3, 2, is_count=False)
    assert not score.fitted
    n = 999
    raw = torch.randn(n, generator=torch.Generator().manual_seed(0)).sort().values
    score.sizes.copy_(torch.tensor([10, 2, n, 100]))
    score.null[0, :n] = raw
    quantiles = score.quantile(raw)
    assert abs(float(quantiles.mean())) < 0.01
    assert float(quantiles.std()) == pytest.approx(1, abs=0.02)
    score.null[1, :n] = quantiles
    p = score.p_values(quantiles[[0, 499, 998]], torch.zeros(3, 2))
    torch.testing.assert_close(p, torch.tensor([1.0, 0.501, 0.002]))
