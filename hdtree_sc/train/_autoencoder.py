"""Training of the autoencoder in whose latent a diffusion runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET_STEPS = 1500
"""Steps that a default training takes on a small data set."""


class Autoencoder(Protocol):
    """What training needs of a model with an autoencoder, or with what stands in its place."""

    module: Any
    adata_manager: Any
    trainer: Any
    train_indices_: Any
    validation_indices_: Any
    test_indices_: Any
    is_trained_: bool
    history_: Any
    _data_splitter_cls: Any


def train_autoencoder(
    model: Autoencoder,
    train: Callable[..., None],
    n_train: int,
    max_epochs: int | None,
    batch_size: int,
    *,
    split: dict[str, Any],
    splitter: dict[str, Any],
    plan_kwargs: dict[str, Any] | None,
    **kwargs: Any,
) -> bool:
    """Train the autoencoder, if there is one to train; whether it came to its end.

    Parameters
    ----------
    model
        The model.
    train
        scvi-tools' ``train``.
    n_train
        Number of training cells.
    max_epochs, batch_size, plan_kwargs
        See :meth:`BranchedDiffusion.train`.
    split, splitter
        Arguments of the splitter: those that scvi-tools' ``train`` names, and further ones.
    **kwargs
        Further arguments of scvi-tools' ``train``.
    """
    if model.module.encoder_kind != "variational":
        cells = model._data_splitter_cls(model.adata_manager, batch_size=batch_size, **split, **splitter)
        cells.setup()
        model.train_indices_, model.validation_indices_, model.test_indices_ = (
            cells.train_idx, cells.val_idx, cells.test_idx,
        )  # fmt: skip
        model.is_trained_, model.history_ = True, {}
        return True
    if max_epochs is None:
        max_epochs = int(np.clip(np.ceil(TARGET_STEPS / np.ceil(n_train / batch_size)), 20, 400))
    warm = max(1, int(0.3 * max_epochs * np.ceil(n_train / batch_size)))
    model.module.train()
    train(
        max_epochs=int(max_epochs),
        batch_size=batch_size,
        datasplitter_kwargs=splitter,
        plan_kwargs={"n_epochs_kl_warmup": None, "n_steps_kl_warmup": warm} | (plan_kwargs or {}),
        **split,
        **kwargs,
    )
    return not model.trainer.interrupted
