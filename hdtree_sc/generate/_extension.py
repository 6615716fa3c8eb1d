"""One more class for a trained generator, without a change to the others."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS

from hdtree_sc._errors import listing
from hdtree_sc._keys import UNKNOWN
from hdtree_sc.data import PointSplitter, positions_of
from hdtree_sc.generate._arrays import seeded
from hdtree_sc.generate._fit import MIN_HEIGHT, STEPS, conditions_of, drawn_points
from hdtree_sc.module import BranchedLatentDiffusion, BranchTraining, Condition, CovariatePool, GaussianClasses
from hdtree_sc.train import DiffusionPlan, TreeTrainer
from hdtree_sc.tree import mixing_levels

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from hdtree_sc.module import BranchedModule
    from hdtree_sc.tree import ClassTree

MIN_CELLS = 10
"""Smallest number of cells of a class."""
EPOCHS = 20
OFFSET_CELLS = 2_000
OFFSET_STEPS = 200
OFFSET_SD = 1.0
"""Prior standard deviation of the offset of a gene, in log expression."""


class ClassExtension:
    """A class that is learned beside a model, and taken in at the end: until then the model is as it was.

    Parameters
    ----------
    module
        The trained module.
    tree
        The tree of its classes.
    seed
        Seed.
    """

    def __init__(self, module: BranchedModule, tree: ClassTree, *, seed: int) -> None:
        self.module, self.tree, self.seed = module, tree, seed
        # the number of the new class
        self.own = len(tree)
        self.cells: dict[str, torch.Tensor] = {}
        self.diffusion: BranchedLatentDiffusion

    def checked(self, n_cells: int, label: str, attach: str | None) -> int | None:
        """Refuse what cannot be added; the number of the node to attach to.

        Parameters
        ----------
        n_cells
            Cells of the class.
        label
            Its name.
        attach
            Name of an inner node, or None.

        Raises
        ------
        ValueError
            If the name is none, or taken, there are too few cells, or there is no such node.
        """
        tree = self.tree
        if not label.strip() or label in (UNKNOWN, "None"):
            msg = f"label: a name wanted, got {label!r}."
            raise ValueError(msg)
        if (positions_of([label], tree.classes) >= 0).any():
            msg = f"label: the model has {label!r} already. Its classes: {listing(tree.classes)}."
            raise ValueError(msg)
        if n_cells < MIN_CELLS:
            msg = f"adata: {n_cells} cells of {label!r}; at least {MIN_CELLS} are needed to learn a class."
            raise ValueError(msg)
        if attach is None:
            return None
        names = tree.names()
        inner = [name for name, own in zip(names, tree.labels, strict=True) if not own]
        if attach not in inner:
            msg = f"attach: {attach!r} is no inner node of the tree. It has: {listing(inner)}."
            raise ValueError(msg)
        return names.index(attach)

    def read(self, tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """What :meth:`attach` needs of a minibatch of cells of the class."""
        module = self.module
        found, batch = module.inferred(tensors), tensors[REGISTRY_KEYS.BATCH_KEY][:, 0].long()
        library, covariates = module._library(tensors), module.covariates(tensors)
        return found["z"].float(), found["scatter"].float(), batch, library, covariates

    def attach(self, label: str, parts: list[NDArray[Any]], node: int | None) -> None:
        """Attach the class to the tree, with a branch of its own that knows nothing yet.

        Parameters
        ----------
        label
            Its name.
        parts
            What :meth:`read` gave of its cells.
        node
            Number of the inner node to attach it to; None: the data choose.
        """
        names = ("points", "scatter", "batch", "library", "covariates")
        self.cells = cells = dict(zip(names, map(torch.from_numpy, parts), strict=True))
        tree, n_cells = self.tree, len(cells["points"])
        trained = self.module.diffusion
        assert isinstance(trained, BranchedLatentDiffusion)
        self.diffusion = diffusion = copy.deepcopy(trained).cpu()
        drawn = diffusion.whiten(drawn_points(cells, self.seed)).double()
        held = torch.tensor([tree.number_of(name) for name in tree.classes])
        means = torch.cat([diffusion.node_means[held].double(), drawn.mean(0, keepdim=True)])
        levels = mixing_levels(means.numpy(), diffusion.within.double().numpy())[-1, :-1]
        self.grown = tree.attach(label, levels.clip(MIN_HEIGHT, diffusion.schedule.highest), n_cells, node=node)
        with seeded(self.seed):
            self.branch = diffusion.grow(
                self.grown.parents[self.own], self.grown.opens[self.own], drawn.mean(0).float()
            )
        cells["node"] = torch.full((n_cells,), self.own)
        cells["label"] = torch.zeros_like(cells["node"])

    def train(
        self,
        *,
        max_epochs: int | None,
        accelerator: str,
        batch_size: int,
        plan_kwargs: dict[str, Any] | None,
        trainer_kwargs: dict[str, Any],
    ) -> None:
        """Train the branch; see :meth:`BranchedDiffusion.add_class`.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C.
        """
        cells, diffusion = self.cells, self.diffusion
        learned = {name: cells[name] for name in ("node", "label", "scatter")}
        learned["points"] = diffusion.whiten(cells["points"])
        splitter = PointSplitter(
            learned,
            None,
            batch_size=batch_size,
            n_batches=STEPS,
            train_idx=np.arange(len(cells["points"])),
            val_idx=None,
            seed=self.seed,
        )
        training = BranchTraining(self.branch, diffusion.eval(), self.own)
        plan = DiffusionPlan(training, conditions_of, **({"seed": self.seed} | (plan_kwargs or {})))
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

    def offset_rows(self) -> NDArray[np.integer] | None:
        """Rows of the cells that :meth:`fit_offset` needs, ascending; None: it needs none."""
        if self.module.encoder_kind == "none":
            return None
        return np.sort(np.random.default_rng(0).permutation(len(self.cells["points"]))[:OFFSET_CELLS])

    def fit_offset(self, batches: Iterable[dict[str, torch.Tensor]], rows: NDArray[np.integer] | None) -> None:
        """Learn what the genes of the new cells have that the decoder does not give, (n_input,): a MAP estimate.

        The decoder stays as it is; a normal prior keeps genes that it gives well where they are.

        Parameters
        ----------
        batches
            Minibatches of the cells in ``rows``.
        rows
            See :meth:`offset_rows`.
        """
        module, cells = self.module, self.cells
        offset = torch.zeros_like(module.scaler.mean)
        cells["offset"] = offset
        if rows is None:
            return
        x = torch.cat([tensors[REGISTRY_KEYS.X_KEY] for tensors in batches])
        held = torch.from_numpy(rows)
        z, covariates, library = (cells[name][held].to(x.device) for name in ("points", "covariates", "library"))
        offset.requires_grad_()
        optimizer = torch.optim.Adam([offset], lr=0.05)
        with torch.enable_grad():
            for _ in range(OFFSET_STEPS):
                distribution = module.generative(z, covariates, library, offset=offset)["px"]
                prior = 0.5 * (offset / OFFSET_SD).square().sum()
                (gradient,) = torch.autograd.grad(prior - distribution.log_prob(x).sum(), offset)
                offset.grad = gradient / len(x)
                optimizer.step()
        cells["offset"] = offset.detach()

    def take_in(self, params: dict[str, Any]) -> dict[str, Any]:
        """Make the class a part of the module, all at once.

        Parameters
        ----------
        params
            Parameters of the second stage, as a file keeps them.

        Returns
        -------
        These with the class.
        """
        module, cells, own, tree = self.module, self.cells, self.own, self.grown
        pool = CovariatePool(len(cells["node"]), cells["covariates"].shape[1])
        pool.fill(Condition(cells["node"], cells["label"]), cells["batch"], cells["library"], cells["covariates"])
        before, held = module.classes, module.covariate_pool
        assert before is not None
        assert held is not None
        joined = held.joined(pool)
        classes = GaussianClasses(len(before.means) + 1, module.n_latent).to(before.means.device)
        classes.means.copy_(torch.cat([before.means, cells["points"].mean(0, keepdim=True).to(before.means)]))
        classes.precision.copy_(before.precision)
        sizes = [n for n, name in zip(tree.n_cells, tree.labels, strict=True) if name]
        classes.log_prior.copy_(torch.log(torch.tensor(sizes) / tree.n_cells[0]))
        params = copy.deepcopy(params)
        params["diffusion"]["attached"] = [*params["diffusion"].get("attached", []), tree.parents[own]]
        params["donors"] = list(joined.covariates.shape)
        offset = cells["offset"]
        known = module.offsets if module.offsets is not None else module.scaler.mean.new_zeros(own, len(offset))
        module.offsets = torch.cat([known, offset.to(known)[None]])
        module.classes = classes
        module.set_generator(self.diffusion.to(module.device).eval(), joined.to(module.device), module.space)
        return params
