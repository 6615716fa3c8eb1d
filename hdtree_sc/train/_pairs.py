"""Training on pairs of neighbours: defaults, schedule, interruption."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from hdtree_sc._errors import whole_number
from hdtree_sc.train._facts import check_training, facts_of, resumed_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hdtree_sc.train._facts import Trainable


def train_on_pairs(
    model: Trainable,
    train: Callable[..., None],
    *,
    n_steps: int,
    least_epochs: int,
    max_epochs: int | None,
    batch_size: int | None,
    n_neighbors: int,
    datasplitter_kwargs: dict[str, Any] | None,
    plan: dict[str, Any],
    plan_kwargs: dict[str, Any] | None,
    represent: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    encoder_input: Callable[[], tuple[NDArray[np.float32], NDArray[np.float32]]],
    begin: Callable[[], None],
    trainer_kwargs: dict[str, Any],
    further: dict[str, Any] | None = None,
    **kwargs: Any,
) -> None:
    """Train, and take what was learned so far where training is interrupted.

    Parameters
    ----------
    model
        The model.
    train
        scvi-tools' ``train``.
    n_steps
        Steps of a default training of a small data set.
    least_epochs
        Fewest passes of a default training.
    max_epochs, batch_size, n_neighbors, datasplitter_kwargs, plan_kwargs, trainer_kwargs
        See :meth:`HDTree.train`.
    plan
        Defaults of ``plan_kwargs``.
    represent, encoder_input
        See :class:`PairSplitter`.
    begin
        Called when all arguments have been found right, before anything is changed.
    further
        Further arguments of ``train`` that decide what is learned.
    **kwargs
        Further arguments of scvi-tools' ``train``.
    """
    n_train = check_training(
        model.adata.n_obs,
        max_epochs=max_epochs,
        batch_size=batch_size,
        datasplitter_kwargs=datasplitter_kwargs,
        strategy=trainer_kwargs.get("strategy"),
        n_validation=2,
        **{name: kwargs[name] for name in ("devices", "train_size", "validation_size", "early_stopping")},
    )
    whole_number("n_neighbors", n_neighbors)
    if batch_size is None:
        batch_size = int(np.clip(2 ** int(np.log2(max(n_train, 8) / 4)), 4, 256 if n_train < 16_000 else 1024))
    facts = facts_of(
        model, "train", batch_size=batch_size, n_neighbors=n_neighbors, plan_kwargs=plan_kwargs or {}, **(further or {})
    )
    resumed = resumed_run(trainer_kwargs.get("ckpt_path"), facts)
    if max_epochs is None:
        default = int(np.clip(np.ceil(n_steps / np.ceil(n_train / batch_size)), least_epochs, 400))
        max_epochs = resumed.get("max_epochs", default)
    trainer_kwargs.setdefault("gradient_clip_val", 1.0)
    trainer_kwargs.setdefault("early_stopping_monitor", "validation_loss")

    splitter = {
        "represent": represent,
        "encoder_input": encoder_input,
        "n_neighbors": n_neighbors,
    } | (datasplitter_kwargs or {})
    if resumed:
        # without a seed another one would be drawn
        splitter["external_indexing"] = [part.numpy() for part in resumed["split"].values()]
    begin()
    # scvi-tools leaves a trained module in evaluation mode, and Lightning keeps what it finds
    model.module.train()
    train(
        max_epochs=int(max_epochs),
        batch_size=int(batch_size),
        datasplitter_kwargs=splitter,
        plan_kwargs=plan | (plan_kwargs or {}),
        facts=facts,
        **kwargs,
        **trainer_kwargs,
    )
    if model.trainer.interrupted:
        warnings.warn("Training was interrupted: the tree is built from what was learned so far.", stacklevel=3)
