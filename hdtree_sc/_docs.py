"""Parameters that many public functions have in common, described once."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Function = TypeVar("Function", bound="Callable[..., Any]")

HEADER = "Parameters\n----------\n"
PLOTS = {
    "alpha": "Opacity of the cells.",
    "basis": '``"umap"`` or ``"X_umap"``; default: the model\'s own map ``X_<key>_2d``.',
    "cmap": "Colour map for numbers.",
    "figsize": "Inches.",
    "key": "Key of the tree.",
    "layer": "Layer to read the gene from.",
    "legend_fontsize": "Points.",
    "palette": "Colours of the categories, see :func:`hdtree_sc.pl.tree`.",
    "show": "Show the figure; default: ``scanpy.settings.autoshow``, or not where `ax` is given.",
    "size": "Area of a cell in points squared; default: by the number of cells.",
    "use_raw": "Read the gene from ``adata.raw``; default: where it is there and no layer is named.",
    "vmin, vmax": "Ends of the colour scale; default: the smallest and largest value of a cell.",
}
READS = {
    "adata": "Cells with the model's genes; the training data by default.",
    "indices": "Rows of ``adata``: positions, names of cells, a slice or a mask; all by default.",
    "batch_size": "Cells at a time, 4,096 by default.",
    "dataloader": "Minibatches to use in place of ``adata``; rows are then numbered.",
}
CELLS = {name: READS[name] for name in ("adata", "indices")}
TRAINS = {
    "accelerator": "Lightning accelerator.",
    "devices": "Lightning devices.",
    "train_size": "Share of the cells trained on, 0.9 by default.",
    "validation_size": "Share of the cells validated on, the rest by default.",
    "shuffle_set_split": "Whether cells are shuffled before they are split.",
    "**trainer_kwargs": "Keyword arguments of :class:`scvi.train.Trainer`, with ``ckpt_path`` to resume from.",
    "batch_size": (
        "Cells in a minibatch, each with a neighbour; by default 256, less for fewer than 1,000 cells, up to 1,024\n"
        "    for more than 16,000."
    ),
    "early_stopping": "Whether to stop when ``validation_loss`` no longer falls.",
    "n_neighbors": "Expression neighbours from which a cell's positive is drawn; they never cross the split.",
    "checkpoint_dir": (
        "Folder of ``last.ckpt``, written every tenth epoch. After a crash, set the model up in the same way and\n"
        '    call ``train(ckpt_path=".../last.ckpt")`` with the same arguments: on a CPU weights, tree and history\n'
        "    are those of a training that was not stopped. Where the file cannot be written, as on a full disk, a\n"
        "    warning says so and training goes on."
    ),
}
SAMPLES = {
    "n_steps": "Network calls per cell.",
    "seed": "Seed.",
    "keep_mean": "Whether to keep expected expression, which is dense.",
    "batch_size": "Cells at a time.",
}
FILES = {
    "dir_path": "Folder that ``save`` wrote.",
    "prefix": "What the names of the files begin with.",
    "trust": "See :meth:`load`.",
}


def shared_params(shared: Mapping[str, str]) -> Callable[[Function], Function]:
    """Complete a docstring: describe the parameters that it leaves out, in the order of the arguments.

    Parameters
    ----------
    shared
        Descriptions by name of the parameter; ``"a, b"`` describes two.
    """

    def completed(function: Function) -> Function:
        if function.__doc__ is None:  # python -OO
            return function
        doc = inspect.cleandoc(function.__doc__)
        if HEADER not in doc:  # all are shared
            doc = re.sub(r"\n\n(?=\S.*\n---|\Z)", rf"\n\n{HEADER}\n\n", doc + "\n\n", count=1).rstrip() + "\n"
        before, after = doc.split(HEADER)
        own, blank, after = after.partition("\n\n")
        entries = {names: f"{names}\n    {text}" for names, text in shared.items()}
        # an entry is a line of names and the indented lines below it
        entries |= {entry.split("\n")[0]: entry for entry in re.split(r"\n(?=\S)", own)}
        entry_of = {name.lstrip("*"): entry for names, entry in entries.items() for name in names.split(", ")}
        wanted = dict.fromkeys(entry_of[name] for name in inspect.signature(function).parameters if name in entry_of)
        function.__doc__ = (before + HEADER + "\n".join(wanted) + blank + after).rstrip()
        return function

    return completed
