"""How well a variational model tells cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hdtree_sc.model._cell_maker import seeded
from hdtree_sc.model._expression_mixin import FitMixin

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 1024


class BoundMixin(FitMixin):
    """scvi-tools' measures of fit, with latents drawn from a seed: global random numbers stay as they are."""

    def get_elbo(self, *args: Any, seed: int = 0, **kwargs: Any) -> float | NDArray[np.float32]:
        """Evidence lower bound of the log likelihood, in nats per cell; higher is better.

        Parameters
        ----------
        *args, **kwargs
            See :meth:`scvi.model.base.VAEMixin.get_elbo`: ``adata``, ``indices``, ``batch_size``, ``return_mean``.
        seed
            Seed of the latents, of which each cell has one draw.

        Raises
        ------
        RuntimeError
            Before training.
        """
        return self._measured("get_elbo", seed, args, kwargs)

    def get_reconstruction_error(self, *args: Any, seed: int = 0, **kwargs: Any) -> dict[str, Any]:
        """Expected negative log likelihood over leaves and latents, in nats per cell; lower is better.

        Parameters
        ----------
        *args, **kwargs
            See :meth:`scvi.model.base.VAEMixin.get_reconstruction_error`.
        seed
            Seed of the latents.

        Raises
        ------
        RuntimeError
            Before training.
        """
        return self._measured("get_reconstruction_error", seed, args, kwargs)

    def get_marginal_ll(self, *args: Any, seed: int = 0, **kwargs: Any) -> float | NDArray[np.float32]:
        """Importance-weighted estimate of the log likelihood, in nats per cell; higher is better.

        Parameters
        ----------
        *args, **kwargs
            See :meth:`scvi.model.base.VAEMixin.get_marginal_ll`: ``adata``, ``indices``, ``n_mc_samples`` (1,000 by
            default; the estimate is a lower bound that rises with them), ``return_mean``.
        seed
            Seed of the samples.

        Raises
        ------
        RuntimeError
            Before training.
        """
        return self._measured("get_marginal_ll", seed, args, kwargs)

    def _measured(self, name: str, seed: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._require_trained(name)
        if name != "get_marginal_ll" and len(args) < 3 and "dataloader" not in kwargs:
            kwargs.setdefault("batch_size", BATCH)
        # scvi-tools takes the mean of the minibatches' means, of which the last has fewer cells
        whole = name == "get_marginal_ll" and kwargs.get("return_mean", True)
        with seeded(seed):
            found = getattr(super(), name)(*args, **(kwargs | ({"return_mean": False} if whole else {})))
        if isinstance(found, dict):
            return {key: _plain(values) for key, values in found.items()}
        return float(found.mean()) if whole else _plain(found)


def _plain(values: Any) -> Any:
    """A number, or an array of one for each cell."""
    array = np.asarray(values.cpu() if isinstance(values, torch.Tensor) else values)
    return float(array) if array.ndim == 0 else array
