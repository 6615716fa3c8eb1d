"""A model of cells on a tree: latent, tree, paths and probabilities."""

from __future__ import annotations

from abc import abstractmethod
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scvi import REGISTRY_KEYS
from scvi.model.base import RNASeqMixin

from hdtree_sc._disk import is_on_disk
from hdtree_sc._docs import READS, shared_params
from hdtree_sc._errors import NO_CALIBRATION
from hdtree_sc.data import INFERENCE_BATCH, over, rows_of
from hdtree_sc.growth import calibration_rows, fit_scaler, fit_unplaced
from hdtree_sc.model._base import CellModel
from hdtree_sc.model._expression import with_rows
from hdtree_sc.module import Placing, paths_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from numpy.typing import NDArray

    from hdtree_sc.data import Rows
    from hdtree_sc.module import Placement, TreeHead
    from hdtree_sc.tree import Tree

ALPHA = 0.05
"""Share of false calls."""
SVD_VALUES = 60_000_000
"""Largest number of values (cells x features) that principal components are learned from."""


class TreeModel(CellModel):
    """Getters of a trained model: a subclass says what its tree is.

    They return arrays and tables and never write into an AnnData; :func:`hdtree_sc.tl.tree` does.
    """

    @abstractmethod
    def _head(self) -> TreeHead:
        """The tree, and where latents are on it."""

    def get_tree(self) -> Tree:
        """The tree."""
        self._require_trained("get_tree")
        return self._head().nodes()

    def node_columns(self) -> pd.DataFrame:
        """What else the model knows of its nodes, columns of a table indexed by their names; nothing by default."""
        return pd.DataFrame(index=list(self.get_tree().nodes))

    def params_of_tree(self) -> dict[str, str | int | float | bool]:
        """What the tree was made with, as :func:`hdtree_sc.tl.tree` stores it: model, version, setup, options."""
        given = {"model": type(self).__name__, "version": version("hdtree-sc")}
        given |= self._setup.arguments | self.init_params_["non_kwargs"]
        return {name: value for name, value in given.items() if isinstance(value, str | int | float | bool)}

    # ---------------------------------------------------------------- latents

    @torch.inference_mode()
    @shared_params(READS)
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
        dataloader
            Minibatches to use in place of ``adata``.

        Returns
        -------
        float32 array (n_cells, n_latent).

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> adata.obsm["X_hdtree"] = model.get_latent_representation()
        >>> model.get_latent_representation(indices=["ACGCAGCAGTGCGATG-300.1.1"]).shape
        (1, 24)
        """
        self._require_trained("get_latent")
        latents = self.module.latents
        return self._reader.read(lambda tensors: (latents(tensors),), adata, indices, batch_size, dataloader)[0]

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
        chunks = (chunk.to(self.module.device) for chunk in whole.split(INFERENCE_BATCH))
        return over(chunks, lambda z: (self.module.map_head(z),))[0]

    @torch.inference_mode()
    @shared_params(READS)
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
        standardise
            Whether each feature weighs the same. By default it weighs as much as it varies.

        Returns
        -------
        float32 array (n_cells, n_pcs).
        """
        self._require_trained("get_expression_pca")
        module = self.module

        def components(tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor]:
            scaled = module.scaled(tensors)
            return (module.standardised(scaled)[1] if standardise else module.components(scaled),)

        return self._reader.read(components, adata, indices, batch_size)[0]

    @torch.inference_mode()
    @shared_params(READS)
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
        dataloader
            Minibatches to use in place of ``adata``.

        Returns
        -------
        The placement; memory grows with the cells, not with the nodes.
        """
        self._require_trained("place")
        placing = Placing(self.module, self._head())
        return placing.placement(self._reader.read(placing.read, adata, indices, batch_size, dataloader))

    # ---------------------------------------------------------------- paths and probabilities

    @torch.inference_mode()
    @shared_params(READS)
    def get_tree_paths(
        self,
        adata: AnnData | None = None,
        indices: Rows = None,
        batch_size: int | None = None,
        dataloader: Iterator[dict[str, torch.Tensor]] | None = None,
    ) -> pd.DataFrame:
        """Nodes that each cell passes on its way down the tree.

        Returns
        -------
        DataFrame (n_cells, tree_depth) with the columns ``level_1``, ``level_2``, ...: node names as categories,
        missing below a cell's leaf.
        """
        self._require_trained("get_tree_paths")
        module, head = self.module, self._head()
        tree = head.nodes()
        leaf = self._reader.read(
            lambda tensors: (head.leaf(module.latents(tensors)),), adata, indices, batch_size, dataloader
        )[0]
        codes = paths_of(tree, head.depth)[leaf]
        columns = {
            f"level_{level + 1}": pd.Categorical.from_codes(codes[:, level], categories=list(tree.nodes))
            for level in range(codes.shape[1])
        }
        frame = pd.DataFrame(columns, index=self._reader.names(adata, indices, dataloader, len(codes)))
        return frame.apply(lambda column: column.cat.remove_unused_categories())

    @torch.inference_mode()
    @shared_params(READS)
    def get_node_probabilities(
        self,
        adata: AnnData | None = None,
        indices: Rows = None,
        batch_size: int | None = None,
        dataloader: Iterator[dict[str, torch.Tensor]] | None = None,
    ) -> pd.DataFrame:
        """Soft membership of each cell in each node.

        Returns
        -------
        DataFrame (n_cells, n_nodes) in the order of ``get_tree().nodes``; the root is 1 and children sum to their
        parent.
        """
        self._require_trained("get_node_probabilities")
        module, head = self.module, self._head()
        values = self._reader.read(
            lambda tensors: (head.probabilities(module.latents(tensors)),), adata, indices, batch_size, dataloader
        )[0]
        names = self._reader.names(adata, indices, dataloader, len(values))
        return pd.DataFrame(values, index=names, columns=list(head.nodes().nodes))

    # ---------------------------------------------------------------- cells unlike all in training

    @torch.inference_mode()
    def get_unplaced(self, adata: AnnData | None = None, alpha: float = ALPHA) -> pd.DataFrame:
        """Which cells are unlike anything the model was trained on.

        Each cell is compared with training cells in the principal components of expression and with their mean
        profiles. In queries of 50 cells or more it is scored together with its five nearest cells in the query, so that
        the answer for a cell depends a little on which others are asked about.

        Parameters
        ----------
        adata
            Cells with the model's genes; those of the model by default. Cells the model was trained on know themselves
            and are hardly ever called.
        alpha
            Share of false calls among new cells of the types in training.

        Returns
        -------
        DataFrame (n_cells, 2): ``unplaced`` (bool) and ``p_value`` (share of training cells that were as unlike the
        others, each scored without having been looked at).

        Raises
        ------
        RuntimeError
            Before training, and if the model has no calibration: it was saved by a version without, or trained on
            fewer than 40 cells.
        """
        if not 0 < alpha < 1:
            msg = f"alpha: {alpha} is outside 0 to 1, it is the share of false calls."
            raise ValueError(msg)
        self._require_trained("get_unplaced")
        if not self.module.unplaced.fitted:
            msg = f"get_unplaced: {NO_CALIBRATION}"
            raise RuntimeError(msg)
        p_value = self.place(adata).unplaced_p
        assert p_value is not None
        cells = self.adata if adata is None else adata
        return pd.DataFrame({"unplaced": p_value <= alpha, "p_value": p_value}, index=cells.obs_names)

    def _fit_unplaced(self) -> None:
        """Learn the score and its null from a sample of the training cells."""
        module, train = self.module, self._split.train
        rows = calibration_rows(train, module.scaler.mean.shape[0])
        if not len(rows):
            module.unplaced.sizes.zero_()
            return
        batches = self._reader.batches(self.adata, rows)
        parts = [(tensors[REGISTRY_KEYS.X_KEY].cpu(), module._library(tensors).cpu()) for tensors in batches]
        x, library = (torch.cat(part) for part in zip(*parts, strict=True))
        fit_unplaced(module.unplaced, module.scaler, x, library, n_train=len(train))

    # ---------------------------------------------------------------- before training

    def _fit_before(self, train_indices: NDArray[np.int64]) -> None:
        """What is learned before training, of its cells alone: how values are scaled, and their components."""
        module = self.module
        self.train_indices_ = train_indices
        if bool(module.scaler.fitted):
            return
        n = max(2, min(len(train_indices), SVD_VALUES // self.summary_stats.n_vars))
        rows = np.sort(np.random.default_rng(0).permutation(train_indices)[:n])
        batches = list(self._reader.batches(self.adata, rows))
        x = torch.cat([tensors[REGISTRY_KEYS.X_KEY] for tensors in batches])
        fit_scaler(module.scaler, x, torch.cat([module._library(tensors) for tensors in batches]))

    def _represent(self, train_indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Principal components of all cells; the scaler is fitted on training cells the first time."""
        self._fit_before(train_indices)
        module = self.module
        return self._reader.read(lambda tensors: (module.components(module.scaled(tensors)),), self.adata)[0]

    @torch.inference_mode()
    def _encoder_input(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the encoder reads of all cells, and their library sizes: the scaler is fixed while training goes on."""
        module = self.module
        x, library = self._reader.read(lambda tensors: module._encoder_input(tensors)[::2], self.adata)
        return x, library

    # ---------------------------------------------------------------- expression

    get_normalized_expression = with_rows(RNASeqMixin.get_normalized_expression)
    posterior_predictive_sample = with_rows(RNASeqMixin.posterior_predictive_sample)
    get_feature_correlation_matrix = with_rows(RNASeqMixin.get_feature_correlation_matrix)
    get_likelihood_parameters = with_rows(RNASeqMixin.get_likelihood_parameters)
    get_latent_library_size = with_rows(RNASeqMixin.get_latent_library_size)

    def differential_expression(self, adata: AnnData | None = None, *args: Any, **kwargs: Any) -> Any:
        """Genes that differ between groups of cells, see :meth:`scvi.model.SCVI.differential_expression`.

        Parameters
        ----------
        adata
            Cells with the model's genes; the training data by default.
        *args, **kwargs
            Arguments of scvi-tools' method. ``idx1`` and ``idx2`` may be positions, names of cells, a slice or a mask,
            or one text that is a query of ``obs``.

        Raises
        ------
        RuntimeError
            Before training.
        ValueError
            If cells are not as they should be, or are on disk.
        """
        self._require_trained("differential_expression")
        adata = self._validate_anndata(adata)
        if is_on_disk(adata.X):
            msg = "differential_expression reads all values at once, and adata is backed: adata = adata.to_memory()."
            raise ValueError(msg)
        for name in ("idx1", "idx2"):
            if kwargs.get(name) is not None and not isinstance(kwargs[name], str):
                kwargs[name] = rows_of(kwargs[name], adata.obs_names, argument=name)
        return super().differential_expression(adata, *args, **kwargs)
