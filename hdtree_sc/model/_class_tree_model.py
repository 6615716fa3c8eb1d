"""Getters of a model whose tree is one of the user's own classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from hdtree_sc._docs import READS, shared_params
from hdtree_sc._errors import whole_number
from hdtree_sc.diffusion import NoiseSchedule
from hdtree_sc.generate import ClassFit, ClassGenerator, ClassPlaces
from hdtree_sc.model._generative import GenerativeTreeModel
from hdtree_sc.module import ClassHead
from hdtree_sc.tree import ClassTree

if TYPE_CHECKING:
    from anndata import AnnData

    from hdtree_sc.data import Rows
    from hdtree_sc.module import BranchedModule
    from hdtree_sc.tree import Tree


class ClassTreeModel(GenerativeTreeModel):
    """Classes, the noise levels at which they part, and the class of a cell."""

    module: BranchedModule
    class_tree_: dict[str, Any] | None = None

    @property
    def _classes(self) -> ClassTree:
        assert self.class_tree_ is not None
        return ClassTree.from_dict(self.class_tree_)

    def _head(self) -> ClassHead:
        module = self.module
        assert module.classes is not None
        # before there is a generator, the schedule that it will have
        schedule = NoiseSchedule() if module.diffusion is None else module.diffusion.schedule
        return ClassHead(self._classes, module.classes, schedule)

    def _places(self) -> ClassPlaces:
        return ClassPlaces(self._head(), self._setup.label_categories)

    def _generator(self) -> ClassGenerator:
        return ClassGenerator(self.module, self._places())

    def _generator_fit(self) -> ClassFit:
        return ClassFit(self.module, self._places(), seed=self._seed())

    def get_tree(self) -> Tree:
        """The tree of the classes.

        Returns
        -------
        :class:`hdtree_sc.Tree`. Nodes are named by their path; :meth:`get_branch_points` and :meth:`node_columns` say
        which classes they hold. Heights are times of the noise schedule in [0, 1], at which the children of a node
        part; the codebook holds the mean latents.
        """
        return super().get_tree()

    def node_columns(self) -> pd.DataFrame:
        """Class, log signal-to-noise ratio of the branch point and bootstrap support of each node.

        Returns
        -------
        DataFrame indexed by node: ``label`` (empty of inner nodes), ``log_snr`` and ``support`` (NaN of leaves).
        """
        return self._head().columns()

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
        return self._head().branch_points()

    @torch.inference_mode()
    @shared_params(READS)
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
        that of log likelihoods. Above the branch point of two classes both answers are the same and carry no
        information.

        Parameters
        ----------
        n_noise
            Noise levels at which each cell is asked, each with noise of its own, the same for all classes.
        seed
            Seed of the noise.

        Returns
        -------
        DataFrame (n_cells, n_classes) of probabilities, in the order of the tree's leaves, priors as in training.

        Raises
        ------
        RuntimeError
            Before training.
        """
        self._require_generator("classify")
        n_noise, seed = whole_number("n_noise", n_noise), whole_number("seed", seed, least=None)
        generator = self._generator()
        read = generator.classifier(n_noise, seed)
        values = self._reader.read(read, adata, indices, batch_size)[0]
        names, classes = self._reader.names(adata, indices, None, len(values)), self._classes.classes
        frame = pd.DataFrame(values, index=names, columns=classes)
        return frame[list(self.node_columns().loc[list(self.get_tree().leaves), "label"])]
