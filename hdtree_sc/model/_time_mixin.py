"""Time of collection: what training learns of it, and the time that latents tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hdtree_sc.module import TIME_KEY

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.model._arguments import Rows


class TimeMixin:
    """What a model that was set up with ``time_key`` knows of time."""

    def _fit_time(self, rows: NDArray[np.int64]) -> None:
        """Keep mean and standard deviation of the known times of training cells."""
        module: Any = self.module  # type: ignore[attr-defined]
        if module.time_head is None:
            return
        registered = self.adata_manager.get_from_registry(TIME_KEY)  # type: ignore[attr-defined]
        time = np.asarray(registered, dtype=float).ravel()[rows]
        known = time[np.isfinite(time)]
        if len(known) < 2 or known.std() == 0:
            column = self._setup("time_key")  # type: ignore[attr-defined]
            msg = f"time_key: adata.obs[{column!r}] has no two different times among the training cells."
            raise ValueError(msg)
        module.time_moments.copy_(torch.tensor([known.mean(), known.std()]))

    @torch.inference_mode()
    def get_time(
        self,
        adata: AnnData | None = None,
        indices: Rows = None,
        batch_size: int | None = None,
    ) -> NDArray[np.float32]:
        """Time that each cell's latent tells, also for cells whose time is not known.

        Parameters
        ----------
        adata
            Cells with the model's genes; the training data by default.
        indices
            Rows of ``adata``: positions, names of cells, a slice or a mask; all by default.
        batch_size
            Cells at a time, 4,096 by default.

        Returns
        -------
        float32 array (n_cells,), in the units of ``time_key``.

        Raises
        ------
        RuntimeError
            Before training, or of a model that was set up without ``time_key``.
        """
        self._require_trained("get_time")  # type: ignore[attr-defined]
        module: Any = self.module  # type: ignore[attr-defined]
        if module.time_head is None:
            msg = "get_time needs a model that was set up with time_key=."
            raise RuntimeError(msg)
        batches = self._batches(adata, indices, batch_size, None)  # type: ignore[attr-defined]
        return self._over(batches, lambda tensors: (module.told_time(self._encode(tensors)),))[0]  # type: ignore[attr-defined]
