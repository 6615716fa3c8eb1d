"""Every AnnData key this package reads or writes is born here."""

from __future__ import annotations

from dataclasses import dataclass

ROOT = "root"
"""Name of the root node of every tree that a model makes."""
POSITIVE = "positive_"
"""Prefix of the tensors of the neighbours in a minibatch."""
ENCODER_INPUT = "encoder_input"
"""Tensor of what the encoder reads of a cell, where a minibatch brings it along."""

UNKNOWN = "unknown"
"""Category of cells whose batch, label or covariate is not known."""
SOURCE = "source_"
"""Prefix of ``obs`` columns of the cells from which others were made."""


@dataclass(frozen=True)
class Keys:
    """Names of the AnnData fields of one tree.

    Parameters
    ----------
    key
        The tree's key: ``"hdtree"``, ``"branched"``, ``"treevae"`` or what ``key_added`` said.
    """

    key: str = "hdtree"

    @property
    def latent(self) -> str:
        """``obsm``: latent of each cell."""
        return f"X_{self.key}"

    @property
    def map_2d(self) -> str:
        """``obsm``: 2-D map of the model, for plots."""
        return f"X_{self.key}_2d"

    @property
    def pca(self) -> str:
        """``obsm``: principal components of standardised expression, which measure how far cells are apart."""
        return f"X_{self.key}_pca"

    @property
    def plain_pca(self) -> str:
        """``obsm``: principal components of the expression in which the model's neighbours were found."""
        return f"X_{self.key}_pca_plain"

    @property
    def codes(self) -> str:
        """``obsm``: child number at each level, -1 below the cell's leaf."""
        return f"{self.key}_codes"

    @property
    def path_probs(self) -> str:
        """``obsm``: probability of the chosen node at each level."""
        return f"{self.key}_path_probs"

    @property
    def leaf(self) -> str:
        """``obs``: name of the cell's leaf, categorical in tree order."""
        return f"{self.key}_leaf"

    @property
    def leaf_prob(self) -> str:
        """``obs``: probability of the cell's leaf."""
        return f"{self.key}_leaf_prob"

    @property
    def unplaced(self) -> str:
        """``obs``: whether the cell is unlike anything in training."""
        return f"{self.key}_unplaced"

    @property
    def unplaced_p(self) -> str:
        """``obs``: p-value of the cell being of the kinds in training."""
        return f"{self.key}_unplaced_p"

    @property
    def time(self) -> str:
        """``obs``: time predicted from the cell's latent, for models that were set up with times."""
        return f"{self.key}_time"

    @property
    def cut(self) -> str:
        """``obs``: node of the cut tree that holds the cell."""
        return f"{self.key}_cut"

    @property
    def pseudotime(self) -> str:
        """``obs``: pseudotime in [0, 1]."""
        return f"{self.key}_pseudotime"

    @property
    def pseudotime_low(self) -> str:
        """``obs``: lower end of the interval of the pseudotime."""
        return f"{self.key}_pseudotime_low"

    @property
    def pseudotime_high(self) -> str:
        """``obs``: upper end of the interval of the pseudotime."""
        return f"{self.key}_pseudotime_high"

    @property
    def pseudotime_sd(self) -> str:
        """``obs``: standard deviation of the pseudotime over bootstrap replicates."""
        return f"{self.key}_pseudotime_sd"

    @property
    def milestone(self) -> str:
        """``obs``: milestone of the cell on the lineage."""
        return f"{self.key}_milestone"

    @property
    def branch(self) -> str:
        """``obs``: branch of the lineage that the cell is on."""
        return f"{self.key}_branch"

    @property
    def edge_position(self) -> str:
        """``obs``: share of the cell's edge of the lineage that lies before it."""
        return f"{self.key}_edge_position"

    @property
    def part(self) -> str:
        """``obs``: part of the cell graph that only bridges join to others."""
        return f"{self.key}_part"

    @property
    def fates(self) -> str:
        """``obsm``: probability of each cell to end in each terminal node."""
        return f"{self.key}_fates"

    @property
    def fate(self) -> str:
        """``obs``: terminal node that the cell most likely ends in."""
        return f"{self.key}_fate"

    @property
    def fate_entropy(self) -> str:
        """``obs``: entropy of the cell's fate probabilities."""
        return f"{self.key}_fate_entropy"

    @property
    def terminal(self) -> str:
        """``obs``: end that the cell is a terminal cell of."""
        return f"{self.key}_terminal"

    @property
    def connectivities(self) -> str:
        """``obsp``: weights of the cell neighbour graph."""
        return f"{self.key}_connectivities"

    @property
    def distances(self) -> str:
        """``obsp``: distances of the cell neighbour graph."""
        return f"{self.key}_distances"

    @property
    def neighbors(self) -> str:
        """``uns``: scanpy's description of the cell neighbour graph."""
        return f"{self.key}_neighbors"
