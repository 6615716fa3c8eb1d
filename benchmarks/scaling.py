"""What it costs to fit, place and order 5, 10, 20 and 50 thousand cells, and what scVI's training costs beside.

``python -m benchmarks.scaling --cells 5000 10000 20000 50000`` writes ``scaling.csv``, ``scaling.md`` and
``scaling.png``. The cells are simulated; every size runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

import hdtree_sc as ht
from benchmarks import _measures, _report, _run, _speed
from benchmarks._hdtree import fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = ("fit s", "fit CPU s", "place s", "order s", "peak MB")
HEAD = """# Cost and number of cells

Made by `python -m benchmarks.scaling`. Cells are simulated (`ht.datasets.branching`, 2,000 genes, about half of the
counts above zero, CSR), models are trained with their defaults, and each size has a process of its own.
*fit*: from counts to a trained model with its tree, neighbour search included; *fit CPU*: the same in processor
seconds, which hardly move when somebody else uses the machine. *place*: `load_query_data` and `tl.tree` of the same
number of cells. *order*: `tl.lineage_graph` and `tl.pseudotime`. *peak MB*: highest memory of the process, libraries
and data included.
"""


def measure(file: Path) -> dict[str, float]:
    """Cost of HDTree on the cells of a file; in a process of its own.

    Parameters
    ----------
    file
        Of `benchmarks._speed.simulated`.
    """
    import scvi

    scvi.settings.seed = 0
    adata = ad.read_h5ad(file)
    with _measures.Step() as fit:
        ht.HDTree.setup_anndata(adata)
        model = ht.HDTree(adata)
        model.train(accelerator="cpu", enable_progress_bar=False)
    with _measures.Step() as place:
        ht.tl.tree(adata, ht.HDTree.load_query_data(adata, model))
    with _measures.Step() as order:
        ht.tl.lineage_graph(adata)
        ht.tl.pseudotime(adata, root=str(adata.obs_names[int(adata.obs["pt"].argmin())]))
    steps = {"fit s": fit, "place s": place, "order s": order}
    peak = max(step.peak_mb for step in steps.values())
    rho = adata.obs["hdtree_pseudotime"].corr(adata.obs["pt"], method="spearman")
    seconds = {name: step.seconds for name, step in steps.items()}
    return seconds | {"fit CPU s": fit.cpu_seconds, "peak MB": peak, "rho": float(rho)}


def measure_scvi(file: Path) -> dict[str, float]:
    """Seconds of scVI's default training on the cells of a file, extrapolated from a few epochs."""
    return _speed.scvi_seconds(ad.read_h5ad(file), "cpu")


MEASURED = {"HDTree": measure, "scVI": measure_scvi}


