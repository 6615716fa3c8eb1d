"""A class more, without a change to the others."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS

from hdtree_sc._errors import listing, whole_number
from hdtree_sc._keys import UNKNOWN
from hdtree_sc.data._category_names import text_of
from hdtree_sc.data._obsm_field import features_of
from hdtree_sc.data._points import PointSplitter
from hdtree_sc.model._cell_maker import seeded
from hdtree_sc.model._class_mixin import ClassMixin
from hdtree_sc.model._diffusion_mixin import LEAST_HEIGHT, STEPS, drawn_points, where_of
from hdtree_sc.module._branched import GaussianClasses
from hdtree_sc.module._branched_diffusion import BranchTraining
from hdtree_sc.module._donors import Donors
from hdtree_sc.module._latent_diffusion import Where
from hdtree_sc.train import DiffusionPlan, TreeTrainer
from hdtree_sc.tree._branch_points import mixing_levels

if TYPE_CHECKING:
    from hdtree_sc.module._branched_diffusion import BranchedLatentDiffusion

LEAST_CELLS = 10
EPOCHS = 20
OFFSET_CELLS = 2_000
OFFSET_STEPS = 200
OFFSET_SD = 1.0
"""Prior standard deviation of the offset of a gene, in log expression."""


class ExtensionMixin(ClassMixin):
    """``add_class``."""

    diffusion_params_: dict[str, Any] | None = None

    def add_class(
        self,
        adata: AnnData,
        label: str,
        *,
        attach: str | None = None,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        batch_size: int = 256,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Teach the model one more class; what it gives of the others stays the same to the bit.

        The class is attached to the tree at the lowest node all of whose classes it is mixed with at that node's branch
        point. A small network of its own speaks below its branch point, and its genes get an offset in the decoder;
        nothing else is trained.

        Parameters
        ----------
        adata
            Cells of the new class, all of them, with all genes of the model. Not changed.
        label
            Its name.
        attach
            Name of an inner node to attach it to; the data choose by default.
        max_epochs
            Passes of 50 steps; 20 by default.
        accelerator
            Lightning accelerator.
        batch_size
            Cells in a minibatch.
        plan_kwargs
            Keyword arguments of the training plan (``lr``, ``weight_decay``, ``decay``).
        **trainer_kwargs
            Keyword arguments of :class:`scvi.train.Trainer`.

        Raises
        ------
        RuntimeError
            Before training, or of a query model.
        ValueError
            If the model has the class, there are fewer than 10 cells, genes are missing, ``attach`` is no inner node,
            or a number is no whole number of at least 1.
        KeyboardInterrupt
            After Ctrl-C. The model is as it was before, here and after each of the errors.

        References
        ----------
        arXiv 2212.10777, class extension; there a head of its own below the branch point.
        """
        self._require_generator("add_class")  # type: ignore[attr-defined]
        self._refuse_query("add_class")  # type: ignore[attr-defined]
        for name, value in (("max_epochs", max_epochs), ("batch_size", batch_size)):
            if value is not None:
                whole_number(name, value)
        tree, label = self._classes, text_of(label)
        number = self._check_extension(adata, label, attach)
        seed = self._seed()  # type: ignore[attr-defined]
        bare = self._without_label(adata)
        cells = self._cells_of_class(bare)
        diffusion: BranchedLatentDiffusion = copy.deepcopy(self.module.diffusion).cpu()  # type: ignore[attr-defined]
        drawn = diffusion.whiten(drawn_points(cells, seed)).double()
        held = torch.tensor([tree.number_of(name) for name in tree.classes])
        means = torch.cat([diffusion.node_means[held].double(), drawn.mean(0, keepdim=True)])
        levels = mixing_levels(means.numpy(), diffusion.within.double().numpy())[-1, :-1]
        grown = tree.attach(label, levels.clip(LEAST_HEIGHT, diffusion.schedule.highest), adata.n_obs, node=number)
        own = len(tree)
        with seeded(seed):
            branch = diffusion.grow(grown.parents[own], grown.opens[own], drawn.mean(0).float())
        cells["node"] = torch.full((adata.n_obs,), own)
        cells["label"] = torch.zeros_like(cells["node"])
        learned: dict[str, torch.Tensor] = {name: cells[name] for name in ("node", "label", "scatter") if name in cells}
        learned["points"] = diffusion.whiten(cells["points"])
        splitter = PointSplitter(
            learned,
            None,
            batch_size=batch_size,
            n_batches=STEPS,
            train_idx=np.arange(adata.n_obs),
            val_idx=None,
            seed=seed,
        )
        training = BranchTraining(branch, diffusion.eval(), own)
        plan = DiffusionPlan(training, where_of, **({"seed": seed} | (plan_kwargs or {})))
        options: dict[str, Any] = {
            "gradient_clip_val": 1.0, "logger": False, "enable_checkpointing": False, "devices": 1,
        }  # fmt: skip
        # the whole is moved by hand: it is no part of what is trained
        trainer = TreeTrainer(
            max_epochs=int(max_epochs or EPOCHS), accelerator=accelerator, **(options | trainer_kwargs)
        )
        diffusion.to(trainer.strategy.root_device)
        trainer.fit(plan, datamodule=splitter)
        if trainer.interrupted:
            msg = "add_class was interrupted: the model is as it was before."
            raise KeyboardInterrupt(msg)
        training.load_state_dict(plan.learned(best=False))
        cells["offset"] = self._fitted_offset(bare, cells)
        self._take_in(label, grown.to_dict(), diffusion, cells, own)

    def _check_extension(self, adata: AnnData, label: str, attach: str | None) -> int | None:
        """Refuse what can not be added; the number of the node to attach to."""
        tree = self._classes
        if not label.strip() or label in (UNKNOWN, "None"):
            msg = f"label: a name wanted, got {label!r}."
            raise ValueError(msg)
        if self._label_named(label) is not None:  # type: ignore[attr-defined]
            msg = f"label: the model has {label!r} already. Its classes: {listing(tree.classes)}."
            raise ValueError(msg)
        if adata.n_obs < LEAST_CELLS:
            msg = f"adata: {adata.n_obs} cells of {label!r}; at least {LEAST_CELLS} are needed to learn a class."
            raise ValueError(msg)
        genes, key = self.get_var_names(), self._setup("obsm_key")  # type: ignore[attr-defined]
        held = set(features_of(adata, key))
        lost = [gene for gene in genes if gene not in held]
        if lost:
            msg = f"adata lacks {len(lost)} of the model's {len(genes)} genes ({listing(lost)}): add_class needs all."
            raise ValueError(msg)
        if attach is None:
            return None
        names = tree.names()
        inner = [name for name, own in zip(names, tree.labels, strict=True) if not own]
        if attach not in inner:
            msg = f"attach: {attach!r} is no inner node of the tree. It has: {listing(inner)}."
            raise ValueError(msg)
        return names.index(attach)

    def _without_label(self, adata: AnnData) -> AnnData:
        """The cells without the label, which the registry of the model does not have; the matrix is not copied."""
        column = self._setup("labels_key")  # type: ignore[attr-defined]
        obs = adata.obs.drop(columns=[column], errors="ignore")
        return AnnData(adata.X, obs=obs, var=adata.var[[]], layers=dict(adata.layers), obsm=dict(adata.obsm))

    def _fitted_offset(self, adata: AnnData, cells: dict[str, torch.Tensor]) -> torch.Tensor:
        """What the genes of the new cells have that the decoder does not tell, (n_input,): a MAP estimate.

        The decoder stays as it is; a normal prior keeps genes that it tells well where they are.
        """
        module = self.module  # type: ignore[attr-defined]
        offset = torch.zeros_like(module.scaler.mean)
        if module.encoder_kind == "none":
            return offset
        rows = np.random.default_rng(0).permutation(adata.n_obs)[:OFFSET_CELLS]
        x = torch.cat([tensors[REGISTRY_KEYS.X_KEY] for tensors in self._batches(adata, np.sort(rows), None, None)])
        held = torch.from_numpy(np.sort(rows))
        z, covariates, library = (cells[name][held].to(x.device) for name in ("points", "covariates", "library"))
        offset.requires_grad_()
        optimizer = torch.optim.Adam([offset], lr=0.05)
        with torch.enable_grad():
            for _ in range(OFFSET_STEPS):
                told = module.generative(z, covariates, library, offset=offset)["px"]
                prior = 0.5 * (offset / OFFSET_SD).square().sum()
                (gradient,) = torch.autograd.grad(prior - told.log_prob(x).sum(), offset)
                offset.grad = gradient / len(x)
                optimizer.step()
        return offset.detach()

    @torch.inference_mode()
    def _cells_of_class(self, adata: AnnData) -> dict[str, torch.Tensor]:
        module = self.module  # type: ignore[attr-defined]

        def read(tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
            out = self._inferred(tensors)
            batch = tensors[REGISTRY_KEYS.BATCH_KEY][:, 0].long()
            return out["z"].float(), out["scatter"].float(), batch, module._library(tensors), module.covariates(tensors)

        names = ("points", "scatter", "batch", "library", "covariates")
        values = self._over(self._batches(adata, None, None, None), read)
        return dict(zip(names, (torch.from_numpy(part) for part in values), strict=True))

    def _take_in(
        self,
        label: str,
        tree: dict[str, Any],
        diffusion: BranchedLatentDiffusion,
        cells: dict[str, torch.Tensor],
        own: int,
    ) -> None:
        """Make the new class a part of the model, all at once."""
        module = self.module  # type: ignore[attr-defined]
        donors = Donors(len(cells["node"]), cells["covariates"].shape[1])
        donors.fill(Where(cells["node"], cells["label"]), cells["batch"], cells["library"], cells["covariates"])
        joined = module.donors.joined(donors)
        before = module.classes
        classes = GaussianClasses(len(before.means) + 1, module.n_latent).to(before.means.device)
        classes.means.copy_(torch.cat([before.means, cells["points"].mean(0, keepdim=True).to(before.means)]))
        classes.precision.copy_(before.precision)
        total = tree["n_cells"][0]
        sizes = [n for n, name in zip(tree["n_cells"], tree["labels"], strict=True) if name]
        classes.log_prior.copy_(torch.log(torch.tensor(sizes) / total))
        params: dict[str, Any] = copy.deepcopy(self.diffusion_params_ or {})
        params["diffusion"]["attached"] = [*params["diffusion"].get("attached", []), tree["parents"][own]]
        params["donors"] = list(joined.covariates.shape)
        known = (
            module.offsets if module.offsets is not None else module.scaler.mean.new_zeros(own, len(cells["offset"]))
        )
        module.offsets = torch.cat([known, cells["offset"].to(known)[None]])
        module.classes = classes
        module.set_generator(diffusion.to(module.device).eval(), joined.to(module.device), module.space)
        self.diffusion_params_, self.class_tree_ = params, tree
