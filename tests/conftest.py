"""Small real data and one trained model, shared by the tests."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pytest
from helpers import QUIET

if TYPE_CHECKING:
    from anndata import AnnData

mpl.use("Agg")
# before torch is imported, here and in the processes that tests start: small matrices gain nothing from more threads
os.environ.setdefault("OMP_NUM_THREADS", "1")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


TRAINED = {
    "branched", "components", "demo", "fitted", "mixed", "models", "partial", "scvi_model", "small", "split",
    "stage_one", "trained", "treevae",
}  # fmt: skip
"""Fixtures that train a model."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests of trained models as slow; tests that train one themselves say so."""
    for item in items:
        if TRAINED & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def worm() -> AnnData:
    """Every second C. elegans cell of the bundled set with its 500 most variable genes, less those that this half of
    the cells does not have; copy before you change it.
    """
    import hdtree_sc as ht

    adata = ht.datasets.celegans()
    adata = adata[::2, adata.var["highly_variable_rank"] < 500]
    assert (np.asarray(adata.X.sum(1)) > 0).all()
    return adata[:, np.asarray(adata.X.sum(0)).ravel() > 0].copy()


@pytest.fixture
def cells(worm: AnnData) -> AnnData:
    """A fresh copy of the cells."""
    return worm.copy()


@pytest.fixture(scope="session")
def fitted(worm: AnnData):
    """A model trained on the cells, and the cells with its tree and lineage graph; treat both as read-only."""
    import scvi

    import hdtree_sc as ht

    adata = worm.copy()
    scvi.settings.seed = 0
    ht.HDTree.setup_anndata(adata, batch_key="batch", labels_key="cell_type")
    model = ht.HDTree(adata)
    model.train(max_epochs=60, **QUIET)
    ht.tl.tree(adata, model)
    ht.tl.lineage_graph(adata)
    return model, adata


@pytest.fixture
def model(fitted):
    """The shared trained model."""
    return fitted[0]


@pytest.fixture
def annotated(fitted) -> AnnData:
    """A fresh copy of the annotated cells."""
    return fitted[1].copy()


@pytest.fixture(scope="session")
def labelled(worm):
    """Cells of types with 15 cells or more."""
    adata = worm[worm.obs["cell_type"].notna()].copy()
    counts = adata.obs["cell_type"].value_counts()
    return adata[adata.obs["cell_type"].isin(counts.index[counts >= 15])].copy()
