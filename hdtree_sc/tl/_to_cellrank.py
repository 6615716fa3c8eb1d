"""Hand pseudotime, graph and fates over to CellRank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from hdtree_sc._errors import require_obs, require_uns
from hdtree_sc._keys import Keys
from hdtree_sc.tl._groups import tree_colors

if TYPE_CHECKING:
    from anndata import AnnData

LINEAGES = "lineages_fwd"
"""``obsm``: where CellRank 2 keeps fate probabilities."""
TERMINAL = "term_states_fwd"
"""``obs``: where CellRank 2 keeps the terminal state of the cells that are in one."""


def to_cellrank(
    adata: AnnData,
    key: str = "hdtree",
    *,
    threshold_scheme: Literal["hard", "soft"] = "hard",
    frac_to_keep: float = 0.3,
) -> Any:
    """Make CellRank's pseudotime kernel of our graph and pseudotime, and give it our fates.

    Transitions go over the edges of :func:`hdtree_sc.tl.lineage_graph`, with its connectivities as weights, and mostly
    forward in pseudotime (``"hard"``: as in Palantir; ``"soft"``: as in VIA).

    Parameters
    ----------
    adata
        Cells with :func:`hdtree_sc.tl.lineage_graph` and :func:`hdtree_sc.tl.pseudotime`.
    key
        Key of the tree.
    threshold_scheme
        What CellRank does with edges that lead back: ``"hard"`` drops them but for the nearest neighbours, ``"soft"``
        makes them weaker.
    frac_to_keep
        Share of each cell's nearest neighbours that ``"hard"`` keeps in any case.

    Returns
    -------
    A ``cellrank.kernels.PseudotimeKernel`` of ``adata`` with its transition matrix (n_cells, n_cells), rows of which
    sum to 1.

    Sets the following fields:

    ``adata.obsp["T_fwd"]``, ``adata.uns["T_fwd_params"]``
        The transition matrix, CSR, as ``kernel.write_to_adata()`` leaves it: ``PseudotimeKernel.from_adata(adata,
        key="T_fwd")`` finds it again.

    And if ``adata.obsm["<key>_fates"]`` is there:

    ``adata.obsm["lineages_fwd"]`` : float64 (n_cells, n_fates)
        The same probabilities, where CellRank's estimators and plots look for them; ``cellrank.Lineage.from_adata``
        makes a ``Lineage`` of them, with the names and colours below.
    ``adata.obs["term_states_fwd"]`` : categorical
        Fate of the terminal cells (``obs["<key>_terminal"]``), missing for all others.
    ``adata.uns["term_states_fwd_colors"]`` : list
        Their colours.

    Raises
    ------
    ImportError
        If CellRank is not installed.
    KeyError
        If the tree, the graph or the pseudotime is missing.
    ValueError
        If ``threshold_scheme`` is unknown or ``frac_to_keep`` is no share.

    References
    ----------
    CellRank: Lange et al., Nat. Methods 19, 159 (2022). Palantir: Setty et al., Nat. Biotechnol. 37, 451 (2019). VIA:
    Stassen et al., Nat. Commun. 12, 5528 (2021).

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> ht.tl.fate_probabilities(adata)
    >>> kernel = ht.tl.to_cellrank(adata)
    >>> kernel.transition_matrix.shape == (adata.n_obs, adata.n_obs)
    True
    """
    if threshold_scheme not in ("hard", "soft"):
        msg = f"threshold_scheme: {threshold_scheme!r} is unknown; choose 'hard' or 'soft'."
        raise ValueError(msg)
    if not 0 <= frac_to_keep <= 1:
        msg = f"frac_to_keep: {frac_to_keep} is outside 0 to 1, it is a share of the neighbours."
        raise ValueError(msg)
    keys = Keys(key)
    require_uns(adata, key, "hdtree_sc.tl.tree(adata, model)")
    require_uns(adata, keys.neighbors, f"hdtree_sc.tl.lineage_graph(adata, key={key!r})")
    require_obs(adata, keys.pseudotime, f"hdtree_sc.tl.pseudotime(adata, root=..., key={key!r})")
    try:
        from cellrank.kernels import PseudotimeKernel
    except ImportError as error:
        msg = 'hdtree_sc.tl.to_cellrank needs CellRank: pip install "hdtree-sc[lineage]".'
        raise ImportError(msg) from error
    kernel = PseudotimeKernel(adata, time_key=keys.pseudotime, conn_key=keys.connectivities)
    options = {"frac_to_keep": frac_to_keep} if threshold_scheme == "hard" else {}
    # one process: the work is small, and starting others is not
    kernel.compute_transition_matrix(
        threshold_scheme=threshold_scheme, show_progress_bar=False, n_jobs=1, backend="threading", **options
    )
    kernel.write_to_adata()
    if keys.fates in adata.obsm:
        fates = adata.obsm[keys.fates]
        names = [str(name) for name in fates.columns]
        colors = tree_colors(len(names))
        # a plain array: CellRank 2.0.7 cannot write its Lineage to h5ad with anndata 0.12, and makes one of this
        adata.obsm[LINEAGES] = np.asarray(fates, dtype=np.float64)
        terminal = require_obs(adata, keys.terminal, f"hdtree_sc.tl.fate_probabilities(adata, key={key!r})")
        adata.obs[TERMINAL] = pd.Categorical(terminal, categories=names)
        adata.uns[f"{TERMINAL}_colors"] = colors
    return kernel
