"""What every model with a tree answers: latent, tree, paths and probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from hdtree_sc._errors import whole_number
from hdtree_sc.model._arguments import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.model._arguments import Rows
    from hdtree_sc.tree import Tree

INFERENCE_BATCH = 4096


@dataclass(frozen=True)
class Placement:
    """Where cells are on a model's tree.

    Parameters
    ----------
    latent
        Latents, float32 (n, n_latent).
    map_2d
        Map for plots, float32 (n, 2).
    expression_pca
        Principal components of the expression, float32 (n, n_pcs), which tell who is near.
    standardised_pca
        Those of standardised expression, float32 (n, n_pcs), which tell how far.
    leaf
        Position of each cell's leaf in ``get_tree().nodes``, (n,).
    path_probabilities
        Probability of the chosen node at each level, float32 (n, depth); 0 below the leaf.
    unplaced_p
        p-value of each cell being of the kinds in training, float32 (n,), or None of a model without calibration.
    time
        Time that each latent tells, float32 (n,), or None of a model that was set up without ``time_key``.
    """

    latent: NDArray[np.float32]
    map_2d: NDArray[np.float32]
    expression_pca: NDArray[np.float32]
    standardised_pca: NDArray[np.float32]
    leaf: NDArray[np.int64]
    path_probabilities: NDArray[np.float32]
    unplaced_p: NDArray[np.float32] | None = None
    time: NDArray[np.float32] | None = None


class TreeMixin:
    """Getters of a trained model: a subclass says where latents are on its tree.

    They return arrays and tables and never write into an AnnData; :func:`hdtree_sc.tl.tree` does.
    """

    def _require_trained(self, what: str) -> None:
        if not self.is_trained_:  # type: ignore[attr-defined]
            msg = f"{what} needs a trained model: call {type(self).__name__}.train() first."
            raise RuntimeError(msg)

    def _batches(
        self,
        adata: AnnData | None,
        indices: Rows,
        batch_size: int | None,
        dataloader: Iterator[dict[str, torch.Tensor]] | None,
    ) -> Iterator[dict[str, torch.Tensor]]:
        if dataloader is None:
            size = INFERENCE_BATCH if batch_size is None else whole_number("batch_size", batch_size)
            adata = self._validate_anndata(adata)  # type: ignore[attr-defined]
            rows = rows_of(indices, adata.obs_names)
            dataloader = self._make_data_loader(adata=adata, indices=rows, batch_size=size)  # type: ignore[attr-defined]
        elif adata is not None or indices is not None:
            msg = "dataloader: it says which cells are read; leave adata and indices out, or give them without it."
            raise ValueError(msg)
        for tensors in dataloader:
            yield {key: value.to(self.module.device) for key, value in tensors.items()}  # type: ignore[attr-defined]

    def _inferred(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        module = self.module  # type: ignore[attr-defined]
        return module.inference(**module._get_inference_input(tensors))

    def _encode(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.module.shown(self._inferred(tensors)["z"].float())  # type: ignore[attr-defined]

    def _scaled(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Values in one unit, (n, n_features)."""
        module = self.module  # type: ignore[attr-defined]
        return module.scaler(tensors["X"], module._library(tensors))

    def _plain(self, scaled: torch.Tensor) -> torch.Tensor:
        """Components (n, n_pcs) of values in one unit."""
        module = self.module  # type: ignore[attr-defined]
        return scaled @ module.scaler.components[:, : module.n_pcs]

    def _standardised(self, scaled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Values in one unit standardised, (n, n_features), and the components of these, (n, n_pcs)."""
        module = self.module  # type: ignore[attr-defined]
        values = module.scaler.restandardised(scaled)
        return values, values @ module.scaler.standard_components[:, : module.n_pcs]

    @staticmethod
    def _over(batches: Iterable[Any], function: Callable[[Any], tuple[torch.Tensor, ...]]) -> list[NDArray[Any]]:
        """What a function gives for each minibatch, joined over all of them."""
        parts = [[part.cpu() for part in function(batch)] for batch in batches]
        return [torch.cat(column).numpy() for column in zip(*parts, strict=True)]

    @torch.inference_mode()
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Rows = None,
        batch_size: int | None = None,
        dataloader: Iterator[dict[str, torch.Tensor]] | None = None,
    ) -> NDArray[np.float32]:
        """Latent of each cell.

        Parameters
        ----------
        adata
            Cells with the model's genes; the training data by default.
        indices
            Rows of ``adata``: positions, names of cells, a slice or a mask; all by default.
        batch_size
            Cells at a time, 4,096 by default.
        dataloader
            Minibatches to use in place of ``adata``.

        Returns
        -------
        float32 array (n_cells, n_latent).

        Raises
        ------
        RuntimeError
            Before training.
        """
        self._require_trained("get_latent")
        batches = self._batches(adata, indices, batch_size, dataloader)
        return self._over(batches, lambda tensors: (self._encode(tensors),))[0]

    def get_latent(
        self,
        adata: AnnData | None = None,
        indices: Rows = None,
        batch_size: int | None = None,
        dataloader: Iterator[dict[str, torch.Tensor]] | None = None,
    ) -> NDArray[np.float32]:
        """Latent of each cell; the same as :meth:`get_latent_representation`."""
        return self.get_latent_representation(adata, indices, batch_size, dataloader)

    @torch.inference_mode()
    def get_map(self, latent: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """2-D map of cells, for plots only: the tree is not built in it.

        Parameters
        ----------
        latent
            Latents, (n_cells, n_latent); those of the training data by default.

        Returns
        -------
        float32 array (n_cells, 2).
        """
        self._require_trained("get_map")
        whole = torch.from_numpy(self.get_latent() if latent is None else latent)
        chunks = (chunk.to(self.module.device) for chunk in whole.split(INFERENCE_BATCH))  # type: ignore[attr-defined]
        return self._over(chunks, lambda z: (self.module.map_head(z),))[0]  # type: ignore[attr-defined]

    @torch.inference_mode()
    def get_expression_pca(
        self,
        adata: AnnData | None = None,
        indices: Rows = None,
        batch_size: int | None = None,
        *,
        standardise: bool = False,
    ) -> NDArray[np.float32]:
        """Principal components of the normalised expression in which training drew its neighbours.

        Parameters
        ----------
        adata
            Cells with the model's genes; the training data by default.
        indices
            Rows of ``adata``: positions, names of cells, a slice or a mask; all by default.
        batch_size
            Cells at a time, 4,096 by default.
        standardise
            Whether each feature weighs the same. By default it weighs as much as it varies.

        Returns
        -------
        float32 array (n_cells, n_pcs).
        """
        self._require_trained("get_expression_pca")
        return self._expression_pca(self._batches(adata, indices, batch_size, None), standardise=standardise)

    def _expression_pca(
        self, batches: Iterator[dict[str, torch.Tensor]], *, standardise: bool = False
    ) -> NDArray[np.float32]:
        def components(tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor]:
            scaled = self._scaled(tensors)
            return (self._standardised(scaled)[1] if standardise else self._plain(scaled),)

        return self._over(batches, components)[0]

    @torch.inference_mode()
    def place(
        self,
        adata: AnnData | None = None,
        indices: Rows = None,
        batch_size: int | None = None,
        dataloader: Iterator[dict[str, torch.Tensor]] | None = None,
    ) -> Placement:
        """All that :func:`hdtree_sc.tl.tree` writes about cells, in one pass over them.

        Parameters
        ----------
        adata
            Cells with the model's genes; the training data by default.
        indices
            Rows of ``adata``: positions, names of cells, a slice or a mask; all by default.
        batch_size
            Cells at a time, 4,096 by default.
        dataloader
            Minibatches to use in place of ``adata``.

        Returns
        -------
        The placement; memory grows with the cells, not with the nodes.
        """
        self._require_trained("place")
        tree = self.get_tree()
        device = self.module.device  # type: ignore[attr-defined]
        ways = torch.from_numpy(self._ways(tree)).to(device)

        def whereabouts(tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
            z = self._encode(tensors)
            leaf = self._leaf_positions(z)
            passed = ways[leaf]
            chosen = self._tree_probabilities(z).gather(1, passed.clamp_min(0)) * (passed >= 0)
            scaled = self._scaled(tensors)
            components, (values, standardised) = self._plain(scaled), self._standardised(scaled)
            own = self._own_unplaced(tensors, values, standardised)  # type: ignore[attr-defined]
            flat, time = self.module.map_head(z), self.module.told_time(z)  # type: ignore[attr-defined]
            return z, flat, components, standardised, leaf, chosen, own, time

        batches = self._batches(adata, indices, batch_size, dataloader)
        latent, flat, components, standardised, leaf, on_path, own, time = self._over(batches, whereabouts)
        unplaced_p = self._unplaced_p(own, standardised)  # type: ignore[attr-defined]
        told = None if self.module.time_head is None else time  # type: ignore[attr-defined]
        return Placement(latent, flat, components, standardised, leaf, on_path, unplaced_p, told)

    # ---------------------------------------------------------------- what a model with another kind of tree answers

    def get_tree(self) -> Tree:
        """The tree."""
        raise NotImplementedError

    def node_columns(self) -> pd.DataFrame:
        """What else the model knows of its nodes, columns of a table indexed by their names; nothing by default."""
        return pd.DataFrame(index=list(self.get_tree().nodes))

    @property
    def _path_depth(self) -> int:
        """Number of levels of a path, of which a cell's may be fewer."""
        return self.get_tree().depth

    def _leaf_positions(self, z: torch.Tensor) -> torch.Tensor:
        """Position in the tree of each latent's leaf, int (n,)."""
        raise NotImplementedError

    def _tree_probabilities(self, z: torch.Tensor) -> torch.Tensor:
        """Probability of each node, (n, n_nodes) in tree order: 1 at the root, children sum to their parent."""
        raise NotImplementedError

    def _ways(self, tree: Tree) -> NDArray[np.int64]:
        """Nodes on the way to each node, (n_nodes, depth) in tree positions; -1 below it."""
        levels = range(1, self._path_depth + 1)
        out = np.full((len(tree), self._path_depth), -1)
        for level in levels:
            if level <= tree.depth:
                out[:, level - 1] = tree.ancestors_at(level)
        return out

    def params_of_tree(self) -> dict[str, str | int | float | bool]:
        """What the tree was made with, as :func:`hdtree_sc.tl.tree` stores it: model, version, setup, options."""
        options = self.init_params_["non_kwargs"]  # type: ignore[attr-defined]
        setup = self.registry.get("setup_args", {})  # type: ignore[attr-defined]
        given = {"model": type(self).__name__, "version": version("hdtree-sc"), **setup, **options}
        return {name: value for name, value in given.items() if isinstance(value, str | int | float | bool)}

    @torch.inference_mode()
    def get_tree_paths(
        self,
        adata: AnnData | None = None,
        indices: Rows = None,
        batch_size: int | None = None,
        dataloader: Iterator[dict[str, torch.Tensor]] | None = None,
    ) -> pd.DataFrame:
        """Nodes that each cell passes on its way down the tree.

        Parameters
        ----------
        adata
            Cells with the model's genes; the training data by default.
        indices
            Rows of ``adata``: positions, names of cells, a slice or a mask; all by default.
        batch_size
            Cells at a time, 4,096 by default.
        dataloader
            Minibatches to use in place of ``adata``; rows are then numbered.

        Returns
        -------
        DataFrame (n_cells, tree_depth) with the columns ``level_1``, ``level_2``, ...: node names as categories,
        missing below a cell's leaf.
        """
        self._require_trained("get_tree_paths")
        tree = self.get_tree()
        batches = self._batches(adata, indices, batch_size, dataloader)
        leaf = self._over(batches, lambda tensors: (self._leaf_positions(self._encode(tensors)),))[0]
        codes = self._ways(tree)[leaf]
        columns = {
            f"level_{level + 1}": pd.Categorical.from_codes(codes[:, level], categories=list(tree.nodes))
            for level in range(codes.shape[1])
        }
        frame = pd.DataFrame(columns, index=self._cell_names(adata, indices, dataloader, len(codes)))
        return frame.apply(lambda column: column.cat.remove_unused_categories())

    @torch.inference_mode()
    def get_node_probabilities(
        self,
        adata: AnnData | None = None,
        indices: Rows = None,
        batch_size: int | None = None,
        dataloader: Iterator[dict[str, torch.Tensor]] | None = None,
    ) -> pd.DataFrame:
        """Soft membership of each cell in each node.

        Parameters
        ----------
        adata
            Cells with the model's genes; the training data by default.
        indices
            Rows of ``adata``: positions, names of cells, a slice or a mask; all by default.
        batch_size
            Cells at a time, 4,096 by default.
        dataloader
            Minibatches to use in place of ``adata``; rows are then numbered.

        Returns
        -------
        DataFrame (n_cells, n_nodes) in the order of ``get_tree().nodes``; the root is 1 and children sum to their
        parent.
        """
        self._require_trained("get_node_probabilities")
        tree = self.get_tree()
        batches = self._batches(adata, indices, batch_size, dataloader)
        values = self._over(batches, lambda tensors: (self._tree_probabilities(self._encode(tensors)),))[0]
        return pd.DataFrame(
            values, index=self._cell_names(adata, indices, dataloader, len(values)), columns=list(tree.nodes)
        )

    def _cell_names(self, adata: AnnData | None, indices: Rows, dataloader: Any, n_cells: int) -> pd.Index:
        if dataloader is not None:
            return pd.RangeIndex(n_cells)
        names = (self.adata if adata is None else adata).obs_names  # type: ignore[attr-defined]
        return names[rows_of(indices, names)]