def apart(method: str, file: Path) -> dict[str, float]:
    """What a method costs, measured in a new process.

    Parameters
    ----------
    method
        Key of `MEASURED`.
    file
        Cells.
    """
    command = [sys.executable, "-m", "benchmarks.scaling", "--method", method, "--file", str(file)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(sizes: Sequence[int], scvi_cells: int, folder: Path) -> list[dict[str, Any]]:
    """Rows of all sizes, and scVI's of one; those in the cache are not measured again."""
    cache = _run.Cache(folder, "scaling")
    rows = []
    for method, n_cells in [*(("HDTree", n) for n in sizes), *([("scVI", scvi_cells)] if scvi_cells else [])]:
        row = cache.get(str(n_cells), method, 0)
        if row is None:
            measured = apart(method, _speed.simulated(n_cells, folder.absolute() / "simulated"))
            row = {"data": str(n_cells), "method": method, "seed": 0, **measured}
            row |= {"circumstances": _run.circumstances()} | ({"code": fingerprint()} if method == "HDTree" else {})
            cache.put(row)
            print({key: value for key, value in row.items() if key != "circumstances"}, flush=True)
        rows.append(row)
    return rows


def exponent(cells: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of log seconds over log cells: 1 is linear."""
    return float(np.polyfit(np.log(cells), np.log(seconds), 1)[0])


def write(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Write the table, the text and the figure."""
    frame = pd.DataFrame([{k: v for k, v in row.items() if k not in ("circumstances", "code", "seed")} for row in rows])
    frame = frame.rename(columns={"data": "cells"}).astype({"cells": int})
    out.mkdir(parents=True, exist_ok=True)
    frame.round(4).to_csv(out / "scaling.csv", index=False)
    ours, theirs = frame[frame["method"] == "HDTree"].sort_values("cells"), frame[frame["method"] == "scVI"]
    parts = [HEAD.strip(), _report.circumstances(rows), "![scaling](scaling.png)"]
    lines = [f"| cells | {' | '.join(COLUMNS)} |", f"|{'---|' * (len(COLUMNS) + 1)}"]
    for _, row in ours.iterrows():
        shown = " | ".join(f"{row[name]:,.{0 if name == 'peak MB' else 1}f}" for name in COLUMNS)
        lines.append(f"| {int(row['cells']):,} | {shown} |")
    parts.append("\n".join(lines))
    if len(ours) > 1:
        timed = [name for name in COLUMNS if name.endswith(" s")]
        told = ", ".join(f"{name[:-2]} {exponent(ours['cells'], ours[name]):.2f}" for name in timed)
        parts.append(f"Exponent of the cost in the number of cells (1 is linear): {told}.")
    for _, row in theirs.iterrows():
        same = ours[ours["cells"] == row["cells"]]
        text = (
            f"scVI's training with its defaults on {row['cells']:,} cells takes {row['fit s']:,.0f} s: "
            f"{row['epochs']:.0f} epochs of {row['epoch s']:.2f} s, the median of {_speed.TIMED_EPOCHS - 1}; the "
            "others were not run."
        )
        if len(same):
            text += f" HDTree's fit takes {same['fit s'].iloc[0] / row['fit s']:.2f} times as long, tree included."
        parts.append(text)
    (out / "scaling.md").write_text("\n\n".join(parts) + "\n")
    draw(ours, out / "scaling.png")


def draw(ours: pd.DataFrame, file: Path) -> None:
    """Seconds and memory over cells, on logarithmic axes, with a line of linear growth."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    drawing, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for name, color in zip(("fit s", "place s", "order s"), ("#c0392b", "#2980b9", "#27ae60"), strict=True):
        left.plot(ours["cells"], ours[name], "o-", color=color, label=name[:-2])
    first = ours.iloc[0]
    left.plot(ours["cells"], first["fit s"] * ours["cells"] / first["cells"], ":", color="0.5", label="linear")
    right.plot(ours["cells"], ours["peak MB"], "o-", color="#c0392b")
    for ax, label in ((left, "seconds"), (right, "peak memory (MB)")):
        ax.set(xscale="log", yscale="log", xlabel="cells", ylabel=label)
        ax.set_xticks(ours["cells"], [f"{n:,}" for n in ours["cells"]])
        ax.minorticks_off()
        ax.grid(color="0.92")
    left.legend(frameon=False, fontsize=8)
    drawing.savefig(file, dpi=130)
    plt.close(drawing)


def main() -> None:
    """Measure what is missing and write the table; with ``--method``, measure one size in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[5000, 10_000, 20_000, 50_000])
    parser.add_argument("--scvi", type=int, default=10_000, help="size that scVI is timed on; 0: none (default: 10000)")
    parser.add_argument("--cache", type=Path, default=Path(".cache/benchmarks"), help="results and simulated cells")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"), help="folder of the table")
    parser.add_argument("--method", choices=list(MEASURED), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    _run.quiet()
    if arguments.method:
        print(json.dumps(MEASURED[arguments.method](arguments.file)))
        return
    write(rows_of(arguments.cells, arguments.scvi, arguments.cache), arguments.out)


if __name__ == "__main__":
    main()
