"""What the measurements of speed share: simulated cells, clocks, and scVI's default training, extrapolated."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
from lightning.pytorch.callbacks import Callback
from scipy import sparse

import hdtree_sc as ht

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

N_GENES = 2000
LARGEST = 50_000
"""More cells than that are drawn from so many simulated ones."""
TIMED_EPOCHS = 3
"""Epochs of scVI that are timed; the first, which also warms up, is not counted."""


def simulated(n_cells: int, folder: Path) -> Path:
    """A file with simulated counts: 2,000 genes, 7 tips, made once.

    More than 50,000 cells are drawn from 50,000 with Poisson counts around theirs, as the simulation of a million takes
    longer than what is measured.

    Parameters
    ----------
    n_cells
        Cells.
    folder
        Where the file is kept.
    """
    file = folder / f"simulated-{n_cells}.h5ad"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        adata = ht.datasets.branching(min(n_cells, LARGEST), N_GENES)
        if n_cells > LARGEST:
            adata = _drawn(adata, n_cells)
        # the labels and the time are for the root only, and nothing else is read
        ad.AnnData(adata.X, obs=adata.obs[["branch", "pt"]].reset_index(drop=True).rename(index=str)).write_h5ad(file)
    return file


def _drawn(adata: AnnData, n_cells: int) -> AnnData:
    rng = np.random.default_rng(0)
    rows = rng.integers(adata.n_obs, size=n_cells)
    blocks = []
    for part in np.array_split(rows, -(-n_cells // LARGEST)):
        block = sparse.csr_matrix(adata.X[part])
        block.data = rng.poisson(block.data).astype(np.float32)
        block.eliminate_zeros()
        blocks.append(block)
    return ad.AnnData(
        sparse.vstack(blocks, format="csr"), obs=adata.obs.iloc[rows].reset_index(drop=True).rename(index=str)
    )


class EpochClock(Callback):
    """Seconds of each epoch of training."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.seconds.append(time.perf_counter() - self._start)

    @property
    def usual(self) -> float:
        """Median of the epochs after the first."""
        return float(np.median(self.seconds[1:] or self.seconds))


def scvi_seconds(adata: AnnData, accelerator: str) -> dict[str, float]:
    """Seconds of scVI's training with its defaults, of which a few epochs are run.

    Parameters
    ----------
    adata
        Counts; registered for scVI.
    accelerator
        Lightning's accelerator.

    Returns
    -------
    ``epoch s``, ``epochs`` (scVI's default for so many cells), ``fit s`` (their product), ``cells/s``.
    """
    import scvi

    scvi.settings.seed = 0
    scvi.model.SCVI.setup_anndata(adata)
    model, clock = scvi.model.SCVI(adata), EpochClock()
    model.train(TIMED_EPOCHS, accelerator=accelerator, enable_progress_bar=False, callbacks=[clock])
    epochs = scvi.model._utils.get_max_epochs_heuristic(adata.n_obs)
    fitted = len(model.train_indices)
    return {
        "epoch s": clock.usual, "epochs": epochs, "fit s": clock.usual * epochs, "cells/s": fitted / clock.usual
    }  # fmt: skip
