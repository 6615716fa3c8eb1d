"""Trained models on disk, so that several rows and several runs use one; HDTree's until its code changes."""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hdtree_sc as ht
from benchmarks import _hdtree, _measures
from benchmarks._cells import QUIET
from benchmarks._halves import LABEL

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from benchmarks._cells import Cells
    from benchmarks._halves import Halves

CODE = ("diffusion/*.py", "tl/_lineage_path.py")
"""Files that decide about generated cells, beside those of `benchmarks._hdtree.CODE`, which holds model and module."""
VARIANTS: dict[str, dict[str, Any]] = {"latent": {}, "expression": {"space": "expression"}, "no gate": {"gate": "none"}}
"""Arguments of ``train_diffusion``."""


@cache
def fingerprint() -> str:
    """A short name of all code that a generated cell depends on, without comments and docstrings."""
    source = Path(ht.__file__).parent
    files = sorted(file for pattern in CODE for file in source.glob(pattern))
    text = "\n".join(ast.dump(_hdtree._Bare().visit(ast.parse(file.read_text()))) for file in files)
    return hashlib.sha256((_hdtree.fingerprint() + text).encode()).hexdigest()[:12]


def kept(folder: Path, model_cls: Any, adata: AnnData, fit: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """A model and what it took: read, or trained and written.

    Parameters
    ----------
    folder
        Where it is kept.
    model_cls
        Its class.
    adata
        The cells it is trained on.
    fit
        Trains it.
    """
    said = folder / "cost.json"
    if said.exists():
        cost = {name: float("nan") if value is None else value for name, value in json.loads(said.read_text()).items()}
        return model_cls.load(folder, adata=adata, accelerator="cpu"), cost
    with _measures.Step() as step:
        model = fit()
    folder.parent.mkdir(parents=True, exist_ok=True)
    model.save(folder, overwrite=True)
    # last: a folder without it is of a run that was stopped
    said.write_text(json.dumps({name: value if value == value else None for name, value in step.cost.items()}))
    return model, step.cost


def tree_model(adata: AnnData, likelihood: str, seed: int) -> ht.HDTree:
    """HDTree as it comes, told labels that its tree does not read."""
    import scvi

    scvi.settings.seed = seed
    ht.HDTree.setup_anndata(adata, labels_key=LABEL)
    model = ht.HDTree(adata, gene_likelihood=likelihood)
    model.train(**QUIET)
    return model


def generator(
    adata: AnnData, cells: Cells, variant: str = "latent", what: str = "half"
) -> tuple[ht.HDTree, dict[str, float]]:
    """HDTree with a trained generator, and what the two took.

    Parameters
    ----------
    adata
        The cells to fit it on.
    cells
        The data set that they are of.
    variant
        Key of `VARIANTS`.
    what
        What of the data set they are.
    """
    import scvi

    mark = cells.cache / "generators" / f"{cells.data.name}-{cells.seed}-{what.replace(' ', '_')}"

    def tree_alone() -> tuple[ht.HDTree, dict[str, float]]:
        folder = mark.with_name(f"{mark.name}-tree-{_hdtree.fingerprint()}")
        return kept(folder, ht.HDTree, adata, lambda: tree_model(adata, cells.data.likelihood, cells.seed))

    model, cost = tree_alone()

    def fit() -> ht.HDTree:
        scvi.settings.seed = cells.seed
        model.train_diffusion(**VARIANTS[variant], **QUIET)
        return model

    folder = mark.with_name(f"{mark.name}-{variant.replace(' ', '_')}-{fingerprint()}")
    model, more = kept(folder, ht.HDTree, adata, fit)
    return model, _measures.total_cost(cost, more)


def of_half(half: Halves, variant: str = "latent") -> tuple[ht.HDTree, dict[str, float]]:
    """HDTree with a generator, fitted on the first half."""
    return generator(half.fit, half.cells, variant)
