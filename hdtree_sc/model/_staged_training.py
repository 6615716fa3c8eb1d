"""Training of BranchedDiffusion in two stages: an autoencoder, then the diffusion in its latent."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scvi.model.base import UnsupervisedTrainingMixin

from hdtree_sc._errors import whole_number
from hdtree_sc.data import FittingSplitter
from hdtree_sc.growth import fit_map
from hdtree_sc.model._training_basics import TrainingBasics
from hdtree_sc.module import COLLAPSED
from hdtree_sc.train import OneCyclePlan, TreeTrainRunner, written_or_warned

TARGET_STEPS = 1500
"""Steps that a default training of the autoencoder takes on a small data set."""


class StagedTrainingMixin(TrainingBasics, UnsupervisedTrainingMixin):
    """``train`` of a model whose diffusion runs in the latent of an autoencoder."""

    _data_splitter_cls = FittingSplitter
    _training_plan_cls = OneCyclePlan
    _train_runner_cls = TreeTrainRunner
    class_tree_: dict[str, Any] | None

    def train(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,  # noqa: FBT001, FBT002
        batch_size: int | None = None,
        early_stopping: bool = False,  # noqa: FBT001, FBT002
        checkpoint_dir: str | Path | None = None,
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        diffusion_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the autoencoder, find the branch points in its latent, and train the diffusion.

        Ctrl-C ends training early. In the diffusion it leaves a usable model. In the autoencoder it leaves one without
        a generator: its branch points are those in the latent learned so far, and :meth:`train_diffusion` goes on.

        Parameters
        ----------
        max_epochs
            Passes of each of the two stages: of the autoencoder over the training cells, by default about 1,500 steps
            and at most 400 passes, and of the diffusion, as in :meth:`train_diffusion`. To give the diffusion another
            number, name it in ``diffusion_kwargs``.
        accelerator
            Lightning accelerator.
        devices
            Lightning devices.
        train_size
            Share of the cells trained on, 0.9 by default.
        validation_size
            Share of the cells validated on, the rest by default.
        shuffle_set_split
            Whether cells are shuffled before they are split.
        batch_size
            Cells in a minibatch of the autoencoder, 256 by default.
        early_stopping
            Whether the autoencoder stops when ``elbo_validation`` no longer falls; needs validation cells.
        checkpoint_dir
            Folder: the model with its trained autoencoder is saved there as ``autoencoder``, and the diffusion writes
            ``last.ckpt``. After a crash load the former and call ``train_diffusion(ckpt_path=".../last.ckpt")``. What
            cannot be written, as on a full disk, is warned of, and training goes on.
        datasplitter_kwargs
            Keyword arguments of :class:`scvi.dataloaders.DataSplitter`.
        plan_kwargs
            Keyword arguments of the autoencoder's plan (``lr``, ``max_kl_weight``, ...).
        diffusion_kwargs
            Arguments of :meth:`train_diffusion` (``max_epochs``, ``n_hidden``, ...). ``gate`` is ``"step"`` unless
            given: above a branch point its types are told apart by nothing.
        **trainer_kwargs
            Keyword arguments of :class:`scvi.train.Trainer`, used in both stages.

        Raises
        ------
        ValueError
            If a label has fewer than two training cells, a minibatch is larger than the training set, a number is no
            whole number of at least 1, or early stopping has no validation cells.
        """
        if self.adata is None:
            msg = "train() needs cells: load or make the model with adata=."
            raise ValueError(msg)
        self._start_training()
        if "ckpt_path" in trainer_kwargs:
            msg = (
                "ckpt_path: train() begins with the autoencoder. Load the model in the folder 'autoencoder' of "
                "checkpoint_dir, and call train_diffusion(ckpt_path=...)."
            )
            raise ValueError(msg)
        second = {"max_epochs": max_epochs} | (diffusion_kwargs or {})
        for name in ("max_epochs", "batch_size"):
            if second.get(name) is not None:
                whole_number(name, second[name])
        n_train = self._check_training(
            max_epochs=max_epochs,
            batch_size=batch_size,
            devices=devices,
            train_size=train_size,
            validation_size=validation_size,
            early_stopping=early_stopping or second.get("early_stopping", False),
            datasplitter_kwargs=datasplitter_kwargs,
            strategy=trainer_kwargs.get("strategy"),
        )
        self.class_tree_ = None
        self._forget_generator()
        is_complete = True
        try:
            is_complete = self._train_autoencoder(
                n_train,
                max_epochs,
                int(batch_size or min(256, max(2, n_train // 4))),
                split={
                    "train_size": train_size,
                    "validation_size": validation_size,
                    "shuffle_set_split": shuffle_set_split,
                },
                splitter={"fit": self._fit_before} | (datasplitter_kwargs or {}),
                accelerator=accelerator,
                devices=devices,
                early_stopping=early_stopping,
                plan_kwargs=plan_kwargs,
                **({"gradient_clip_val": 1.0} | trainer_kwargs),
            )
            if self.module.is_variational:
                self._leave_out_collapsed()
            self.module.eval()
            self._learn_classes()
            fit_map(self.module.map_head, self.get_latent(indices=self.train_indices_), seed=self._seed())
            self._fit_unplaced()
        except BaseException:
            # without classes nothing can be asked of it
            self.is_trained_ = False
            raise
        if checkpoint_dir is not None:
            with written_or_warned(Path(checkpoint_dir) / "autoencoder"):
                self.save(str(Path(checkpoint_dir) / "autoencoder"), overwrite=True)
        if not is_complete:
            warnings.warn(
                "Training was interrupted in its first stage: tree and branch points are those in the latent learned "
                "so far, and there is no generator yet. Call train_diffusion() for one.",
                stacklevel=2,
            )
            return
        shared = {"accelerator": accelerator, "devices": devices, "checkpoint_dir": checkpoint_dir}
        self.train_diffusion(**(shared | trainer_kwargs | second))

    def _train_autoencoder(
        self,
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
        n_train
            Number of training cells.
        max_epochs, batch_size, plan_kwargs
            See :meth:`train`.
        split, splitter
            Arguments of the splitter: those that scvi-tools' ``train`` names, and further ones.
        **kwargs
            Further arguments of scvi-tools' ``train``.
        """
        if self.module.encoder_kind != "variational":
            cells = FittingSplitter(self.adata_manager, batch_size=batch_size, **split, **splitter)
            cells.setup()
            self.train_indices_, self.validation_indices_, self.test_indices_ = (
                cells.train_idx, cells.val_idx, cells.test_idx,
            )  # fmt: skip
            self.is_trained_ = True
            self.history_: dict[str, Any] = {}
            return True
        if max_epochs is None:
            max_epochs = int(np.clip(np.ceil(TARGET_STEPS / np.ceil(n_train / batch_size)), 20, 400))
        warm = max(1, int(0.3 * max_epochs * np.ceil(n_train / batch_size)))
        self.module.train()
        super().train(
            max_epochs=int(max_epochs),
            batch_size=batch_size,
            datasplitter_kwargs=splitter,
            plan_kwargs={"n_epochs_kl_warmup": None, "n_steps_kl_warmup": warm} | (plan_kwargs or {}),
            **split,
            **kwargs,
        )
        return not self.trainer.interrupted

    @torch.inference_mode()
    def _leave_out_collapsed(self) -> None:
        """Leave out the latent dimensions that the autoencoder does not use: they would be noise to the diffusion."""
        module = self.module.eval()
        module.kept.fill_(1.0)
        batches = self._batches(self.adata, self.train_indices_, None, None)
        kl = self._over(batches, lambda tensors: (self._inferred(tensors)["kl"],))[0]
        module.kept.copy_(torch.from_numpy(kl.mean(0) > COLLAPSED))
