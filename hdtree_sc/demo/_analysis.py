"""The analysis of the demo: what a user would write. The report prints this file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import hdtree_sc as ht

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

N_GENES = 2000
SOURCE, TARGET = "Neuroblast_ASG_AWA", "ASG"


def load_cells() -> AnnData:
    """The bundled cells with their most variable genes; ``X`` holds counts."""
    adata = ht.datasets.celegans()
    return adata[:, adata.var["highly_variable_rank"] < N_GENES].copy()


def train_model(adata: AnnData, *, seed: int = 0, max_epochs: int | None = None, progress: bool = True) -> ht.HDTree:
    """Train on the counts alone: labels are registered, not learned from, and times are not even registered.

    Parameters
    ----------
    adata
        The cells.
    seed
        Seed of the split, the weights and the minibatches.
    max_epochs
        Passes over the training cells; the model's default without it.
    progress
        Whether a progress bar is shown.
    """
    import scvi

    scvi.settings.seed = seed
    ht.HDTree.setup_anndata(adata, labels_key="cell_type")
    model = ht.HDTree(adata)
    model.train(max_epochs=max_epochs, check_val_every_n_epoch=10, enable_progress_bar=progress)
    return model


def earliest_medoid(adata: AnnData, *, share: float = 0.02) -> str:
    """Name of the root cell: of the earliest cells, the one nearest to their mean in the latent.

    Parameters
    ----------
    adata
        Cells on a tree, with embryo time.
    share
        Share of the cells that counts as earliest.
    """
    n = max(1, round(share * adata.n_obs))
    earliest = np.argsort(adata.obs["time"].to_numpy(), kind="stable")[:n]
    latent = adata.obsm["X_hdtree"][earliest]
    return str(adata.obs_names[earliest[np.square(latent - latent.mean(axis=0)).sum(axis=1).argmin()]])


def trace_lineage(adata: AnnData) -> pd.DataFrame:
    """Lineage, pseudotime and the way from a neuroblast to one of its neurons; times serve the root only.

    Parameters
    ----------
    adata
        Cells on a tree; annotated.
    """
    ht.tl.lineage_tree(adata, earliest_medoid(adata), groupby="cell_type", n_boot=50)
    return ht.tl.lineage_path(adata, SOURCE, TARGET, groupby="cell_type")
