"""What the training of every model begins with: checks, and facts for checkpoints."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from math import ceil, floor
from typing import TYPE_CHECKING, Any, Protocol

from scvi import settings

from hdtree_sc._errors import whole_number
from hdtree_sc.train._resume import read_run, refuse_other_run, release_of

if TYPE_CHECKING:
    from pathlib import Path


class Trainable(Protocol):
    """What training needs of a model."""

    module: Any
    adata: Any
    trainer: Any
    init_params_: dict[str, Any]

    def get_var_names(self) -> Any:
        """Names of the features."""


def check_training(
    n_cells: int,
    *,
    max_epochs: int | None,
    batch_size: int | None,
    devices: Any,
    train_size: float | None,
    validation_size: float | None,
    early_stopping: bool,
    datasplitter_kwargs: dict[str, Any] | None,
    strategy: Any = None,
    n_validation: int = 1,
) -> int:
    """Refuse what cannot be trained; the number of training cells.

    Parameters
    ----------
    n_cells
        Number of cells.
    max_epochs, batch_size, devices, train_size, validation_size, early_stopping, datasplitter_kwargs
        See :meth:`HDTree.train`.
    strategy
        Lightning's strategy.
    n_validation
        Smallest number of cells that can be validated on.
    """
    for name, value in (("max_epochs", max_epochs), ("batch_size", batch_size)):
        if value is not None:
            whole_number(name, value)
    if train_size is not None and not 0 < train_size <= 1:
        msg = f"train_size: {train_size} given, a share above 0 and at most 1 is wanted."
        raise ValueError(msg)
    external = (datasplitter_kwargs or {}).get("external_indexing")
    if external is None:
        n_train = ceil((train_size or 0.9) * n_cells)
        n_held_out = n_cells - n_train if validation_size is None else floor(validation_size * n_cells)
    else:
        n_train, n_held_out = len(external[0]), len(external[1]) if len(external) > 1 else 0
    if n_train < 2:
        msg = f"train_size leaves {n_train} of {n_cells} cells to train on: at least two are needed."
        raise ValueError(msg)
    if batch_size is not None and not 2 <= batch_size <= n_train:
        msg = f"batch_size: {batch_size} is outside 2 to {n_train}, the number of training cells."
        raise ValueError(msg)
    if early_stopping and n_held_out < n_validation:
        msg = (
            f"early_stopping watches validation cells, and train_size={train_size} with "
            f"validation_size={validation_size} leaves {n_held_out} of at least {n_validation}: lower train_size."
        )
        raise ValueError(msg)
    many = (isinstance(devices, int) and devices > 1) or (isinstance(devices, list) and len(devices) > 1)
    if (many or "ddp" in str(strategy)) and settings.seed is None:
        msg = "Several devices need a seed, or each would draw its own split: set scvi.settings.seed first."
        raise ValueError(msg)
    return n_train


def facts_of(model: Trainable, verb: str, *, of_weights: bool = False, **arguments: Any) -> dict[str, Any]:
    """What a training that goes on from a checkpoint must have in common with the one that wrote it.

    Parameters
    ----------
    model
        The model.
    verb
        The method that trains.
    of_weights
        Whether it builds on the weights that the model has.
    **arguments
        Its arguments that decide what is learned.
    """
    weights = hashlib.sha256()
    for name, value in model.module.state_dict().items() if of_weights else ():
        if name.split(".")[0] not in ("diffusion", "donors"):
            weights.update(value.detach().cpu().contiguous().numpy().tobytes())
    names = "\n".join([*model.adata.obs_names, "", *model.get_var_names()])
    held = {"scvi.settings.seed": settings.seed} | model.init_params_["non_kwargs"] | arguments
    return {
        "model": type(model).__name__,
        "verb": verb,
        "version": release_of(version("hdtree-sc")),
        "weights": weights.hexdigest(),
        "cells": hashlib.sha256(names.encode()).hexdigest(),
        # as text that a round through a file does not change: there a tuple may become a list
        "arguments": {name: repr(json.loads(json.dumps(value, default=repr))) for name, value in held.items()},
    }


def resumed_run(ckpt_path: str | Path | None, facts: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of the training it is of; empty without one."""
    if ckpt_path is None:
        return {}
    held = read_run(ckpt_path)
    refuse_other_run(ckpt_path, held["facts"], facts)
    return held
