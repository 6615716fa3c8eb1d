"""The second stage of TreeVAE: what is told to the diffusion, and generation from the root."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch

from hdtree_sc._errors import listing
from hdtree_sc.model._arguments import whole_numbers
from hdtree_sc.model._cell_maker import Surroundings, drawn_cells, seeded
from hdtree_sc.model._diffusion_mixin import DiffusionMixin
from hdtree_sc.model._generative_mixin import SAMPLING_BATCH, GenerativeMixin
from hdtree_sc.module._latent_diffusion import Where
from hdtree_sc.module._spaces import SPACES
from hdtree_sc.module._tree_diffusion import TREE_CONDITIONS, paths_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData
    from numpy.typing import ArrayLike

    from hdtree_sc.diffusion import Method
    from hdtree_sc.model._arguments import Rows
    from hdtree_sc.model._cell_maker import Made
    from hdtree_sc.model._generator_mixin import _RealCells
    from hdtree_sc.module._donors import Donors
    from hdtree_sc.module._latent_diffusion import LatentDiffusion
    from hdtree_sc.module._spaces import Space
    from hdtree_sc.module._tree_diffusion import TreeCondition


ROOTS = ("cells", "normal")


class TreeDiffusionMixin(GenerativeMixin, DiffusionMixin):
    """``train_diffusion`` and ``generate`` of a model whose nodes have latents."""

    _condition: TreeCondition = "path"

    def train_diffusion(self, *args: Any, condition: TreeCondition = "path", **kwargs: Any) -> None:
        """Train the second stage: a diffusion over cells' embeddings and details, told where in the tree they are.

        With ``space="expression"`` it is over the components that the encoder reads, as in the papers, whose diffusion
        is over pixels; of images that are read by convolutions there are none.

        Parameters
        ----------
        *args, **kwargs
            See :meth:`HDTree.train_diffusion`.
        condition
            What is told beside the nodes of a cell's path: ``"path"``, the latents of these nodes, as in TreeDiffusion;
            ``"reconstruction"``, what the leaf's decoder makes of its latent, as in Diffuse-TreeVAE. Both are left out
            in half of the cells, so that cells of a node or a label can be made as well.

        Raises
        ------
        RuntimeError
            Before ``train()``, or of a query model.
        ValueError
            If an option is unknown.

        References
        ----------
        TreeDiffusion, arXiv 2410.16910; Diffuse-TreeVAE, arXiv 2407.06124.
        """
        if condition not in TREE_CONDITIONS:
            msg = f"condition: {condition!r} is none of {listing(TREE_CONDITIONS)}."
            raise ValueError(msg)
        if kwargs.get("space") == "expression" and self.module.image_shape is not None:  # type: ignore[attr-defined]
            msg = "space: this model reads pixels and no components; make it with image_shape=None, or keep 'latent'."
            raise ValueError(msg)
        self._condition = condition
        super().train_diffusion(*args, **kwargs)

    def _generator_options(self) -> dict[str, Any]:
        module = self.module  # type: ignore[attr-defined]
        return {"condition": self._condition, "n_node_latent": module.n_node_latent}

    def _new_generator(
        self, params: dict[str, Any], cells: dict[str, torch.Tensor], seed: int, space: Space
    ) -> tuple[LatentDiffusion, Donors]:
        diffusion, donors = super()._new_generator(params, cells, seed, space)
        generator = torch.Generator(self._device).manual_seed(seed)
        parts = []
        for rows in torch.arange(len(cells["points"])).split(SAMPLING_BATCH):
            points = diffusion.colour(cells["points"][rows]).to(self._device)
            node, covariates, library = (
                cells[name][rows].to(self._device) for name in ("node", "covariates", "library")
            )
            told = self._told_beside(self._condition, space, points, node, covariates, library, generator)
            parts.append([part.cpu() for part in told])
        roots, cells["signal"] = (torch.cat(part) for part in zip(*parts, strict=True))
        rows = torch.as_tensor(np.asarray(self.train_indices_))  # type: ignore[attr-defined]
        diffusion.fit_roots(roots[rows], cells["node"][rows], cells["signal"][rows])  # type: ignore[operator]
        return diffusion, donors

    @torch.no_grad()
    def _told_beside(
        self,
        condition: str,
        space: Space,
        points: torch.Tensor,
        node: torch.Tensor,
        covariates: torch.Tensor,
        library: torch.Tensor,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of the root, (n, n_node_latent), and signal, (n, n_signal), of cells that are points of a space."""
        module = self.module  # type: ignore[attr-defined]
        z = module.tree(SPACES[space].latent(module, points, covariates), draw=True, generator=generator).z
        return z[0], self._signal(condition, space, z, node, covariates, library)

    def _signal(
        self,
        condition: str,
        space: Space,
        z: torch.Tensor,
        node: torch.Tensor,
        covariates: torch.Tensor,
        library: torch.Tensor,
    ) -> torch.Tensor:
        """What the diffusion is told of cells with latents z (n_nodes, n, n_node_latent), at nodes of the tree (n,)."""
        module = self.module  # type: ignore[attr-defined]
        plan, row = module.tree.plan, torch.arange(len(node), device=node.device)
        if condition == "reconstruction":
            here = plan.shown[node]
            told = module.decoder(z[here, row], plan.slots[here], covariates, library)
            return SPACES[space].points_of(module, module._likelihood(told).mean, covariates)
        way = torch.tensor(paths_to(plan.shown_parents), device=node.device)[node]
        values = z[plan.shown[way.clamp_min(0)], row.unsqueeze(1)] * (way >= 0).unsqueeze(-1)
        return values.flatten(1)

    def _real_cells(self, adata: AnnData | None, indices: Rows) -> _RealCells:
        cells = super()._real_cells(adata, indices)
        generator = torch.Generator(self._device).manual_seed(self._seed())  # type: ignore[attr-defined]
        points = self.module.diffusion.colour(cells.whitened)  # type: ignore[attr-defined]
        _, signal = self._told_beside(
            self.module.diffusion.condition_on,  # type: ignore[attr-defined]
            self.module.space,  # type: ignore[attr-defined]
            points,
            cells.where.node,
            cells.around.covariates,
            cells.around.library,
            generator,
        )
        return replace(cells, where=replace(cells.where, signal=signal))

    @torch.inference_mode()
    def generate(
        self,
        n_cells: int,
        node: str | None = None,
        label: str | float | None = None,
        batch: str | float | None = None,
        library: float | ArrayLike | None = None,
        n_steps: int = 50,
        seed: int | None = None,
        *,
        per_leaf: bool = False,
        refine: bool = True,
        root: Literal["cells", "normal"] = "cells",
        from_root: bool | None = None,
        method: Method = "dpm",
        guidance: float | None = None,
        keep_mean: bool = True,
        batch_size: int = SAMPLING_BATCH,
    ) -> AnnData:
        """Make new cells: from the root, of a node of the tree, of a label.

        A leaf is drawn as often as training cells are in it, the root's latent from where that of the leaf's cells
        lies, and the latents below it from their priors. The diffusion is told them and makes an embedding with
        details, the leaf's decoder counts of it.

        Parameters
        ----------
        n_cells
            How many; with ``per_leaf``: samples of the root, each of which gives a cell of every leaf.
        node
            Name of a node, inner or leaf; the whole data by default.
        label
            Name of a label of ``labels_key``. The diffusion is then told the label and the leaf, and no latents.
        batch, library, n_steps, seed, method, guidance, keep_mean, batch_size
            See :meth:`HDTree.generate`.
        per_leaf
            Whether every leaf (below ``node``) sees the same sample of the root: the same cell as each of the kinds.
            Cells of one sample begin at the same noise, too, and have one library size and batch.
        refine
            Whether the diffusion is used; otherwise the leaf's decoder reads the latents of the tree themselves, as
            TreeVAE without a second stage.
        root
            ``"cells"``: as above. ``"normal"``: the root's latent is standard normal and the leaf drawn by the routers
            that see latents, as published; not with ``node``, ``label`` or ``per_leaf``.
        from_root
            Whether the diffusion is told the latents; by default it is unless a label is asked for.

        Returns
        -------
        AnnData with the fields of :meth:`HDTree.generate`, and ``.obs["asked_leaf"]``: the leaf that was drawn; with
        ``per_leaf`` also ``.obs["root_sample"]``: number of the root's sample.

        Raises
        ------
        RuntimeError
            Before :meth:`train_diffusion`.
        ValueError
            If node, label or batch do not exist (the message lists those that do), no training cell is of both, or a
            number makes no sense.

        References
        ----------
        arXiv 2306.08984, section 2.3, and arXiv 2407.06124.
        """
        self._require_generator("generate")
        n_cells, n_steps, batch_size = whole_numbers(n_cells=n_cells, n_steps=n_steps, batch_size=batch_size)
        method = self._checked_method(method)
        guidance = self._checked_guidance(guidance)
        place = self._told(node, label)
        label = None if label is None else self._label_named(label)
        in_batch = None if batch is None else self._number_of_batch(batch)  # type: ignore[attr-defined]
        if per_leaf and label is not None:
            msg = "label: per_leaf=True makes a cell of every leaf, so that no label can be asked for besides."
            raise ValueError(msg)
        if root not in ROOTS or (root == "normal" and (per_leaf or place != (0, 0))):
            msg = f"root: {root!r} given; 'cells', or 'normal' without node, label and per_leaf, is wanted."
            raise ValueError(msg)
        with seeded(seed):
            if root == "normal":
                z, leaf = self._from_normal_root(n_cells)
            else:
                leaf = self._drawn_leaves(place, n_cells)
                z = self.module.diffusion.draw_roots(leaf).unsqueeze(0)  # type: ignore[attr-defined]
            sample = torch.arange(n_cells, device=self._device)
            noise = None
            around = self._drawn_around(leaf, in_batch, library)
            if per_leaf:
                leaves = self._leaves_below(place[0])
                sample, leaf = sample.repeat_interleave(len(leaves)), leaves.repeat(n_cells)
                width = self.module.diffusion.centre.shape[0]  # type: ignore[attr-defined]
                noise = torch.randn(n_cells, width, device=self._device)[sample]
            around = replace(around[sample], node=leaf)
            if root == "cells":
                z, _ = self.module.tree.descend(z[0][sample])  # type: ignore[attr-defined]
            if refine:
                diffusion, space = self.module.diffusion, self.module.space  # type: ignore[attr-defined]
                told = self._signal(diffusion.condition_on, space, z, leaf, around.covariates, around.library)
                if not (label is None if from_root is None else from_root):
                    told = torch.full_like(told, torch.nan)
                where = Where(leaf, torch.full_like(leaf, place[1]), told)
                whitened = self._sampled(where, n_steps, method, guidance, batch_size, noise)
                out = self._assembled(whitened, around, None, keep_mean, batch_size)
            else:
                out = self._described(self._unrefined(z, around, keep_mean, batch_size), around, None)
        nodes = np.asarray(self.get_tree().nodes)  # type: ignore[attr-defined]
        out.obs["asked_leaf"] = pd.Categorical(nodes[leaf.cpu().numpy()])
        if per_leaf:
            out.obs["root_sample"] = sample.cpu().numpy()
        if label is not None:
            self._set_label(out, [label] * n_cells)
        return self._signed_new(
            out, function="generate", node=node, label=label, batch=batch, n_steps=n_steps, seed=seed, method=method,
            guidance=guidance, per_leaf=per_leaf, refine=refine, root=root,
        )  # fmt: skip

    def _from_normal_root(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of all nodes (n_nodes, n, n_node_latent) from a standard normal root, and a leaf by the routers."""
        tree = self.module.tree  # type: ignore[attr-defined]
        z, log_share = tree.descend(torch.randn(n, self.module.n_node_latent, device=self._device))  # type: ignore[attr-defined]
        leaves = self._leaves_below(0)
        drawn = torch.multinomial(log_share[tree.plan.shown[leaves]].exp().T, 1).squeeze(1)
        return z, leaves[drawn]

    def _leaves_below(self, node: int) -> torch.Tensor:
        """Leaves below a node of the tree, or it itself, int (n_leaves,)."""
        return (self.module.diffusion.below(node) & self._is_leaf()).nonzero().squeeze(1)  # type: ignore[attr-defined]

    def _is_leaf(self) -> torch.Tensor:
        """Which nodes of the tree are leaves, bool (n_nodes,)."""
        return torch.from_numpy(self.get_tree().is_leaf_mask.copy()).to(self._device)  # type: ignore[attr-defined]

    def _drawn_leaves(self, place: tuple[int, int], n: int) -> torch.Tensor:
        """Leaves of random training cells of a node and a label, int (n,)."""
        donors = self.module.donors  # type: ignore[attr-defined]
        held = torch.isin(donors.node, self._leaves_below(place[0]))
        if place[1]:
            held &= donors.label == place[1]
        pool = held.nonzero().squeeze(1)
        if not len(pool):
            msg = f"node, label: no training cell is of both. {self._destinations()}"
            raise ValueError(msg)
        return donors.node[pool[torch.randint(len(pool), (n,), device=pool.device)]]

    def _drawn_around(self, leaf: torch.Tensor, batch: int | None, library: float | ArrayLike | None) -> Surroundings:
        """Library sizes and covariates of training cells of leaves (n,)."""
        module = self.module  # type: ignore[attr-defined]
        unknown = Where(leaf, torch.zeros_like(leaf))
        return self._drawn_surroundings(module.diffusion.node_means[leaf], unknown, batch, library)

    def _donor_leaves(self, where: Where, latent: torch.Tensor) -> torch.Tensor:
        """The leaf that was drawn; where an inner node is told, the one in which the embedding lies."""
        return torch.where(self._is_leaf()[where.node], where.node, self._leaf_numbers(latent))

    def _unrefined(self, z: torch.Tensor, around: Surroundings, keep_mean: bool, batch_size: int) -> Made:  # noqa: FBT001
        """Cells that the leaves' decoders make of the latents of the tree."""
        module = self.module  # type: ignore[attr-defined]
        plan = module.tree.plan

        def decoded() -> Iterator[tuple[Any, Callable[[torch.Tensor], torch.Tensor]]]:
            for rows in torch.arange(len(around.node), device=self._device).split(batch_size):
                own, here = around[rows], plan.shown[around.node[rows]]
                told = module.decoder(z[here, rows], plan.slots[here], own.covariates, own.library)
                yield module._likelihood(told), partial(module.encoded, covariates=own.covariates)

        return drawn_cells(module, decoded(), keep_mean=keep_mean)
