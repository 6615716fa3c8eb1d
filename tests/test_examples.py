"""The examples in docstrings: every public function has one, and all of them run."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
from typing import Any

import matplotlib.pyplot as plt
import pytest
from helpers import QUIET

import hdtree_sc as ht
from hdtree_sc._docs import shared_params

SPACES = ("tl", "pl", "get", "metrics", "datasets")
FUNCTIONS = {
    f"{space}.{name}": getattr(getattr(ht, space), name) for space in SPACES for name in getattr(ht, space).__all__
}
MODELS = ("HDTree", "BranchedDiffusion", "TreeVAE")
ALONE = [name for name in FUNCTIONS if name.startswith(("metrics.", "datasets.")) and name != "metrics.compare_cells"]
"""Functions whose examples begin with neither cells nor a model."""
EXTRAS = {"tl.to_cellrank": "cellrank", "get.treedata": "treedata"}
"""Functions that hand over to a package of an extra."""
GENERATOR = {"max_epochs": 1, "n_hidden": 32, "n_blocks": 1}


def methods(owner: str) -> dict[str, Any]:
    """Members with examples, by name, that a class of this package defines and no model named before it has."""
    found = {}
    for name in dir(getattr(ht, owner)):
        member = inspect.getattr_static(getattr(ht, owner), name)
        function = inspect.unwrap(getattr(member, "__func__", getattr(member, "fget", member)))
        ours = str(getattr(function, "__module__", "")).startswith("hdtree_sc")
        if ours and not name.startswith("_") and ">>>" in (inspect.getdoc(function) or ""):
            found[name] = function
    for earlier in MODELS[: MODELS.index(owner)] if owner in MODELS else ():
        found = {name: function for name, function in found.items() if methods(earlier).get(name) is not function}
    return found


def failures(documented: object, name: str, known: dict[str, Any]) -> str:
    """What does not print what an example says, in doctest's words; empty if all do."""
    said: list[str] = []
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(documented), known, name, None, None)
    try:
        doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS).run(example, out=said.append)
    finally:
        plt.close("all")
    return "".join(said)


@pytest.fixture(scope="module")
def systems(fitted, labelled, tmp_path_factory):
    """A maker of what examples begin with: cells, and a model of some class that can generate.

    The generators, and models other than the shared one, are hardly trained, when they are first asked for.
    """
    folder = tmp_path_factory.mktemp("examples")
    cells: dict[str, Any] = {}

    def trained(name: str) -> None:
        import scvi

        scvi.settings.seed = 0
        if name == "HDTree":
            cells[name] = fitted[1].copy()
            ht.tl.pseudotime(cells[name], root_key="cell_type", root_value="Neuroblast_ASG_AWA")
            fitted[0].save(folder / "fitted")
            model = ht.HDTree.load(folder / "fitted", cells[name])
        else:
            cells[name] = labelled.copy()
            getattr(ht, name).setup_anndata(cells[name], labels_key="cell_type")
            model = getattr(ht, name)(cells[name], n_hidden=32)
            several = {"diffusion_kwargs": GENERATOR} if name == "BranchedDiffusion" else {}
            model.train(max_epochs=5, **several, **QUIET)
        if name != "BranchedDiffusion":
            model.train_diffusion(**GENERATOR, **QUIET)
        model.save(folder / name)

    def made(name: str) -> dict[str, Any]:
        if name not in cells:
            trained(name)
        adata = cells[name].copy()
        return {"adata": adata, "model": getattr(ht, name).load(folder / name, adata)}

    return made


@pytest.fixture
def bounded(tmp_path, monkeypatch):
    """A folder to write to, and trainings that end after one pass."""
    from scvi.train import Trainer

    make = Trainer.__init__

    def short(self, **kwargs):
        make(self, **(kwargs | {"max_epochs": 1, "check_val_every_n_epoch": 1, "enable_progress_bar": False}))

    monkeypatch.setattr(Trainer, "__init__", short)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example(name):
    assert "Examples\n--------\n>>> " in (inspect.getdoc(FUNCTIONS[name]) or "")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_of_a_public_function_is_described(name):
    doc = inspect.getdoc(FUNCTIONS[name]) or ""
    _, _, after = doc.partition("Parameters\n----------\n")
    described = {one for line in after.split("\n\n")[0].split("\n") if line[:1].strip() for one in line.split(", ")}
    assert described == set(inspect.signature(FUNCTIONS[name]).parameters)


def test_shared_parameters_are_described_in_the_order_of_the_arguments():
    @shared_params({"a, b": "Two.", "c": "Three.", "d": "Nobody's."})
    def some(a, x, b, c):
        """Do.

        Parameters
        ----------
        x
            Own.

        Returns
        -------
        Nothing.
        """

    @shared_params({"c": "Three."})
    def all_shared(c):
        """Do.

        Returns
        -------
        Nothing.
        """

    head, tail = "Do.\n\nParameters\n----------\n", "\n\nReturns\n-------\nNothing."
    assert some.__doc__ == head + "a, b\n    Two.\nx\n    Own.\nc\n    Three." + tail
    assert all_shared.__doc__ == head + "c\n    Three." + tail


@pytest.mark.parametrize("name", ALONE)
def test_examples_without_a_model_print_what_they_say(name):
    if wrong := failures(FUNCTIONS[name], name, {}):
        pytest.fail(wrong, pytrace=False)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ALONE])
def test_examples_of_functions_print_what_they_say(name, systems):
    if name in EXTRAS and importlib.util.find_spec(EXTRAS[name]) is None:
        pytest.skip(f"{EXTRAS[name]} is not installed")
    known = systems("BranchedDiffusion" if name == "pl.branch_points" else "HDTree")
    if wrong := failures(FUNCTIONS[name], name, known):
        pytest.fail(wrong, pytrace=False)


@pytest.mark.slow
@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("owner", MODELS)
def test_examples_of_models_and_their_methods_print_what_they_say(owner, systems, worm, monkeypatch):
    monkeypatch.setattr(ht.datasets, "celegans", worm.copy)  # fewer cells and genes
    wrong = failures(getattr(ht, owner), owner, {})
    wrong += "".join(failures(one, f"{owner}.{name}", systems(owner)) for name, one in methods(owner).items())
    if wrong:
        pytest.fail(wrong, pytrace=False)


def test_examples_of_trees_print_what_they_say():
    assert failures(ht.Tree, "Tree", {"Tree": ht.Tree}) == ""
    assert "".join(failures(method, name, {"Tree": ht.Tree}) for name, method in methods("Tree").items()) == ""
