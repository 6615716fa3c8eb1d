"""What a model is made of: sizes that follow the number of cells, and defaults as documented."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from helpers import QUIET
from torch import nn

import hdtree_sc as ht
from hdtree_sc.model import _hdtree


def sizes(model) -> tuple[int, int]:
    """Width and number of the encoder's hidden layers."""
    layers = [layer for layer in model.module.encoder.modules() if isinstance(layer, nn.Linear)]
    assert len({layer.out_features for layer in layers[:-1]}) == 1
    return layers[0].out_features, len(layers) - 1


@pytest.fixture
def many(monkeypatch):
    """Says that a hundred cells are many."""
    monkeypatch.setattr(_hdtree, "N_CELLS_LARGE", 100)


def test_few_cells_have_a_small_encoder(cells):
    ht.HDTree.setup_anndata(cells)
    assert sizes(ht.HDTree(cells)) == (256, 2)
    assert sizes(ht.HDTree(cells, n_hidden=32, n_layers=1)) == (32, 1)


def test_many_cells_have_a_larger_one(cells, many):
    ht.HDTree.setup_anndata(cells)
    assert sizes(ht.HDTree(cells)) == (512, 3)
    assert sizes(ht.HDTree(cells, n_hidden=32)) == (32, 3)


@pytest.mark.slow
def test_a_file_says_the_sizes_and_other_cells_do_not_change_them(cells, many, monkeypatch, tmp_path):
    ht.HDTree.setup_anndata(cells)
    model = ht.HDTree(cells)
    model.train(max_epochs=1, **QUIET)
    model.save(tmp_path / "m")
    monkeypatch.undo()
    for adata in (cells, False):
        again = ht.HDTree.load(tmp_path / "m", adata=adata)
        assert sizes(again) == (512, 3)
        np.testing.assert_allclose(again.get_latent(cells), model.get_latent(), atol=1e-5)
    assert "n_hidden: 512, n_layers: 3" in model._model_summary_string


def test_defaults_are_those_of_the_documentation(cells):
    default = {name: value.default for name, value in inspect.signature(ht.HDTree).parameters.items()}
    assert default["dropout_rate"] == 0
    assert default["tree_builder"] is None
    assert default["use_labels"] is False
    assert default["n_hidden"] is default["n_layers"] is None
    assert (_hdtree.N_CELLS_LARGE, default["n_latent"], default["tree_depth"]) == (16_000, 24, 10)
    documented = inspect.getdoc(ht.HDTree)
    assert "by default 256, and 512 from 16,000 cells on" in documented
    assert "by default 2, and 3 from 16,000 cells on" in documented
    ht.HDTree.setup_anndata(cells)
    model = ht.HDTree(cells)
    assert model.init_params_["non_kwargs"]["tree_builder"] == "information"
    joint = ht.HDTree(cells, joint_diffusion=True)
    assert joint.init_params_["non_kwargs"]["tree_builder"] == "codebook"
    assert not [layer for layer in model.module.modules() if isinstance(layer, nn.Dropout) and layer.p > 0]


def test_the_encoder_reads_principal_components(cells):
    """And covariates; of a data set with fewer features than components, as many as it has."""
    ht.HDTree.setup_anndata(cells, batch_key="batch")
    model = ht.HDTree(cells)
    first = next(layer for layer in model.module.encoder.modules() if isinstance(layer, nn.Linear))
    assert first.in_features == 50 + cells.obs["batch"].nunique()
    assert ht.HDTree(cells, n_input_pcs=7).module.n_input_pcs == 7
    few = cells[:, :20].copy()
    few = few[np.asarray(few.X.sum(1)).ravel() > 0].copy()
    ht.HDTree.setup_anndata(few)
    assert ht.HDTree(few).module.n_input_pcs == 20
