"""Training of the second stage: a diffusion over the cells of a tree that stays as it is."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS

from hdtree_sc._errors import listing, whole_number
from hdtree_sc.data._category_names import positions_of
from hdtree_sc.data._points import PointSplitter
from hdtree_sc.model._class_moments import class_moments
from hdtree_sc.module._donors import Donors
from hdtree_sc.module._latent_diffusion import LatentDiffusion, Where
from hdtree_sc.module._spaces import SPACES
from hdtree_sc.train import DiffusionPlan, TreeTrainRunner
from hdtree_sc.tree._branch_points import mixing_levels, node_heights
from hdtree_sc.tree._sums import subtree_sums

if TYPE_CHECKING:
    from pathlib import Path

    from hdtree_sc.module._spaces import Space
    from hdtree_sc.nn._path_conditioner import Gate

EPOCHS = 40
STEPS = 50
"""Smallest number of steps that count as an epoch."""
MOST_STEPS = 20_000
"""Steps of a default training of very many cells."""
VALIDATED = 2_048
"""Smallest number of held-out cells and noises that validation looks at."""
DONORS = 20_000
"""Cells whose library size and covariates are kept."""
MOMENT_CELLS = 50_000
"""Branch points are learned from so many cells."""
LEAST_HEIGHT = -3.0
"""Lowest branch point: what would part below it parts here, so that its nodes can be told apart at all."""


def where_of(batch: dict[str, torch.Tensor]) -> Where:
    """Conditions of a minibatch of cached points."""
    return Where(batch["node"], batch["label"], batch.get("signal"))


def drawn_points(cells: dict[str, torch.Tensor], seed: int) -> torch.Tensor:
    """Points of cells, (n, d): drawn once where they are known up to a normal error."""
    points = cells["points"]
    if "scatter" not in cells:
        return points
    generator = torch.Generator().manual_seed(seed)
    return points + cells["scatter"] * torch.randn(points.shape, generator=generator)


class DiffusionMixin:
    """``train_diffusion`` of a model that has a tree and a latent."""

    diffusion_params_: dict[str, Any] | None = None

    def train_diffusion(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        batch_size: int = 256,
        *,
        space: Space = "latent",
        gate: Gate = "soft",
        n_hidden: int = 256,
        n_blocks: int = 3,
        target: str = "v",
        schedule: str = "cosine",
        early_stopping: bool = False,
        checkpoint_dir: str | Path | None = None,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the generator: a diffusion over the latents of the training cells, told where in the tree they are.

        Encoder, decoder and tree stay as they are. Latents are whitened, and the network is told the cell's tree path
        and, with ``labels_key``, its label; either is left out or shortened at random, so that one network generates
        any node, any label, and the data as a whole. Ctrl-C ends training early and leaves a usable generator.

        Parameters
        ----------
        max_epochs
            Passes of at least 50 steps each; by default 40, and fewer for more than 100,000 cells.
        accelerator
            Lightning accelerator.
        devices
            Lightning devices; one is enough for latents.
        batch_size
            Cells in a minibatch.
        space
            ``"latent"``, or ``"expression"``: the principal components that the encoder reads, as the paper has it,
            turned back to expression without a network.
        gate
            When a node of the path is told: ``"soft"`` or ``"step"``, where the noise is below the branch point that it
            comes from, so that siblings share all that happens above; ``"none"``, always.
        n_hidden
            Width of the denoiser.
        n_blocks
            Number of its residual blocks.
        target
            What it answers: ``"v"``, ``"eps"`` or ``"x0"``.
        schedule
            ``"cosine"`` or ``"linear"``.
        early_stopping
            Whether to stop when ``diffusion_validation_loss``, taken of held-out cells at noise that never changes, no
            longer falls; the weights of the best epoch are kept then. On few cells it rises long before generated
            cells are as diverse as real ones, so that it is off by default.
        checkpoint_dir
            Folder of ``last.ckpt``, written every tenth epoch. After a crash call
            ``train_diffusion(ckpt_path=".../last.ckpt")`` on the same model with the same arguments: on a CPU the
            generator and the history are those of a training that was not stopped.
        plan_kwargs
            Keyword arguments of the training plan (``lr``, ``weight_decay``, ``decay``).
        **trainer_kwargs
            Keyword arguments of :class:`scvi.train.Trainer`, with ``ckpt_path`` to resume from.

        Raises
        ------
        RuntimeError
            Before ``train()``, or of a query model.
        ValueError
            If an option is unknown.

        Notes
        -----
        Sets ``model.history["diffusion_train_loss"]`` and ``["diffusion_validation_loss"]``. Building the tree anew
        makes the generator void.

        References
        ----------
        Path conditions as in TreeDiffusion (arXiv 2410.16910), gates as in branched diffusion (arXiv 2212.10777).
        """
        self._require_trained("train_diffusion")  # type: ignore[attr-defined]
        self._require_training_cells("train_diffusion")  # type: ignore[attr-defined]
        if space not in SPACES:
            msg = f"space: {space!r} is none of {listing(SPACES)}."
            raise ValueError(msg)
        whole_number("batch_size", batch_size)
        if max_epochs is not None:
            whole_number("max_epochs", max_epochs)
        if early_stopping and not len(self._validation_rows()):  # type: ignore[attr-defined]
            msg = "early_stopping watches validation cells, and train() left none: train with a lower train_size."
            raise ValueError(msg)
        given: dict[str, Any] = {
            "batch_size": batch_size, "space": space, "gate": gate, "n_hidden": n_hidden, "n_blocks": n_blocks,
            "target": target, "schedule": schedule, "plan_kwargs": plan_kwargs or {},
        }  # fmt: skip
        facts = self._facts("train_diffusion", of_weights=True, **given, **self._generator_options())  # type: ignore[attr-defined]
        resumed = self._resumed(trainer_kwargs.get("ckpt_path"), facts)  # type: ignore[attr-defined]
        cells = self._cells_to_learn(space)
        seed = self._seed()  # type: ignore[attr-defined]
        params = {
            "n_features": cells["points"].shape[1],
            "parents": self.get_tree().parents.tolist(),  # type: ignore[attr-defined]
            "n_code": self.module.n_latent,  # type: ignore[attr-defined]
            "n_labels": self._n_label_conditions,
            "n_hidden": n_hidden,
            "n_blocks": n_blocks,
            "gate": gate,
            "target": target,
            "schedule": schedule,
        } | self._generator_options()
        diffusion, donors = self._new_generator(params, cells, seed, space)
        splitter = self._point_splitter(diffusion, cells, batch_size, seed)
        plan = DiffusionPlan(diffusion, where_of, **({"seed": seed} | (plan_kwargs or {})))
        trainer_kwargs.setdefault("gradient_clip_val", 1.0)
        trainer_kwargs.setdefault("check_val_every_n_epoch", 1)
        trainer_kwargs.setdefault("early_stopping_monitor", "diffusion_validation_loss")
        trainer_kwargs.setdefault("early_stopping_patience", 10)
        if max_epochs is None:
            default = int(np.clip(MOST_STEPS // len(splitter.train_dataloader()), 5, EPOCHS))
            max_epochs = resumed.get("max_epochs", default)
        runner = TreeTrainRunner(
            self,
            training_plan=plan,
            data_splitter=splitter,
            max_epochs=int(max_epochs),
            accelerator=accelerator,
            devices=devices,
            early_stopping=early_stopping,
            checkpoint_dir=checkpoint_dir,
            facts=facts,
            **trainer_kwargs,
        )
        runner()
        if runner.trainer.interrupted:
            warnings.warn("Training was interrupted: the generator is what was learned so far.", stacklevel=2)
        module = self.module  # type: ignore[attr-defined]
        diffusion.load_state_dict(plan.learned(best=early_stopping))
        module.set_generator(diffusion.to(module.device).eval(), donors.to(module.device), space)
        self.diffusion_params_ = {"diffusion": params, "donors": list(donors.covariates.shape), "space": space}

    def _generator_options(self) -> dict[str, Any]:
        """Further arguments of this model's diffusion."""
        return {}

    def _forget_generator(self) -> None:
        """The tree that the generator was told is no more."""
        self.module.set_generator(None, None)  # type: ignore[attr-defined]
        self.diffusion_params_ = None

    @property
    def _told_labels(self) -> list[str]:
        """Names of the labels that the generator can be told, in its order."""
        return self._registered_labels  # type: ignore[attr-defined]

    @property
    def _n_label_conditions(self) -> int:
        """Labels that the generator is told beside the path."""
        return len(self._told_labels)

    @property
    def _numbers(self) -> torch.Tensor:
        """Number under which the generator knows each node, in tree order."""
        return torch.arange(len(self.get_tree()))  # type: ignore[attr-defined]

    def _leaf_numbers(self, z: torch.Tensor) -> torch.Tensor:
        """Number under which the generator knows each latent's leaf, int (n,)."""
        return self._numbers.to(z.device)[self._leaf_positions(z)]  # type: ignore[attr-defined]

    @property
    def _label_positions(self) -> torch.Tensor:
        """From the registry's number of a label to its position among those told, 0 for the unknown one."""
        state = self._state_of(REGISTRY_KEYS.LABELS_KEY)  # type: ignore[attr-defined]
        # a query may hold labels that training did not know: they are appended to the registered ones
        return torch.from_numpy(positions_of(state["categorical_mapping"], self._told_labels) + 1)

    def _known_labels(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Position among the labels told, from 1, of the cells of a minibatch; 0 where a label is not known."""
        number = tensors[REGISTRY_KEYS.LABELS_KEY][:, 0].long()
        positions = self._label_positions.to(number.device)
        known = number < len(positions)
        return torch.where(known, positions[number.clamp_max(len(positions) - 1)], 0)

    def _whereabouts(self, tensors: dict[str, torch.Tensor], z: torch.Tensor) -> Where:
        """Leaf, by its position in the tree, and label of a minibatch of cells."""
        return Where(self._leaf_positions(z), self._known_labels(tensors))  # type: ignore[attr-defined]

    @torch.inference_mode()
    def _cells_to_learn(self, space: Space) -> dict[str, torch.Tensor]:
        """What the generator learns of all cells, in one pass over them."""
        module = self.module  # type: ignore[attr-defined]
        has_scatter = module.is_variational and space == "latent"

        def read(tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
            told = self._inferred(tensors)  # type: ignore[attr-defined]
            z = told["z"].float()
            where = self._whereabouts(tensors, z)
            points = z if space == "latent" else SPACES[space].points(module, tensors)
            batch = tensors[REGISTRY_KEYS.BATCH_KEY][:, 0].long()
            scatter = [told["scatter"]] if has_scatter else []
            return (
                points, where.node, where.label, batch, module._library(tensors), module.covariates(tensors), *scatter,
            )  # fmt: skip

        batches = self._batches(self.adata, None, None, None)  # type: ignore[attr-defined]
        names = ("points", "node", "label", "batch", "library", "covariates", *["scatter"] * has_scatter)
        return dict(zip(names, map(torch.from_numpy, self._over(batches, read)), strict=True))  # type: ignore[attr-defined]

    def _new_generator(
        self, params: dict[str, Any], cells: dict[str, torch.Tensor], seed: int, space: Space
    ) -> tuple[LatentDiffusion, Donors]:
        rows = torch.as_tensor(np.asarray(self.train_indices_))  # type: ignore[attr-defined]
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            diffusion = self.module._diffusion_cls(**params)  # type: ignore[attr-defined]
            chosen = rows[torch.randperm(len(rows))]
        drawn = drawn_points(cells, seed)
        diffusion.fit_whitening(drawn[rows])
        cells["points"], cells["drawn"] = diffusion.whiten(cells["points"]), diffusion.whiten(drawn)
        kept = chosen[:DONORS]
        donors = Donors(len(kept), cells["covariates"].shape[1])
        held = {name: values[kept] for name, values in cells.items()}
        donors.fill(Where(held["node"], held["label"]), held["batch"], held["library"], held["covariates"])
        self._find_branch_points(diffusion, {name: values[chosen[:MOMENT_CELLS]] for name, values in cells.items()})
        return diffusion, donors

    def _find_branch_points(self, diffusion: LatentDiffusion, cells: dict[str, torch.Tensor]) -> None:
        """Where the nodes of the tree, and the labels, part, in the very space in which diffusion runs."""
        tree = self.get_tree()  # type: ignore[attr-defined]
        points, top = cells["drawn"].numpy(), diffusion.schedule.highest
        leaf = np.cumsum(tree.is_leaf_mask)[cells["node"].numpy()] - 1
        means, covariance = class_moments(points, leaf, len(tree.leaves))
        between = mixing_levels(means, covariance)
        heights = np.where(tree.is_leaf_mask, -np.inf, node_heights(tree, between).clip(LEAST_HEIGHT, top))
        codes = torch.tensor(np.array(tree.codebook))
        # of a root alone there is no spread
        scale = codes.std(0).clamp_min(1e-6) if len(codes) > 1 else torch.ones_like(codes[0])
        diffusion.path.describe((codes - codes.mean(0)) / scale, torch.from_numpy(heights))
        size = np.zeros(len(tree))
        size[tree.is_leaf_mask] = np.bincount(leaf, minlength=len(tree.leaves))
        sums = np.zeros((len(tree), points.shape[1]))
        sums[tree.is_leaf_mask] = np.nan_to_num(means) * size[tree.is_leaf_mask, None]
        of_nodes = subtree_sums(tree, sums) / np.maximum(subtree_sums(tree, size), 1.0)[:, None]
        diffusion.node_means.copy_(torch.from_numpy(of_nodes))
        known = cells["label"].numpy() > 0
        n_labels = self._n_label_conditions
        if n_labels and known.sum() > 1:
            levels = np.full((n_labels + 1, n_labels + 1), top)
            means, covariance = class_moments(points[known], cells["label"].numpy()[known] - 1, n_labels)
            diffusion.label_means[1:] = torch.from_numpy(np.nan_to_num(means)).float()
            found = mixing_levels(means, covariance)
            levels[1:, 1:] = found.clip(LEAST_HEIGHT, top)
            np.fill_diagonal(levels, -np.inf)
            diffusion.label_levels.copy_(torch.from_numpy(levels))
            heights = np.full(n_labels + 1, -np.inf)
            heights[0] = levels[1:, 1:].max() if n_labels > 1 else top
            diffusion.label.describe(torch.zeros(n_labels + 1, 1), torch.from_numpy(heights))

    def _point_splitter(
        self, diffusion: LatentDiffusion, cells: dict[str, torch.Tensor], batch_size: int, seed: int
    ) -> PointSplitter:
        learned = {name: cells[name] for name in ("points", "node", "label", "scatter", "signal") if name in cells}
        train_idx = np.asarray(self.train_indices_)  # type: ignore[attr-defined]
        val_idx = self._validation_rows()  # type: ignore[attr-defined]
        validation = None
        if len(val_idx):
            generator = torch.Generator().manual_seed(seed)
            # of few cells each is looked at in many ways
            rows = torch.as_tensor(np.asarray(val_idx)).repeat(-(-VALIDATED // len(val_idx)))
            shape = cells["drawn"][rows].shape
            where = diffusion.forget(where_of({name: values[rows] for name, values in learned.items()}), generator)
            validation = {"points": cells["drawn"][rows], "node": where.node, "label": where.label}
            if where.signal is not None:
                validation["signal"] = where.signal
            validation["noise"] = torch.randn(shape, generator=generator)
            validation["level"] = diffusion.levels_for_training(shape[0], generator, torch.device("cpu"))
        return PointSplitter(
            {name: values[torch.as_tensor(train_idx)] for name, values in learned.items()},
            validation,
            batch_size=batch_size,
            n_batches=STEPS,
            train_idx=train_idx,
            val_idx=val_idx,
            test_idx=self.test_indices,  # type: ignore[attr-defined]
            seed=seed,
        )
