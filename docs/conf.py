"""Sphinx configuration; `make docs` builds with warnings as errors and needs no network."""

from __future__ import annotations

import inspect
import os
import shutil
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.ext import autosummary

HERE = Path(__file__).parent

project = "hdtree-sc"
author = "hdtree-sc developers"
project_copyright = f"2026, {author}"
version = release = version_of(project)

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
templates_path = ["_templates"]

# Tutorials live at the top of the repository; a copy works where symbolic links do not.
shutil.rmtree(HERE / "tutorials", ignore_errors=True)
shutil.copytree(HERE.parent / "tutorials", HERE / "tutorials", ignore=shutil.ignore_patterns(".*", "lightning_logs"))

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are committed as executed; `make tutorials` runs them
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]

autosummary_generate = True
# A summary is the first sentence of a docstring, and that does not end within the name of a species.
autosummary.WELL_KNOWN_ABBREVIATIONS += ("C.", "D.", "M.")
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Sets the following fields", "notes_style")]

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

# A reference to our own names must resolve; names of other packages resolve only where their inventories are fetched.
nitpicky = True
nitpick_ignore_regex = [(r".*", r"(?!hdtree_sc\.|ht\.).*")]
if os.environ.get("HDTREE_DOCS_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "lightning": ("https://lightning.ai/docs/pytorch/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "networkx": ("https://networkx.org/documentation/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3/", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "scvi": ("https://docs.scvi-tools.org/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }

html_theme = "sphinx_book_theme"
html_title = f"{project} {release}"
html_theme_options = {"show_navbar_depth": 2, "use_download_button": False}


def _is_ours(fullname: str, member: str) -> bool:
    """Whether a class of this package defines a member, itself or through a mixin; used by the class template."""
    owner, name = fullname.rsplit(".", 1)
    cls = getattr(__import__(owner, fromlist=[name]), name)
    for base in inspect.getmro(cls):
        if member in vars(base):
            held = vars(base)[member]
            function = getattr(held, "__func__", getattr(held, "fget", held))
            # models wrap what they inherit, and a wrapper has the module of what it wraps
            return getattr(function, "__module__", base.__module__).split(".")[0] == "hdtree_sc"
    return member in getattr(cls, "__annotations__", {})


autosummary_context = {"is_ours": _is_ours}
suppress_warnings = ["config.cache"]  # a function in the configuration cannot be stored, and need not be
