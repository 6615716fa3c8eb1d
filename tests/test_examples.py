"""The examples in docstrings: every public function has one, and all of them run."""

from __future__ import annotations

import doctest
import importlib.util
import inspect

import matplotlib.pyplot as plt
import pytest
from helpers import QUIET

import hdtree_sc as ht

SPACES = ("tl", "pl", "get", "metrics", "datasets")
FUNCTIONS = {f"{space}.{name}": getattr(getattr(ht, space), name) for space in SPACES for name in getattr(ht, space).__all__}
CLASSES = {name: getattr(ht, name) for name in ("HDTree", "BranchedDiffusion", "TreeVAE", "Tree")}
EXTRAS = {"tl.to_cellrank": "cellrank", "get.treedata": "treedata"}
"""Functions that hand over to a package of an extra."""
GENERATOR = {"max_epochs": 2, "n_hidden": 32, "n_blocks": 1}


def methods() -> dict[str, object]:
    """Methods of the classes with examples, each under the first class that has it."""
    found: dict[object, str] = {}
    for owner, cls in CLASSES.items():
        for name in dir(cls):
            member = inspect.getattr_static(cls, name)
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if not name.startswith("_") and ">>>" in (inspect.getdoc(function) or ""):
                found.setdefault(function, f"{owner}.{name}")
    return {name: function for function, name in found.items()}


DOCUMENTED = FUNCTIONS | CLASSES | methods()


def system_of(name: str) -> str:
    """Class of the model that an example calls `model`."""
    owner = "BranchedDiffusion" if name == "pl.branch_points" else name.split(".")[0]
    return owner if owner in ("BranchedDiffusion", "TreeVAE") else "HDTree"


@pytest.fixture(scope="module")
def systems(fitted, labelled, tmp_path_factory):
    """Folder of a saved model of each class that can generate, hardly trained where it is not the shared one, and its
    cells.
    """
    import scvi

    folder = tmp_path_factory.mktemp("examples")
    cells = {"HDTree": fitted[1].copy(), "BranchedDiffusion": labelled.copy(), "TreeVAE": labelled.copy()}
    fitted[0].save(folder / "fitted")
    models = {"HDTree": ht.HDTree.load(folder / "fitted", cells["HDTree"])}
    for name in ("BranchedDiffusion", "TreeVAE"):
        scvi.settings.seed = 0
        CLASSES[name].setup_anndata(cells[name], labels_key="cell_type")
        models[name] = CLASSES[name](cells[name], n_hidden=32)
        several = {"diffusion_kwargs": GENERATOR} if name == "BranchedDiffusion" else {}
        models[name].train(max_epochs=10, **several, **QUIET)
    for name in ("HDTree", "TreeVAE"):
        models[name].train_diffusion(**GENERATOR, **QUIET)
    for name, model in models.items():
        model.save(folder / name)
    ht.tl.pseudotime(cells["HDTree"], root_key="cell_type", root_value="Neuroblast_ASG_AWA")
    return folder, cells


@pytest.fixture
def one_epoch(monkeypatch):
    """Every training ends after one pass."""
    from lightning.pytorch import Trainer

    make = Trainer.__init__

    def short(self, **kwargs):
        make(self, **(kwargs | {"max_epochs": 1, "check_val_every_n_epoch": 1, "enable_progress_bar": False}))

    monkeypatch.setattr(Trainer, "__init__", short)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example(name):
    assert "Examples\n--------\n>>> " in (inspect.getdoc(FUNCTIONS[name]) or "")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_examples_run_and_print_what_they_promise(name, systems, one_epoch, tmp_path, monkeypatch):
    if name in EXTRAS and importlib.util.find_spec(EXTRAS[name]) is None:
        pytest.skip(f"{EXTRAS[name]} is not installed")
    monkeypatch.chdir(tmp_path)
    folder, cells = systems
    system = system_of(name)
    known = {"Tree": ht.Tree}
    if name not in CLASSES:
        known["adata"] = cells[system].copy()
        known["model"] = CLASSES[system].load(folder / system, known["adata"])
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(DOCUMENTED[name]), known, name, None, None)
    said: list[str] = []
    try:
        doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS).run(example, out=said.append)
    finally:
        plt.close("all")
    assert not said, "".join(said)
