"""The report of the demo: one page that needs nothing beside it."""

from __future__ import annotations

import base64
import math
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

import pandas as pd

from hdtree_sc.demo import _analysis
from hdtree_sc.demo._figures import DPI, FIGURES
from hdtree_sc.demo._measures import MIN_CELLS, Results, machine, peak_memory, versions
from hdtree_sc.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData

    from hdtree_sc.model import HDTree


def page(
    adata: AnnData,
    model: HDTree,
    results: Results,
    *,
    folder: Path,
    seconds: Mapping[str, float],
    seed: int,
    max_epochs: int | None,
) -> str:
    """The report as HTML, figures inlined, no script, nothing from outside.

    Parameters
    ----------
    adata
        Cells with tree, pseudotime and path.
    model
        The trained model.
    results
        What was measured.
    folder
        Where the figures are.
    seconds
        Time that each step took.
    seed
        Seed of the training.
    max_epochs
        Epochs asked for on the command line, None for the default.
    """
    template = Template(files("hdtree_sc.demo").joinpath("report.html").read_text(encoding="utf-8"))
    figures = {f"figure_{figure.name}": _figure(figure, folder) for figure in FIGURES}
    memory = peak_memory()
    words = {
        "n_cells": f"{adata.n_obs:,}",
        "n_genes": f"{adata.n_vars:,}",
        "n_types": adata.obs["cell_type"].nunique(),
        "n_batches": adata.obs["batch"].nunique(),
        "first_minute": f"{adata.obs['time'].min():.0f}",
        "last_minute": f"{adata.obs['time'].max():.0f}",
        "median_counts": f"{float(pd.Series(adata.X.sum(axis=1).A1).median()):,.0f}",
        "n_leaves": results.n_leaves,
        "depth": results.depth,
        "groups": int(results.trees["Groups"].iloc[0]),
        "purity": _number(results.trees["Dendrogram purity"].iloc[0]),
        "nmi": _number(results.trees["NMI"].iloc[0]),
        "rho": _number(results.orders["All cells"].iloc[0]),
        "rho_within": _number(results.orders["Within types"].iloc[0]),
        "least_cells": MIN_CELLS,
        "source": _analysis.SOURCE,
        "target": _analysis.TARGET,
        "n_steps": len(results.path),
        "root_cell": results.root_cell,
        "root_type": results.root_type,
        "train_seconds": f"{seconds['train HDTree']:.0f}",
        "total_seconds": f"{list(seconds.values())[-1]:.0f}",
        "epochs": model.trainer.current_epoch,
        "steps": f"{model.trainer.global_step:,}",
        "step_time": f"{1000 * seconds['train HDTree'] / max(1, model.trainer.global_step):.0f} ms",
        "memory": "not reported by this system" if memory is None else f"{memory:,.0f} MiB",
        "seed": seed,
        "command": f"python -m hdtree_sc.demo --seed {seed}" + (f" --max-epochs {max_epochs}" if max_epochs else ""),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": versions()["hdtree-sc"],
        "code": files("hdtree_sc.demo").joinpath("_analysis.py").read_text(encoding="utf-8"),
        "newick": Tree.from_adata(adata).to_newick(),
    }
    tables = {
        "table_types": _table(results.types[["Cells", "Mean embryo time"]], {"Mean embryo time": 0}, "Type"),
        "table_trees": _table(results.trees.astype({"Leaves": int, "Groups": int}), {}, "Tree"),
        "table_path": _table(_path_columns(results.path), {"Share": 2, "Distance": 1, "Embryo time": 0}, "Node"),
        "table_orders": _table(results.orders, {}, "Order"),
        "table_rho": _table(results.types.drop(columns="Mean embryo time"), {}, "Type"),
        "table_losses": _table(results.losses.rename(str.capitalize, axis=1), {}, "Component"),
        "table_seconds": _table(pd.DataFrame({"Seconds": seconds}), {"Seconds": 1}, "Step"),
        "table_machine": _table(pd.DataFrame({"": machine(model)}), {}, ""),
        "table_versions": _table(pd.DataFrame({"Version": versions()}), {}, "Package"),
        "table_options": _table(pd.DataFrame({"Value": model.params_of_tree()}).astype(str), {}, "Option"),
    }
    return template.substitute({name: escape(str(value)) for name, value in words.items()} | tables | figures)


def _path_columns(path: pd.DataFrame) -> pd.DataFrame:
    names = {
        "n_cells": "Cells",
        "composition": "Most frequent type",
        "share": "Share",
        "distance": "Distance",
        "time": "Embryo time",
        "pseudotime": "Pseudotime",
    }
    return path.set_index("node")[list(names)].rename(columns=names)


def _number(value: float, digits: int = 3) -> str:
    return "–" if not math.isfinite(value) else f"{value:.{digits}f}".replace("-", "−")


def _cell(value: Any, digits: int) -> str:
    if not isinstance(value, int | float):
        return f"<td>{escape(str(value))}</td>"
    text = f"{value:,}" if isinstance(value, int) else _number(value, digits)
    return f'<td class="number">{text}</td>'


def _table(frame: pd.DataFrame, digits: Mapping[str, int], corner: str) -> str:
    """A table with the index as its first column; numbers have three decimals where `digits` does not say otherwise."""
    numeric = [pd.api.types.is_numeric_dtype(frame[column]) for column in frame]
    heads = [f"<th{' class=number' if n else ''}>{escape(str(c))}</th>" for c, n in zip(frame, numeric, strict=True)]
    head = f"<thead><tr><th>{escape(corner)}</th>{''.join(heads)}</tr></thead>" if any(map(str, frame.columns)) else ""
    columns = [frame[column].tolist() for column in frame]
    places = [digits.get(str(column), 3) for column in frame]
    rows = [
        f"<tr><th>{escape(str(name))}</th>{''.join(_cell(c[i], d) for c, d in zip(columns, places, strict=True))}</tr>"
        for i, name in enumerate(frame.index)
    ]
    return f'<div class="table"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>'


def _figure(figure: Any, folder: Path) -> str:
    png = (folder / f"{figure.name}.png").read_bytes()
    # The header of a PNG file holds its width; shown in its own inches, letters are as large in every figure.
    width = int.from_bytes(png[16:20], "big") * 96 // DPI
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure id="{escape(figure.name)}">'
        f'<img width="{width}" alt="{escape(figure.alt)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
    )
