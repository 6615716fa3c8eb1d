"""The bundled real data set."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData


def celegans() -> AnnData:
    """Amphid sensory neurons of the *C. elegans* embryo, with embryo time and lineage.

    1,444 cells on the way from neuroblasts to the neurons ADL, ASG, AWA, AWB and AWC, 10x Genomics, 7 batches. The
    file is part of the package, so this works offline; each call gives a fresh copy. All 10,000 genes of the source
    (itself the 10,000 most variable of the study) fit into the 2 MB that the package allows, so none was dropped.

    Returns
    -------
    AnnData of 1,444 cells by 10,000 genes. `X` holds UMI counts (whole numbers, float32, CSR).

    `.obs["cell_type"]`
        9 types; mother cells (`ADL_parent`, `Neuroblast_ASG_AWA`), cells annotated as one of two types (`ASG_AWA`) and
        a state of AWC (`AWC_ON`) among them.
    `.obs["lineage"]`
        Sulston name; `x` stands for either of two cells, `/` for one of two names. Missing (NaN) in 84 cells.
    `.obs["time"]`, `.obs["embryo_time_bin"]`
        Embryo time in minutes after first cleavage, estimated by the authors from whole-embryo RNA-seq; its bins.
    `.obs["batch"]`, `.obs["time_point"]`
        Library, and the age at which its embryos were collected. Batches differ in time: do not mix them fully.
    `.obs["total_counts"]`
        Counts of the cell over the 10,000 genes.
    `.var["gene_short_name"]`, `.var["highly_variable_rank"]`
        Gene symbol (the index holds WormBase identifiers); 0 for the most variable gene by scanpy's normalised
        dispersion of log-normalised counts. ``adata[:, adata.var["highly_variable_rank"] < 2000]`` takes 2,000.
    `.uns["cell_type_parent"]`
        JSON text, child type to parent type.
    `.uns["cell_type_colors"]`
        Colours of the 9 types for scanpy's plots; related types have related hues.

    Notes
    -----
    Packer et al., "A lineage-resolved molecular atlas of C. elegans embryogenesis at single-cell resolution", Science
    365, eaax1971 (2019), GEO accession GSE126954; please cite it. Taken from the example data of
    cole-trapnell-lab/monocle3 (``inst/extdata/worm_embryo``; MIT licence). The data are public at GEO and remain their
    authors'. ``benchmarks/make_celegans.py`` made the file.

    Examples
    --------
    >>> import hdtree_sc as ht
    >>> adata = ht.datasets.celegans()
    >>> adata.shape, adata.obs["cell_type"].nunique()
    ((1444, 10000), 9)
    """
    from anndata import read_h5ad

    with as_file(files("hdtree_sc.datasets") / "celegans.h5ad") as path:
        adata = read_h5ad(path)
    adata.X = adata.X.astype(np.float32)
    return adata
