"""A tree of the user's own classes: how it is found in noise level, and where cells are on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from scvi import REGISTRY_KEYS

from hdtree_sc._errors import listing, whole_number
from hdtree_sc.diffusion import NoiseSchedule, alpha_sigma
from hdtree_sc.model._class_moments import class_moments
from hdtree_sc.model._diffusion_mixin import LEAST_HEIGHT, drawn_points
from hdtree_sc.model._tree_mixin import TreeMixin
from hdtree_sc.module._branched import GaussianClasses
from hdtree_sc.module._branched_diffusion import BranchedLatentDiffusion
from hdtree_sc.module._latent_diffusion import Where
from hdtree_sc.tree._branch_points import cosine_levels, mixing_levels
from hdtree_sc.tree._class_tree import ClassTree, found_tree, given_tree, with_support

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.model._arguments import Rows
    from hdtree_sc.tree import Tree

Criterion = Literal["discriminability", "cosine"]
CRITERIA = ("discriminability", "cosine")
EPSILON = 0.01
"""Difference of cosines that counts as none, as published for single cells."""
N_BOOT = 50


class ClassMixin(TreeMixin):
    """Tree of classes, branch points, and the class that a latent is of."""

    class_tree_: dict[str, Any] | None = None
    _given: Tree | None = None

    @property
    def _classes(self) -> ClassTree:
        assert self.class_tree_ is not None
        return ClassTree.from_dict(self.class_tree_)

    @property
    def _schedule(self) -> NoiseSchedule:
        """The noise schedule; before there is a generator, that which it will have."""
        diffusion = self.module.diffusion  # type: ignore[attr-defined]
        return NoiseSchedule() if diffusion is None else diffusion.schedule

    # ---------------------------------------------------------------- found in data

    def _fit_before(self, train_indices: NDArray[np.int64]) -> None:
        """What is learned before training, once it is known that every class has cells to learn from."""
        labels = self.adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY)  # type: ignore[attr-defined]
        position = self._label_positions.numpy()[np.asarray(labels).ravel()[train_indices]]  # type: ignore[attr-defined]
        names = self._registered_labels  # type: ignore[attr-defined]
        size = np.bincount(position, minlength=len(names) + 1)[1:]
        if (size < 2).any():
            few = [name for name, n in zip(names, size, strict=True) if n < 2]
            msg = f"labels_key: {listing(few)} had fewer than two training cells: merge them, or raise train_size."
            raise ValueError(msg)
        super()._fit_before(train_indices)  # type: ignore[misc]

    def _learn_classes(self) -> None:
        """Find the tree of the classes, and where they lie, in the training cells."""
        cells = self._cells_to_learn("latent")  # type: ignore[attr-defined]
        rows = torch.as_tensor(np.asarray(self.train_indices_))  # type: ignore[attr-defined]
        space = BranchedLatentDiffusion(cells["points"].shape[1], parents=[-1], n_code=1)
        seed = self._seed()  # type: ignore[attr-defined]
        drawn = drawn_points(cells, seed)
        space.fit_whitening(drawn[rows])
        number: NDArray[np.int64] = cells["label"][rows].numpy() - 1
        known = number >= 0
        rows, number = rows[torch.from_numpy(known)], number[known]
        points = space.whiten(drawn[rows]).numpy()
        names = self._registered_labels  # type: ignore[attr-defined]
        size = np.bincount(number, minlength=len(names))
        n_cells = size.tolist()

        def tree_of(x: NDArray[np.floating], classes: NDArray[np.integer]) -> ClassTree:
            levels = self._mixing(x, classes, len(names), space.schedule)
            if self._given is not None:
                return given_tree(self._given, levels, names, n_cells)
            return found_tree(levels, names, n_cells, method=self._option("linkage"))  # type: ignore[attr-defined]

        tree = tree_of(points, number)
        rng = np.random.default_rng(seed)
        replicates = []
        for _ in range(N_BOOT if self._given is None else 0):
            # each class keeps its cells, so that none is lost
            order = np.argsort(number, kind="stable")
            first = np.cumsum(size) - size
            again = order[first[number[order]] + (rng.random(len(order)) * size[number[order]]).astype(int)]
            replicates.append(tree_of(points[again], number[again]))
        self.class_tree_ = (with_support(tree, replicates) if replicates else tree).to_dict()
        z = cells["points"][rows].numpy()
        means, covariance = class_moments(z, number, len(names))
        self._set_classes(names, means, np.linalg.pinv(covariance), size)

    def _mixing(
        self, x: NDArray[np.floating], classes: NDArray[np.integer], n: int, schedule: NoiseSchedule
    ) -> NDArray[np.float64]:
        """Noise level that mixes each pair of classes, within the schedule."""
        means, covariance = class_moments(x, classes, n)
        if self._option("criterion") == "cosine":  # type: ignore[attr-defined]
            squared = np.bincount(classes, np.square(x).sum(1), n) / np.bincount(classes, minlength=n)
            levels = cosine_levels(means, squared, EPSILON)
        else:
            levels = mixing_levels(means, covariance)
        out = levels.clip(LEAST_HEIGHT, schedule.highest)
        np.fill_diagonal(out, -np.inf)
        return out

    def _set_classes(
        self, names: list[str], means: NDArray[np.floating], precision: NDArray[np.floating], size: NDArray[np.integer]
    ) -> None:
        module = self.module  # type: ignore[attr-defined]
        order = [names.index(name) for name in self._classes.classes]
        held = GaussianClasses(len(order), means.shape[1])
        held.means.copy_(torch.from_numpy(means[order]))
        held.precision.copy_(torch.from_numpy(precision))
        held.log_prior.copy_(torch.log(torch.from_numpy(size[order] / size.sum())))
        module.classes = held.to(module.device)

    def _find_branch_points(self, diffusion: Any, cells: dict[str, torch.Tensor]) -> None:
        """The heights that the tree has."""
        tree = self._classes
        diffusion.path.describe(torch.zeros_like(diffusion.path.codes), torch.tensor(tree.levels))
        below = torch.from_numpy(tree.below())
        member = below[cells["node"]].double()
        sums = member.T @ cells["drawn"].double()
        diffusion.node_means.copy_(sums / member.sum(0).clamp_min(1.0)[:, None])
        _, within = class_moments(cells["drawn"].numpy(), cells["node"].numpy(), len(tree))
        diffusion.within.copy_(torch.from_numpy(within))

    # ---------------------------------------------------------------- where things are, for the shared verbs

    @property
    def _told_labels(self) -> list[str]:
        """Names of all classes."""
        return self._registered_labels if self.class_tree_ is None else self._classes.classes  # type: ignore[attr-defined]

    @property
    def _n_label_conditions(self) -> int:
        # a class is the end of a path, and told as such
        return 0

    @property
    def _numbers(self) -> torch.Tensor:
        names = self._classes.names()
        return torch.tensor([names.index(name) for name in self.get_tree().nodes])

    def _place_named(self, name: object, argument: str) -> tuple[str, tuple[int, int]]:
        named, place = super()._place_named(name, argument)  # type: ignore[misc]
        # the leaf of a class may be called by its path
        return self._classes.labels[place[0]] or named, place

    def _told(self, node: str | None, label: object | None) -> tuple[int, int]:
        number, _ = super()._told(node, label)  # type: ignore[misc]
        if label is None:
            return number, 0
        own = self._classes.number_of(self._label_named(label))  # type: ignore[attr-defined]
        if node is not None and not self._classes.below()[own, number]:
            msg = f"node={node!r}, label={label!r}: the class is not below the node. Give one of them."
            raise ValueError(msg)
        return own, 0

    def _whereabouts(self, tensors: dict[str, torch.Tensor], z: torch.Tensor) -> Where:
        """Node by number: of the known label, else of the class that the latent is most likely of."""
        label = self._known_labels(tensors)  # type: ignore[attr-defined]
        if self.class_tree_ is None:
            return Where(torch.zeros_like(label), label)
        own = torch.tensor([0, *(self._classes.number_of(name) for name in self._told_labels)], device=z.device)
        found = self._leaf_numbers(z)  # type: ignore[attr-defined]
        return Where(torch.where(label > 0, own[label], found), torch.zeros_like(label))

    def _places_named(self, where: Where, there: tuple[int, int]) -> tuple[NDArray[Any], bool]:
        tree = self._classes
        names = [label or name for label, name in zip(tree.labels, tree.names(), strict=True)]
        return np.asarray(names)[where.node.cpu().numpy()], bool(tree.labels[there[0]])

    def _probability_of(self, cells: AnnData, place: tuple[int, int]) -> NDArray[np.float32]:
        name = self._classes.names()[place[0]]
        return self.get_node_probabilities(cells)[name].to_numpy()

    def _donor_leaves(self, where: Where, latent: torch.Tensor) -> torch.Tensor:
        """The class that was asked for; where an inner node was, the class in which the latent lies."""
        is_class = torch.tensor([bool(label) for label in self._classes.labels], device=latent.device)
        return torch.where(is_class[where.node], where.node, self._leaf_numbers(latent))  # type: ignore[attr-defined]

    # ---------------------------------------------------------------- getters

    def get_tree(self) -> Tree:
        """The tree of the classes.

        Returns
        -------
        :class:`hdtree_sc.Tree`. Nodes are named by their path; :meth:`get_branch_points` and :meth:`node_columns` say
        which classes they hold. Heights are times of the noise schedule in [0, 1], at which the children of a node
        part; the codebook holds the mean latents.
        """
        self._require_trained("get_tree")
        tree, module = self._classes, self.module  # type: ignore[attr-defined]
        means, below = module.classes.means.double().cpu().numpy(), tree.below()
        held = np.array([tree.number_of(label) for label in tree.classes])
        size = np.array(tree.n_cells)[held]
        member = below[held].T * size
        codes = member @ means / np.maximum(member.sum(1), 1)[:, None]
        return tree.to_tree(self._times, codes)

    def _times(self, levels: NDArray[np.float64]) -> NDArray[np.float64]:
        times = self._schedule.time(torch.from_numpy(np.where(np.isfinite(levels), levels, 0.0))).numpy()
        return np.where(np.isfinite(levels), times, 0.0)

    def node_columns(self) -> pd.DataFrame:
        """Class, log signal-to-noise ratio of the branch point and bootstrap support of each node.

        Returns
        -------
        DataFrame indexed by node: ``label`` (empty of inner nodes), ``log_snr`` and ``support`` (NaN of leaves).
        """
        tree = self._classes
        heights = tree.heights()
        columns = {
            "label": np.array(tree.labels, dtype=object),
            "log_snr": np.where(np.isfinite(heights), -heights, np.nan),
            "support": np.array(tree.support),
        }
        return pd.DataFrame(columns, index=tree.names()).loc[list(self.get_tree().nodes)]

    def get_branch_points(self) -> pd.DataFrame:
        """Noise levels at which classes part, the first to part from noise on first.

        Returns
        -------
        DataFrame, one branch point a row, indexed by ``node``:

        ``parent`` : name of the node above, empty of the root
        ``children`` : names of the nodes below, joined by commas
        ``classes`` : classes of each child, separated by ``|``
        ``time`` : time of the noise schedule, 0 (data) to 1 (noise)
        ``log_snr`` : log signal-to-noise ratio; at more noise the classes are one
        ``n_cells`` : training cells
        ``support`` : share of bootstrap replicates in which the same classes are a clade; NaN of a tree that was given

        Raises
        ------
        RuntimeError
            Before training.
        """
        self._require_trained("get_branch_points")
        shape, columns = self.get_tree(), self.node_columns()
        rows = []
        for node in shape.nodes:
            children = shape.children(node)
            if len(children) < 2:
                continue
            sides = [", ".join(columns.loc[list(shape.subtree_leaves(child)), "label"]) for child in children]
            rows.append(
                {
                    "node": node,
                    "parent": shape.parent(node) or "",
                    "children": ",".join(children),
                    "classes": " | ".join(sides),
                    "time": float(shape.heights[shape.index(node)]),
                    "log_snr": float(columns.loc[node, "log_snr"]),
                    "n_cells": int(shape.n_cells[shape.index(node)]),
                    "support": float(columns.loc[node, "support"]),
                }
            )
        names = ["node", "parent", "children", "classes", "time", "log_snr", "n_cells", "support"]
        return pd.DataFrame(rows, columns=names).set_index("node").sort_values("time", ascending=False, kind="stable")

    def _tree_probabilities(self, z: torch.Tensor) -> torch.Tensor:
        tree = self._classes
        member = torch.zeros(len(tree.classes), len(tree), device=z.device)
        below = torch.from_numpy(tree.below()).to(z.device)
        for i, label in enumerate(tree.classes):
            member[i] = below[tree.number_of(label)]
        out = self.module.classes(z) @ member  # type: ignore[attr-defined]
        out[:, 0] = 1.0
        return out[:, self._numbers.to(z.device)]

    def _leaf_positions(self, z: torch.Tensor) -> torch.Tensor:
        tree = self._classes
        names = tree.names()
        places = self.get_tree().index([names[tree.number_of(label)] for label in tree.classes])
        return torch.as_tensor(places).to(z.device)[self.module.classes(z).argmax(1)]  # type: ignore[attr-defined]

    @torch.inference_mode()
    def classify(
        self,
        adata: AnnData | None = None,
        indices: Rows = None,
        *,
        n_noise: int = 32,
        seed: int = 0,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Class of each cell by how well each class' way takes the noise off it.

        The difference of denoising errors, weighted as in the evidence lower bound and averaged over noise, estimates
        that of log likelihoods. Above the branch point of two classes they answer alike and nothing is to be told.

        Parameters
        ----------
        adata
            Cells with the model's genes; the training data by default.
        indices
            Rows of ``adata``: positions, names of cells, a slice or a mask; all by default.
        n_noise
            Noise levels at which each cell is asked, each with noise of its own, the same for all classes.
        seed
            Seed of the noise.
        batch_size
            Cells at a time, 4,096 by default.

        Returns
        -------
        DataFrame (n_cells, n_classes) of probabilities, in the order of the tree's leaves, priors as in training.

        Raises
        ------
        RuntimeError
            Before training.
        """
        self._require_generator("classify")  # type: ignore[attr-defined]
        n_noise, seed = whole_number("n_noise", n_noise), whole_number("seed", seed, least=None)
        module, tree = self.module, self._classes  # type: ignore[attr-defined]
        diffusion = module.diffusion
        numbers = [tree.number_of(label) for label in tree.classes]
        generator = torch.Generator().manual_seed(seed)
        top = max(float(np.max(tree.heights())), LEAST_HEIGHT)
        low = diffusion.schedule.lowest / 2
        # strata of the noise level itself, over which the bound is an integral
        levels = low + (top - low) * (torch.arange(n_noise) + torch.rand(n_noise, generator=generator)) / n_noise

        def read(tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
            x = diffusion.whiten(self._encode(tensors))
            score = torch.zeros(len(x), len(numbers), device=x.device)
            for level in levels.tolist():
                noise = torch.randn(x.shape, generator=generator).to(x)
                at = x.new_full((len(x), 1), level)
                alpha, sigma = alpha_sigma(at)
                noised = alpha * x + sigma * noise
                for i, number in enumerate(numbers):
                    data = diffusion.data(noised, at, Where.of((number, 0), len(x), x.device))
                    score[:, i] -= 0.5 * float(np.exp(-level)) * (data - x).square().sum(1) * (top - low) / n_noise
            return ((score + module.classes.log_prior).softmax(1),)

        values = self._over(self._batches(adata, indices, batch_size, None), read)[0]
        frame = pd.DataFrame(values, index=self._cell_names(adata, indices, None, len(values)), columns=tree.classes)
        shape = self.get_tree()
        return frame[list(self.node_columns().loc[list(shape.leaves), "label"])]
