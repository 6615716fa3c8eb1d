"""How the tree model is trained: schedule, codebook stages and logging."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from scvi.train import TrainingPlan
from torch.optim.lr_scheduler import OneCycleLR

if TYPE_CHECKING:
    from scvi.module.base import BaseModuleClass, LossOutput

INIT_CELLS = 50_000
"""Largest number of cells the codebook starts from."""
RESEED_EPOCHS = 10
"""Every so many epochs leaves that lost their cells are given new ones."""


class TreeTrainingPlan(TrainingPlan):
    """scvi-tools' plan with a one-cycle schedule and a codebook that joins after a warm-up.

    Parameters
    ----------
    module
        The module.
    max_leaves
        Largest number of leaves of the codebook.
    min_cells
        Smallest number of training cells of a node.
    warmup
        Share of the epochs after which the codebook is started on the latents.
    lr
        Peak learning rate.
    eps
        Epsilon of AdamW. scvi-tools' 0.01 would swallow the gradients of a contrastive loss.
    weight_decay
        Weight decay of AdamW.
    seed
        Seed of the codebook's start.
    **kwargs
        Keyword arguments of :class:`scvi.train.TrainingPlan`; what it does not know goes to the module's loss.
    """

    def __init__(
        self,
        module: BaseModuleClass,
        *,
        max_leaves: int = 64,
        min_cells: int = 10,
        warmup: float = 0.7,
        lr: float = 2e-3,
        eps: float = 1e-8,
        weight_decay: float = 1e-4,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("optimizer", "AdamW")
        super().__init__(module, lr=lr, eps=eps, weight_decay=weight_decay, **kwargs)
        self.max_leaves = max_leaves
        self.min_cells = min_cells
        self.warmup = warmup
        self.seed = seed

    def _optimizer_creator_fn(self, optimizer_cls: type[torch.optim.Optimizer]) -> Any:
        """The fused step: one pass over the parameters, on every device."""
        settings = {"lr": self.lr, "eps": self.eps, "weight_decay": self.weight_decay, "fused": True}
        return lambda params: optimizer_cls(params, **settings)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW under a one-cycle schedule over all steps; on a plateau schedule if that was asked for."""
        config = super().configure_optimizers()
        if not self.reduce_lr_on_plateau:
            steps = max(int(self.trainer.estimated_stepping_batches), 4)
            # at least two steps up, or a short training would divide by a rise of none
            rise = max(0.1, 2.0 / steps)
            schedule = OneCycleLR(config["optimizer"], max_lr=self.lr, total_steps=steps, pct_start=rise)
            config["lr_scheduler"] = {"scheduler": schedule, "interval": "step"}
        return config

    def on_train_epoch_start(self) -> None:
        """Train mode, which scvi-tools leaves from the second ``train()`` on; start and mend the codebook."""
        self.module.train()
        codebook, last = self.module.codebook, self.trainer.max_epochs
        if not bool(codebook.initialised):
            if self.current_epoch >= self.warmup * last:
                codebook.initialise(
                    self._training_latents(),
                    max_leaves=self.max_leaves,
                    min_cells=self.min_cells,
                    generator=self._generator(),
                )
        elif self.current_epoch % RESEED_EPOCHS == 0 and bool(codebook.greedy):
            z = self._training_latents()
            codebook.reseed(
                z,
                codebook.assign(z),
                min_share=self.min_cells / (2 * len(z)),
                min_cells=self.min_cells,
                generator=self._generator(),
            )

    def _generator(self) -> torch.Generator:
        generator = torch.Generator()
        if self.seed is not None:
            generator.manual_seed(self.seed)
        return generator

    @torch.no_grad()
    def _training_latents(self) -> torch.Tensor:
        module = self.module
        module.eval()
        latents = []
        for tensors in self.trainer.datamodule.anchor_dataloader(INIT_CELLS):
            moved = {key: value.to(self.device) for key, value in tensors.items()}
            latents.append(module.inference(**module._get_inference_input(moved))["z"])
        module.train()
        return torch.cat(latents)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """One step; the codebook follows the latents by its running means."""
        inference_outputs, _, output = self.forward(batch, loss_kwargs=self.loss_kwargs)
        self._log(output, "train", prog_bar=True)
        if "leaf" in inference_outputs:
            self.module.codebook.update(inference_outputs["z"].detach(), inference_outputs["leaf"])
        return output.loss

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """Loss of held-out pairs."""
        _, _, output = self.forward(batch, loss_kwargs=self.loss_kwargs)
        self._log(output, "validation", prog_bar=False)

    def _log(self, output: LossOutput, mode: str, *, prog_bar: bool) -> None:
        n, sync = output.n_obs_minibatch, self.use_sync_dist
        name = "train_loss" if mode == "train" else "validation_loss"
        settings = {"on_step": self.on_step, "on_epoch": self.on_epoch, "batch_size": n, "sync_dist": sync}
        self.log(name, output.loss, prog_bar=prog_bar, **settings)
        # Logged here and not by compute_and_log_metrics: its inference mode breaks extra metrics under DDP.
        extra = {f"{key}_{mode}": value for key, value in output.extra_metrics.items()}
        self.compute_and_log_metrics(
            replace(output, extra_metrics={}), self.train_metrics if mode == "train" else self.val_metrics, mode
        )
        self.log_dict(extra, **settings)
