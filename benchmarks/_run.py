"""Runs methods on data sets under seeds, and keeps every row as soon as it is there."""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import os
import platform
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import _clusters
from benchmarks._cells import Cells, NotApplicable
from benchmarks._hdtree import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

PACKAGES = (
    "hdtree-sc", "torch", "scvi-tools", "scanpy", "scikit-learn", "umap-learn", "leidenalg", "igraph", "palantir",
    "scFates", "numpy",
)  # fmt: skip
REASON = "not run"
"""Column of why a row has no numbers."""


@dataclass(frozen=True)
class Method:
    """One row of a table.

    Parameters
    ----------
    name
        What the table calls it.
    run
        Measures of one data set under one seed.
    kind
        ``"ours"``, ``"peer"`` (the best is in bold), ``"reference"`` (chance, supervised), or ``"published"``: a number
        that somebody else measured, which has no seeds.
    table
        Which table the row is in.
    """

    name: str
    run: Callable[[Cells], Mapping[str, float]]
    kind: str = "peer"
    table: str = "all"


def parser(description: str, sets: Collection[str], methods: Collection[str] = ()) -> argparse.ArgumentParser:
    """Arguments that all commands share.

    Parameters
    ----------
    description
        What the command does.
    sets
        Data sets to choose from.
    methods
        Keys of the methods to choose from.
    """
    out = argparse.ArgumentParser(description=description)
    out.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    out.add_argument("--seeds", type=int, default=5, help="how many, from 0 on (default: 5)")
    out.add_argument("--sets", nargs="+", default=list(sets), choices=list(sets), metavar="SET", help=", ".join(sets))
    if methods:
        shown = ", ".join(methods)
        out.add_argument("--methods", nargs="+", default=list(methods), choices=list(methods), metavar="M", help=shown)
        out.add_argument("--retry", action="store_true", help="try again what failed in an earlier run")
        out.add_argument("--report-only", action="store_true", help="write the tables of what is in the cache")
        out.add_argument("--cache", type=Path, default=Path(".cache/benchmarks"), help="results, kept from run to run")
    out.add_argument("--out", type=Path, default=Path("docs/benchmarks"), help="folder of the tables")
    return out


def quiet() -> None:
    """No warnings and no training log: what runs for an hour must be readable."""
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "scvi", "hdtree_sc"):
        logging.getLogger(name).setLevel(logging.ERROR)


def circumstances() -> dict[str, Any]:
    """Versions, machine, threads and date, which belong to every number."""
    return {
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {_threads()}, no GPU",
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
    }


def _threads() -> str:
    """How many threads a method may use."""
    given = os.environ.get("OMP_NUM_THREADS")
    return f"OMP_NUM_THREADS={given}" if given else "threads not limited"


def installed(name: str) -> str | None:
    """Version of a package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


class Cache:
    """Rows of one command, one JSON object a line, appended when done.

    Parameters
    ----------
    folder
        Where it is kept; made, and hidden from git.
    command
        Name of the command.
    """

    def __init__(self, folder: Path, command: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
        self.file = folder / f"{command}.jsonl"
        self._rows: dict[tuple[str, str, int], dict[str, Any]] = {}
        if self.file.exists():
            for line in self.file.read_text().splitlines():
                self._hold(json.loads(line))

    def _hold(self, row: dict[str, Any]) -> None:
        self._rows[row["data"], row["method"], row["seed"]] = row

    def get(self, data: str, method: str, seed: int) -> dict[str, Any] | None:
        """The last row of a data set, method and seed; None if there is none, or if ours is of other code."""
        row = self._rows.get((data, method, seed))
        return None if row is None or row.get("code") not in (None, fingerprint()) else row

    def put(self, row: dict[str, Any]) -> None:
        """Keep a row."""
        with self.file.open("a") as out:
            out.write(json.dumps(row) + "\n")
        self._hold(row)


def run(command: str, methods: Mapping[str, Method], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run what is not in the cache; a method that fails becomes a row that says why.

    Parameters
    ----------
    command
        Name of the command.
    methods
        All methods of the command.
    arguments
        Of `parser`.

    Returns
    -------
    The rows asked for that are in the cache, by data set, method and seed.
    """
    quiet()
    cache = Cache(arguments.cache, command)
    if not arguments.report_only:
        warm_up()
        for name in arguments.sets:
            for seed in range(arguments.seeds):
                _run_one(cache, methods, arguments, name, seed)
    found = (
        cache.get(name, key, seed) for name in arguments.sets for key in arguments.methods
        for seed in range(arguments.seeds)
    )  # fmt: skip
    return [row for row in found if row is not None]


def _run_one(cache: Cache, methods: Mapping[str, Method], arguments: argparse.Namespace, name: str, seed: int) -> None:
    cells = None
    for key in arguments.methods:
        if methods[key].kind == "published" and seed > 0:
            continue
        old = cache.get(name, key, seed)
        if old is not None and not (arguments.retry and REASON in old):
            continue
        if cells is None:
            cells = Cells(arguments.data, name, seed, arguments.cache)
        row: dict[str, Any] = {"data": name, "method": key, "seed": seed}
        try:
            # peers talk and draw progress bars, each in its own way
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                measured = methods[key].run(cells)
            row |= {measure: _plain(value) for measure, value in measured.items()}
        except NotApplicable as reason:
            row[REASON] = str(reason)
        except Exception as error:  # noqa: BLE001 - whatever a peer raises, its row has to say so
            row[REASON] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if methods[key].kind == "ours":
            row["code"] = fingerprint()
        cache.put(row | {"circumstances": circumstances()})
        shown = {measure: value for measure, value in row.items() if measure not in ("data", "method", "seed", "code")}
        print(f"{name} seed {seed} {key}: {shown}", flush=True)


def _plain(value: Any) -> float | int | None:
    """A number that JSON knows; NaN is None."""
    if isinstance(value, int | np.integer):
        return int(value)
    return float(value) if np.isfinite(value) else None


def warm_up() -> None:
    """Import and compile what the first neighbour graph needs, so that no method's seconds hold it."""
    _clusters.neighbors(np.random.default_rng(0).normal(size=(60, 5)))
