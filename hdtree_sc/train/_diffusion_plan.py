"""How the second stage is trained: a diffusion model on cached points."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class DiffusionPlan(LightningModule):
    """AdamW under a one-cycle schedule, and a running mean of the weights, which is what is validated and kept.

    A minibatch holds ``points`` (n, d), the arguments of the model's conditions and maybe ``scatter``, the standard
    deviation of the points (n, d) before whitening; of validation also the ``noise`` and ``level`` that each cell
    always has.

    Parameters
    ----------
    diffusion
        The model: ``loss``, ``drop_condition`` and ``levels_for_training``.
    make_where
        From a minibatch to conditions.
    lr
        Peak learning rate.
    weight_decay
        Weight decay of AdamW.
    decay
        Decay per step of the running mean of the weights; shorter at the beginning.
    seed
        Seed of noise levels, noise and left out conditions; global random numbers are not touched.
    """

    def __init__(
        self,
        diffusion: Any,
        make_condition: Any,
        *,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        decay: float = 0.998,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.diffusion = diffusion
        self.average = AveragedModel(diffusion, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.make_condition = make_condition
        self.lr = lr
        self.weight_decay = weight_decay
        self.seed = seed
        self.best_loss = math.inf
        self._best: dict[str, torch.Tensor] | None = None
        self._generator: torch.Generator | None = None

    @property
    def generator(self) -> torch.Generator:
        """Random numbers on the device of training; restarted for each epoch, so that a resumed one is the same."""
        if self._generator is None or self._generator.device.type != self.device.type:
            self._generator = torch.Generator(self.device)
            self.on_train_epoch_start()
        return self._generator

    def on_train_epoch_start(self) -> None:
        """Begin the epoch's random numbers."""
        if self._generator is not None:
            self._generator.manual_seed(self.seed * 100_003 + self.current_epoch)

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule over all steps."""
        fused = "mixed" not in str(self.trainer.precision)
        optimizer = torch.optim.AdamW(
            self.diffusion.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=fused
        )
        steps = max(int(self.trainer.estimated_stepping_batches), 4)
        schedule = OneCycleLR(optimizer, max_lr=self.lr, total_steps=steps, pct_start=max(0.05, 2.0 / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """One step. A loss that is not finite is an error, never skipped."""
        points, generator = batch["points"], self.generator
        if "scatter" in batch:  # cells whose point is known up to a normal error are at another each time
            error = torch.randn(points.shape, generator=generator, device=points.device)
            points = points + self.diffusion.turn(batch["scatter"] * error)
        where = self.diffusion.drop_condition(self.make_condition(batch), generator)
        level = self.diffusion.levels_for_training(len(points), generator, points.device)
        noise = torch.randn(points.shape, generator=generator, device=points.device)
        loss = self.diffusion.loss(points, where, level, noise).mean()
        self.log("diffusion_train_loss", loss, on_epoch=True, on_step=False, prog_bar=True, batch_size=len(points))
        return loss

    def on_train_batch_end(self, *args: Any) -> None:
        """Follow the weights."""
        self.average.update_parameters(self.diffusion)

    def on_train_epoch_end(self) -> None:
        """Stop at once when training has come apart."""
        loss = self.trainer.callback_metrics.get("diffusion_train_loss")
        if loss is not None and not torch.isfinite(loss):
            msg = "The diffusion loss is not finite: try a lower learning rate (plan_kwargs={'lr': ...})."
            raise RuntimeError(msg)

    def on_validation_epoch_start(self) -> None:
        """Forget the validation before."""
        self._validated = torch.zeros(2, device=self.device, dtype=torch.float64)

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """Loss of the averaged weights on held-out cells, at the same noise each time."""
        self.average.eval()
        averaged: Any = self.average.module
        loss = averaged.loss(batch["points"], self.make_condition(batch), batch["level"], batch["noise"])
        self._validated += torch.stack([loss.sum().double(), loss.new_tensor(len(loss)).double()])

    def on_validation_epoch_end(self) -> None:
        """Keep the averaged weights if they are the best so far."""
        loss = float(self._validated[0] / self._validated[1].clamp_min(1))
        self.log("diffusion_validation_loss", loss, prog_bar=True, batch_size=1)
        if not self.trainer.sanity_checking and loss < self.best_loss:
            self.best_loss = loss
            self._best = {
                name: value.detach().cpu().clone() for name, value in self.average.module.state_dict().items()
            }

    def learned(self, *, best: bool) -> dict[str, torch.Tensor]:
        """The averaged weights: the last, or those of the best validation if there was one."""
        return self._best if best and self._best is not None else self.average.module.state_dict()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The best weights so far travel with the checkpoint."""
        checkpoint["best"] = (self.best_loss, self._best)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the best weights so far up again."""
        self.best_loss, self._best = checkpoint["best"]
