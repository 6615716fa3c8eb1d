"""How the tree model is trained: schedule, codebook stages and logging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from scvi.train import TrainingPlan
from torch.optim.lr_scheduler import OneCycleLR

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scvi.module.base import BaseModuleClass, LossOutput

INIT_CELLS = 50_000
"""Largest number of cells the codebook starts from."""
RESEED_EPOCHS = 10
"""Every so many epochs leaves that lost their cells are given new ones."""


class OneCyclePlan(TrainingPlan):
    """scvi-tools' plan with AdamW under a one-cycle schedule.

    Parameters
    ----------
    module
        The module.
    lr
        Peak learning rate.
    eps
        Epsilon of AdamW. scvi-tools' 0.01 would swallow small gradients.
    weight_decay
        Weight decay of AdamW.
    **kwargs
        Keyword arguments of :class:`scvi.train.TrainingPlan`; what it does not know goes to the module's loss.
    """

    def __init__(
        self,
        module: BaseModuleClass,
        *,
        lr: float = 2e-3,
        eps: float = 1e-8,
        weight_decay: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("optimizer", "AdamW")
        super().__init__(module, lr=lr, eps=eps, weight_decay=weight_decay, **kwargs)

    def _optimizer_creator_fn(self, optimizer_cls: type[torch.optim.Optimizer]) -> Any:
        """The fused step, one pass over the parameters; not in mixed precision, where Lightning can not clip it."""
        fused = "mixed" not in str(self.trainer.precision)
        settings = {"lr": self.lr, "eps": self.eps, "weight_decay": self.weight_decay, "fused": fused}
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


class PairPlan(OneCyclePlan):
    """Training on pairs of neighbours, whose losses are added up on the device.

    Parameters
    ----------
    module
        The module.
    **kwargs
        Keyword arguments of :class:`OneCyclePlan`; what it does not know goes to the module's loss.
    """

    def __init__(self, module: BaseModuleClass, **kwargs: Any) -> None:
        super().__init__(module, **kwargs)
        # of each mode: weighted sums since its epoch began, the weights' sum, names
        self._sums: dict[str, tuple[torch.Tensor, int, tuple[str, ...]]] = {}

    def on_train_epoch_start(self) -> None:
        """Train mode, which scvi-tools leaves from the second ``train()`` on."""
        self.module.train()
        self._sums.pop("train", None)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """One step."""
        return self._step(batch)[1].loss

    def _step(self, batch: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], LossOutput]:
        """What inference says of a minibatch, and its loss, which is logged."""
        if "kl_weight" in self.loss_kwargs:
            self.loss_kwargs["kl_weight"] = self.kl_weight
        inference_outputs, _, output = self.forward(batch, loss_kwargs=self.loss_kwargs)
        self._add(output, "train")
        # not when the epoch ends: the progress bar, a callback, reads the loss before the plan's own hook is called
        if self.trainer.is_last_batch:
            self._log_means("train")
        return inference_outputs, output

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """Loss of held-out pairs."""
        _, _, output = self.forward(batch, loss_kwargs=self.loss_kwargs)
        self._add(output, "validation")

    def on_validation_epoch_start(self) -> None:
        """Forget what was added up before."""
        self._sums.pop("validation", None)

    def on_validation_epoch_end(self) -> None:
        """Log the means over the held-out pairs."""
        self._log_means("validation")

    def _add(self, output: LossOutput, mode: str) -> None:
        """Add the loss and its terms up on the device: to log them one by one took a tenth of a step."""
        reconstruction = output.reconstruction_loss["reconstruction_loss"].mean()
        values = {f"{mode}_loss": output.loss, f"elbo_{mode}": reconstruction}
        kl = output.kl_local["kl_local"]
        if kl.ndim:
            values |= {f"reconstruction_loss_{mode}": reconstruction, f"kl_local_{mode}": kl.mean()}
            values[f"elbo_{mode}"] = reconstruction + kl.mean()
        values |= {f"{name}_{mode}": value for name, value in output.extra_metrics.items()}
        if self.on_step:
            self.log_dict({f"{name}_step": value for name, value in values.items()}, on_step=True, on_epoch=False)
        now = torch.stack([value.detach().float() for value in values.values()]) * output.n_obs_minibatch
        sums, n_cells, _ = self._sums.get(mode, (torch.zeros_like(now), 0, ()))
        self._sums[mode] = (sums + now, n_cells + output.n_obs_minibatch, tuple(values))

    def _log_means(self, mode: str) -> None:
        if mode not in self._sums:
            return
        sums, n_cells, names = self._sums.pop(mode)
        means = dict(zip(names, sums / n_cells, strict=True))
        # scvi-tools' name; without a prior the bound is the reconstruction
        means.setdefault(f"reconstruction_loss_{mode}", means[f"elbo_{mode}"])
        loss = f"{mode}_loss"
        settings = {"on_step": False, "on_epoch": True, "batch_size": 1, "sync_dist": self.use_sync_dist}
        self.log(loss, means.pop(loss), prog_bar=mode == "train", **settings)
        self.log_dict(means, **settings)


class TreeTrainingPlan(PairPlan):
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
        Share of the epochs after which the codebook is started on the latents, if nothing structures it.
    structure
        Called with the latents (n, d) of training cells; gives the codebook a tree over them. Between the calls the
        codes follow by their running means, and after the last one the tree stays.
    structure_at
        Shares of the epochs after which it is called.
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
        structure: Callable[[torch.Tensor], None] | None = None,
        structure_at: Sequence[float] = (0.3, 0.5, 0.7, 0.85),
        lr: float = 2e-3,
        eps: float = 1e-8,
        weight_decay: float = 1e-4,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(module, lr=lr, eps=eps, weight_decay=weight_decay, **kwargs)
        self.structure, self.structure_at = structure, tuple(structure_at)
        self.max_leaves = max_leaves
        self.min_cells = min_cells
        self.warmup = warmup
        self.seed = seed

    def on_train_epoch_start(self) -> None:
        """Train mode, which scvi-tools leaves from the second ``train()`` on; start and mend the codebook."""
        super().on_train_epoch_start()
        codebook, last = self.module.codebook, self.trainer.max_epochs
        if self.structure is not None:
            if self.current_epoch in {int(share * last) for share in self.structure_at}:
                self.structure(self._training_latents())
        elif not bool(codebook.initialised):
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
        inference_outputs, output = self._step(batch)
        if "leaf" in inference_outputs:
            self.module.codebook.update(inference_outputs["z"].detach(), inference_outputs["leaf"])
        return output.loss


class GrowingPlan(PairPlan):
    """Training in which a tree is grown, and in the end pruned, between epochs.

    Parameters
    ----------
    module
        The module.
    grow
        Called between epochs with the number of the time, from 0; gives a record of each split made.
    grow_at
        Shares of the epochs after which it is called.
    prune
        Called like it, in the end; gives a record of each leaf taken away.
    prune_at
        Share of the epochs after which it is called.
    growth
        List to which the records are added.
    **kwargs
        Keyword arguments of :class:`PairPlan`.
    """

    def __init__(
        self,
        module: BaseModuleClass,
        *,
        grow: Callable[[int], list[dict[str, Any]]],
        grow_at: Sequence[float] = (0.4, 0.6, 0.75),
        prune: Callable[[int], list[dict[str, Any]]],
        prune_at: float = 0.85,
        growth: list[dict[str, Any]],
        **kwargs: Any,
    ) -> None:
        super().__init__(module, **kwargs)
        self.grow, self.grow_at = grow, tuple(grow_at)
        self.prune, self.prune_at = prune, prune_at
        self.growth = growth

    def on_train_epoch_start(self) -> None:
        """Grow or prune when it is time."""
        super().on_train_epoch_start()
        epoch, last = self.current_epoch, self.trainer.max_epochs
        for stage, share in enumerate(self.grow_at):
            if epoch == round(share * last):
                self._changed(self.grow(stage), "grow")
        if epoch == round(self.prune_at * last):
            self._changed(self.prune(len(self.grow_at)), "prune")

    def _changed(self, records: list[dict[str, Any]], stage: str) -> None:
        self.growth += [{"epoch": self.current_epoch, "stage": stage} | record for record in records]
        self.module.train()

    def on_train_epoch_end(self) -> None:
        """Show how many leaves there are."""
        super().on_train_epoch_end()
        self.log("n_leaves", float(len(self.module.tree.leaf_slots())), prog_bar=True, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What was grown travels with the checkpoint."""
        checkpoint["growth"] = self.growth

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it up again."""
        self.growth[:] = checkpoint["growth"]
