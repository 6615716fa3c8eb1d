"""On a GPU: MNIST as on a CPU, and cells per second of training and placing a million cells, beside scVI.

``python -m benchmarks.gpu --data DIR --seeds 5`` writes ``gpu.csv`` and ``gpu.md``. Without a GPU it measures nothing,
and the table says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import pandas as pd
import torch

import hdtree_sc as ht
from benchmarks import _measures, _report, _run, _speed, mnist
from benchmarks._cells import NotApplicable
from benchmarks._run import Method

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from benchmarks._cells import Cells

MEASURES = {
    "MNIST": ("ACC", "NMI", "DP", "LP", "seconds", "place s", "GPU MB"),
    "a million cells": ("fit s", "epoch s", "epochs", "cells/s", "placed cells/s", "GPU MB", "peak MB"),
}
HEAD = """# On a GPU

Made by `python -m benchmarks.gpu --data DIR`. MNIST: as in [its own table](mnist.md). *A million cells*: simulated
counts, 2,000 genes, CSR, defaults. *fit s*: all of training, neighbour search (on the CPU) and tree included; scVI's is
its usual epoch times its default number of epochs, of which three are run. *epoch s*: median of the epochs after the
first; *cells/s*: training cells over it. *placed cells/s*: `load_query_data` and `tl.tree` of all cells. *GPU MB*:
highest memory allocated on the device.
"""


def needs_gpu() -> None:
    """Refuse to measure anything else."""
    if not torch.cuda.is_available():
        msg = "no GPU"
        raise NotApplicable(msg)
    torch.cuda.reset_peak_memory_stats()


def gpu_mb() -> float:
    """Highest memory allocated on the GPU since `needs_gpu`."""
    return torch.cuda.max_memory_allocated() / 2**20


def on_mnist(precision: str) -> Callable[[Cells], dict[str, float]]:
    """HDTree on MNIST at a precision of Lightning's."""

    def measured(cells: Cells) -> dict[str, float]:
        needs_gpu()
        return mnist.hdtree(cells, "gpu", precision=precision) | {"GPU MB": gpu_mb()}

    return measured


def million(file: Path, accelerator: str = "gpu", **train: Any) -> dict[str, float]:
    """HDTree on the cells of a file.

    Parameters
    ----------
    file
        Of `benchmarks._speed.simulated`.
    accelerator
        Lightning's accelerator.
    **train
        Further arguments of ``train``.
    """
    import scvi

    scvi.settings.seed = 0
    adata, clock = ad.read_h5ad(file), _speed.EpochClock()
    with _measures.Step() as fit:
        ht.HDTree.setup_anndata(adata)
        model = ht.HDTree(adata)
        model.train(accelerator=accelerator, enable_progress_bar=False, callbacks=[clock], **train)
    with _measures.Step() as place:
        ht.tl.tree(adata, ht.HDTree.load_query_data(adata, model))
    return {
        "fit s": fit.seconds, "epoch s": clock.usual, "epochs": len(clock.seconds),
        "cells/s": len(model.train_indices) / clock.usual, "placed cells/s": adata.n_obs / place.seconds,
        "peak MB": max(fit.peak_mb, place.peak_mb),
    }  # fmt: skip


def million_scvi(file: Path, accelerator: str = "gpu") -> dict[str, float]:
    """scVI on the cells of a file."""
    return _speed.scvi_seconds(ad.read_h5ad(file), accelerator)


def methods(n_cells: int, folder: Path) -> dict[str, Method]:
    """Rows by their names.

    Parameters
    ----------
    n_cells
        Cells of the second table.
    folder
        Where they are kept.
    """

    def timed(measure: Callable[..., Mapping[str, float]], **train: Any) -> Callable[[Cells], Mapping[str, float]]:
        def measured(cells: Cells) -> Mapping[str, float]:
            needs_gpu()
            if cells.seed:
                msg = "one seed"
                raise NotApplicable(msg)
            return {**measure(_speed.simulated(n_cells, folder / "simulated"), **train), "GPU MB": gpu_mb()}

        return measured

    large = "a million cells"
    return {
        "mnist": Method("HDTree", on_mnist("32-true"), "ours", "MNIST"),
        "mnist-bf16": Method("HDTree, bf16-mixed", on_mnist("bf16-mixed"), "ours", "MNIST"),
        "million": Method("HDTree", timed(million), "ours", large),
        "million-bf16": Method("HDTree, bf16-mixed", timed(million, precision="bf16-mixed"), "ours", large),
        "million-compiled": Method("HDTree, compiled", timed(million, plan_kwargs={"compile": True}), "ours", large),
        "million-scvi": Method("scVI", timed(million_scvi), "peer", large),
    }


def circumstances(rows: list[dict[str, Any]]) -> str:
    """Where the rows were measured, with the GPU."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return _report.circumstances(rows).replace("no GPU", device)


def main() -> None:
    """Run what is missing and write the tables."""
    parser = _run.parser(__doc__.splitlines()[0], ["mnist"], methods(0, None))
    parser.add_argument("--cells", type=int, default=1_000_000, help="simulated cells (default: 1000000)")
    arguments = parser.parse_args()
    chosen = methods(arguments.cells, arguments.cache)
    write(_run.run("gpu", chosen, arguments), chosen, arguments.out)


def write(rows: list[dict[str, Any]], chosen: Mapping[str, Method], out: Path) -> None:
    """Write ``gpu.csv`` and ``gpu.md``."""
    out.mkdir(parents=True, exist_ok=True)
    frame = _report.table(rows, chosen)
    frame.to_csv(out / "gpu.csv", index=False, float_format="%.4f")
    parts = [HEAD.strip()]
    if frame[_run.REASON].notna().all():
        parts.append("**Not run: no GPU was at hand.** Everything below waits for one.")
    parts.append(circumstances(rows))
    for name, group in frame.groupby("table", sort=False):
        parts += [f"## {name}", _report.markdown(pd.DataFrame(group), MEASURES[name])]
    (out / "gpu.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
