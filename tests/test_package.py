"""The package as a whole: it is light to import, typed, and its rooms know only the rooms below them."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.metadata import requires, version
from importlib.resources import files
from pathlib import Path

import pytest

import hdtree_sc as ht

PACKAGE = Path(ht.__file__).parent
TRAINING = {"lightning", "pytorch_lightning", "scvi", "torch"}
HEAVY = TRAINING | {"numba", "pynndescent", "scanpy", "seaborn", "umap"}
LIGHT_NAMES = "ht.tl, ht.pl, ht.get, ht.metrics, ht.datasets, ht.Tree"

# Which rooms of the package a room may import (itself always); `diffusion` and `nn` are pure torch, `stats`
# is pure numbers, and they import none.
ROOMS: dict[str, set[str]] = {
    "_disk": set(),
    "_docs": set(),
    "_errors": set(),
    "_keys": set(),
    "nn": set(),
    "diffusion": set(),
    "stats": set(),
    "tree": {"_errors", "_keys"},
    "graph": {"tree"},
    "growth": {"nn", "tree", "graph"},
    "data": {"_disk", "_errors", "_keys", "nn", "graph"},
    "files": set(),
    "train": {"_errors", "_keys"},
    "module": {"_errors", "_keys", "nn", "diffusion", "tree"},
    "generate": {"_errors", "_keys", "diffusion", "stats", "tree", "data", "train", "module"},
    "model": {
        "_disk", "_docs", "_errors", "_keys", "nn", "diffusion", "data", "train", "tree", "graph", "growth", "module",
        "generate", "files",
    },
    "get": {"_disk", "_errors", "_keys", "tree"},
    "metrics": {"_errors", "_keys", "tree"},
    "datasets": {"_errors", "_keys", "tree"},
    "pl": {"_docs", "_errors", "_keys", "tree", "stats", "get"},
    "tl": {"_docs", "_errors", "_keys", "tree", "graph", "stats", "get"},
}  # fmt: skip
# What stands above all rooms: the lazy top level and programs.
ABOVE = {"__init__", "demo"}

# Other packages: a room of the first table may import those and the standard library, one of the second all but those.
ONLY: dict[str, set[str]] = {
    "_disk": {"anndata", "h5py"},
    "_docs": set(),
    "_errors": {"numpy", "pandas", "scipy"},
    "_keys": set(),
    "tree": {"networkx", "numpy", "pandas", "scipy"},
    "graph": {"numpy", "pynndescent", "scipy", "sklearn"},
    "stats": {"numpy", "scipy", "sklearn"},
    "growth": {"numpy", "sklearn", "torch"},
    "nn": {"numpy", "torch"},
    "diffusion": {"numpy", "torch"},
}
NEVER: dict[str, set[str]] = {
    "data": {"matplotlib"},
    "files": {"matplotlib"},
    "train": {"anndata", "matplotlib"},
    "module": {"anndata", "matplotlib"},
    "generate": {"matplotlib"},
    "model": {"matplotlib"},
    "get": TRAINING,
    "metrics": TRAINING,
    "datasets": TRAINING,
    "pl": TRAINING,
    "tl": TRAINING | {"matplotlib"},
}


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def seconds(imports: str, runs: int = 3) -> float:
    """Wall time of some imports in a fresh interpreter, the best of a few, as the others also time the neighbours."""
    code = f"from time import perf_counter as now; start = now(); {imports}; print(now() - start)"
    return min(float(run(code)) for _ in range(runs))


def imports_of(path: Path) -> set[str]:
    """Full names of the modules a file imports anywhere but for type checkers alone."""
    package = ["hdtree_sc", *path.relative_to(PACKAGE).parts[:-1]]
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from hdtree_sc import tree` names the room only in its last part.
            found.update(f"{origin}.{alias.name}" if origin == "hdtree_sc" else origin for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def room_of(path: Path) -> str:
    """The first part of a file's place in the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def private_imports(path: Path) -> set[str]:
    """What a file imports from underscore files of other rooms, for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        parts = [name.split(".") for name in names]
        found |= {
            ".".join(part[:3])
            for part in parts
            if part[0] == "hdtree_sc" and len(part) > 2 and part[2].startswith("_") and part[1] != room_of(path)
        }
    return found


def sources(room: str) -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if room_of(path) == room]


class TestLazyTopLevel:
    def test_the_namespaces_of_tools_load_neither_the_training_stack_nor_scanpy(self):
        loaded = run(f"import sys, hdtree_sc as ht; {LIGHT_NAMES}; print(*sorted({HEAVY!r} & set(sys.modules)))")
        assert loaded == ""

    def test_importing_the_package_takes_a_fraction_of_importing_anndata(self):
        # On a machine so slow that a limit in seconds says nothing, the comparison still does.
        assert seconds("import hdtree_sc") < min(1, seconds("import anndata", runs=1) / 2)

    @pytest.mark.parametrize("name", ht.__all__)
    def test_every_public_name_is_found_and_listed(self, name):
        assert getattr(ht, name) is getattr(ht, name)
        assert name in dir(ht)

    def test_short_names_are_the_classes_of_their_rooms(self):
        assert ht.HDTree is ht.model.HDTree
        assert ht.Tree is ht.tree.Tree

    def test_an_unknown_name_is_answered_with_those_that_exist(self):
        with pytest.raises(AttributeError, match=r"no attribute 'Forest'; it has .*HDTree.*Tree.*tl"):
            _ = ht.Forest


class TestDistribution:
    def test_the_version_is_that_of_the_installed_distribution(self):
        assert version("hdtree-sc").count(".") == 2
        assert not hasattr(ht, "__version__")

    def test_type_checkers_are_told_that_the_package_is_typed(self):
        assert files("hdtree_sc").joinpath("py.typed").is_file()

    def test_the_malicious_releases_of_lightning_are_excluded(self):
        (lightning,) = (entry for entry in requires("hdtree-sc") or [] if entry.startswith("lightning"))
        assert "!=2.6.2" in lightning
        assert "!=2.6.3" in lightning


class TestRooms:
    def test_every_room_has_its_row_in_the_table(self):
        assert {room_of(path) for path in PACKAGE.rglob("*.py")} <= ROOMS.keys() | ABOVE

    def test_no_arrow_of_the_table_runs_in_a_circle(self):
        order = list(TopologicalSorter(ROOMS).static_order())
        assert set(order) == ROOMS.keys()

    @pytest.mark.parametrize("room", ROOMS)
    def test_a_room_imports_only_rooms_below_it(self, room):
        allowed = ROOMS[room] | {room}
        for path in sources(room):
            inner = {name for name in imports_of(path) if name.split(".")[0] == "hdtree_sc"}
            upward = {name for name in inner if (name.split(".") + [""])[1] not in allowed}
            assert not upward, f"{path.relative_to(PACKAGE)} imports {sorted(upward)}"

    @pytest.mark.parametrize("room", sorted({*ROOMS, *ABOVE}))
    def test_a_room_is_entered_by_its_door(self, room):
        for path in sources(room):
            found = private_imports(path)
            assert not found, f"{path.relative_to(PACKAGE)} imports {sorted(found)}: import from the room itself"

    @pytest.mark.parametrize("room", ROOMS)
    def test_a_room_keeps_to_its_outside_packages(self, room):
        for path in sources(room):
            outer = {name.split(".")[0] for name in imports_of(path)} - {"hdtree_sc"} - sys.stdlib_module_names
            strange = outer - ONLY[room] if room in ONLY else outer & NEVER[room]
            assert not strange, f"{path.relative_to(PACKAGE)} imports {sorted(strange)}"
