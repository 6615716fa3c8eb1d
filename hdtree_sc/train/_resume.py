"""What a checkpoint needs beside weights, so that a resumed training equals one that was never stopped."""

from __future__ import annotations

import pickle
import random
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from hdtree_sc.train._settings import keep_threads

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from lightning.pytorch import LightningModule, Trainer

ENTRY = "hdtree_sc"
"""Where in a checkpoint our part is."""


class RunState(Callback):
    """Puts random numbers, history, split and the facts of a training into its checkpoints, and takes them up again.

    Parameters
    ----------
    facts
        What a training that goes on from the checkpoint must have in common with this one.
    known
        The model's history before this training.
    """

    def __init__(self, facts: Mapping[str, Any], known: Mapping[str, pd.DataFrame] | None = None) -> None:
        self.facts = dict(facts)
        self.n_known = {name: len(values) for name, values in (known or {}).items()}
        self.resumed = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What the search for neighbours did to the number of threads is undone."""
        keep_threads()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add our part."""
        whole: Any = trainer  # Lightning adds the data module when it fits
        data = whole.datamodule
        split = {name: _rows(getattr(data, name)) for name in ("train_idx", "val_idx", "test_idx")}
        checkpoint[ENTRY] = {
            "facts": self.facts,
            "max_epochs": trainer.max_epochs,
            "split": split,
            "random": random_state(),
            "history": _as_lists(getattr(trainer.logger, "history", None) or {}),
            "n_known": self.n_known,
        }
        # an epoch that was announced and not begun is announced again
        for count in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
            count["ready"] = count["started"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up random numbers and history where they were."""
        held = checkpoint[ENTRY]
        if trainer.world_size == 1:  # the file has those of one process
            set_random_state(held["random"])
        self.resumed, self.n_known = True, held["n_known"]
        experiment = getattr(trainer.logger, "experiment", None)
        if hasattr(trainer.logger, "history") and experiment is not None:
            for name, (key, points, values) in held["history"].items():
                for point, value in zip(points, values, strict=True):
                    experiment.log_metrics({name: value, key: point})

    def before(self, history: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
        """The part of a history that is older than this training: a try that failed in this process left more."""
        return {name: values.iloc[: self.n_known[name]] for name, values in history.items() if self.n_known.get(name)}


def read_run(path: str | Path) -> dict[str, Any]:
    """Our part of a checkpoint.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ValueError
        If there is no such file, it is damaged, or it was written by another program or version.
    """
    if not Path(path).is_file():
        msg = f"ckpt_path: there is no file {path}."
        raise ValueError(msg)
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError, pickle.UnpicklingError) as error:
        msg = f"ckpt_path: {path} is damaged, or no checkpoint of hdtree-sc. Train without ckpt_path."
        raise ValueError(msg) from error
    own, release = held.get(ENTRY) if isinstance(held, dict) else None, release_of(version("hdtree-sc"))
    if own is None or own["facts"]["version"] != release:
        by = "an older version or another program" if own is None else f"version {own['facts']['version']}"
        msg = (
            f"ckpt_path: {path} was written by {by}, and a training goes on in the version that began it only (this is "
            f"hdtree-sc {release}). Train without ckpt_path."
        )
        raise ValueError(msg)
    return dict(own)


def release_of(text: str) -> str:
    """Major and minor number of a version."""
    return ".".join(text.split(".")[:2])


def refuse_other_run(path: str | Path, held: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse to go on with another training than that of the checkpoint.

    Parameters
    ----------
    path
        The file.
    held
        Facts of the training in the file.
    own
        Facts of the one that is about to begin.

    Raises
    ------
    ValueError
        If they differ; the message says in what.
    """
    if (held["model"], held["verb"]) != (own["model"], own["verb"]):
        text = f"it is of {held['model']}.{held['verb']}(), not of {own['model']}.{own['verb']}()"
    elif held["cells"] != own["cells"]:
        text = "its training was on other cells or genes, or on the same in another order"
    elif held["weights"] != own["weights"]:
        text = "it builds on another training of the model: load the model that it was written with"
    else:
        there, here = held["arguments"], own["arguments"]
        names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
        if not names:
            return
        text = "; ".join(
            f"its training had {name}={there.get(name)}, this one {name}={here.get(name)}" for name in names
        )
    msg = f"ckpt_path: {path} does not fit: {text}. Repeat set-up, model and arguments as they were."
    raise ValueError(msg)


def random_state() -> dict[str, Any]:
    """State of all global random numbers, in plain types."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (name, np.asarray(keys).tolist(), *rest),
        "python": random.getstate(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set all global random numbers to a state of :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])


def _rows(index: Any) -> torch.Tensor:
    return torch.from_numpy(np.array([] if index is None else index, dtype=np.int64))


def _as_lists(history: Mapping[str, pd.DataFrame]) -> dict[str, tuple[str, list[int], list[float]]]:
    """Each metric as the name of its time, times and values."""
    return {
        name: (str(values.index.name), values.index.tolist(), values[name].tolist()) for name, values in history.items()
    }
