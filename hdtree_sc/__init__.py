"""Trees over single cells, learned by hierarchical diffusion models: AnnData in, trees, lineages and figures out.

The package is lazy: ``import hdtree_sc as ht`` costs milliseconds, and ``ht.tl``, ``ht.pl``, ``ht.get``,
``ht.metrics``, ``ht.datasets`` and ``ht.Tree`` never import torch or scvi-tools. Only ``ht.model`` and the models do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hdtree_sc import datasets, get, metrics, model, pl, tl, tree
    from hdtree_sc.model import BranchedDiffusion, HDTree, TreeVAE
    from hdtree_sc.tree import Tree

__all__ = ["BranchedDiffusion", "HDTree", "Tree", "TreeVAE", "datasets", "get", "metrics", "model", "pl", "tl", "tree"]

_HOMES = {
    "BranchedDiffusion": "hdtree_sc.model",
    "HDTree": "hdtree_sc.model",
    "Tree": "hdtree_sc.tree",
    "TreeVAE": "hdtree_sc.model",
}
"""Public names that are not submodules, and the submodules that define them."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value  # found at once from now on
        return value
    if name in __all__:
        return import_module(f"{__name__}.{name}")  # the import system binds it here
    msg = f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
