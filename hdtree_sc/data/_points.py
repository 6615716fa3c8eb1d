"""Minibatches of tensors that are worked out once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningDataModule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray


class TensorBatches:
    """Rows of several tensors, a minibatch at a time.

    Parameters
    ----------
    tensors
        Tensors of n rows each.
    batch_size
        Rows at a time.
    n_batches
        Minibatches of one pass; by default as many as show every row once. More go through the rows again in another
        order, as an epoch of three steps would spend its time on beginning.
    generator
        Random numbers of the order; without it rows come as they are, the last minibatch shorter.
    """

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        batch_size: int,
        *,
        n_batches: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.tensors = dict(tensors)
        self.n_rows = len(next(iter(self.tensors.values())))
        self.batch_size = min(batch_size, self.n_rows)
        self.n_batches = n_batches or -(-self.n_rows // self.batch_size)
        self.generator = generator

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        order = torch.empty(0, dtype=torch.long)
        for i in range(self.n_batches):
            if self.generator is None:
                rows = torch.arange(i * self.batch_size, min((i + 1) * self.batch_size, self.n_rows))
            else:
                while len(order) < self.batch_size:
                    order = torch.cat([order, torch.randperm(self.n_rows, generator=self.generator)])
                rows, order = order[: self.batch_size], order[self.batch_size :]
            yield {name: values[rows.to(values.device)] for name, values in self.tensors.items()}


class PointSplitter(LightningDataModule):
    """Training and validation minibatches of cached points.

    Parameters
    ----------
    train, validation
        Tensors by name; no validation if it is None.
    batch_size
        Rows at a time.
    n_batches
        Smallest number of minibatches of an epoch.
    train_idx, val_idx, test_idx
        Rows of the AnnData behind them, which scvi-tools' runner hands on to the model.
    seed
        Seed of the order.
    """

    def __init__(
        self,
        train: Mapping[str, torch.Tensor],
        validation: Mapping[str, torch.Tensor] | None,
        *,
        batch_size: int,
        n_batches: int,
        train_idx: NDArray[np.integer],
        val_idx: NDArray[np.integer] | None,
        test_idx: NDArray[np.integer] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.train_idx, self.val_idx, self.test_idx = train_idx, val_idx, test_idx
        n_rows = len(next(iter(train.values())))
        steps = max(n_batches, -(-n_rows // batch_size))
        self._generator = torch.Generator().manual_seed(seed)
        self._train = TensorBatches(train, batch_size, n_batches=steps, generator=self._generator)
        self._validation = None if validation is None else TensorBatches(validation, 4096)

    def train_dataloader(self) -> TensorBatches:
        """Minibatches in random order."""
        return self._train

    def val_dataloader(self) -> TensorBatches | list[None]:
        """Minibatches in their order."""
        return self._validation if self._validation is not None else []

    def state_dict(self) -> dict[str, Any]:
        """Random numbers of the order, for a checkpoint."""
        return {"order": self._generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the order from where a checkpoint was.

        Parameters
        ----------
        state_dict
            What :meth:`state_dict` gave.
        """
        self._generator.set_state(state_dict["order"])
