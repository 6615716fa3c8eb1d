"""Several classes at once: the noisy part of their ways is walked together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from hdtree_sc.model._arguments import whole_numbers
from hdtree_sc.model._cell_maker import seeded
from hdtree_sc.model._class_mixin import ClassMixin
from hdtree_sc.model._generative_mixin import SAMPLING_BATCH
from hdtree_sc.module._latent_diffusion import Where

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import ArrayLike

    from hdtree_sc.diffusion import Method


class PrefixMixin(ClassMixin):
    """``generate`` of one class or several."""

    @torch.inference_mode()
    def generate(
        self,
        n_cells: int,
        node: str | None = None,
        label: str | float | Sequence[str | float] | None = None,
        batch: str | float | None = None,
        library: float | ArrayLike | None = None,
        n_steps: int = 50,
        seed: int | None = None,
        *,
        share_prefix: bool = False,
        method: Method = "dpm",
        guidance: float | None = None,
        keep_mean: bool = True,
        batch_size: int = SAMPLING_BATCH,
    ) -> AnnData:
        """Make new cells: of the data as a whole, of a node, of one class or of several.

        Parameters
        ----------
        n_cells
            How many; of several classes: of each.
        node
            Name of a node, inner or leaf; the whole data by default.
        label
            A class, or a list of them.
        batch, library, n_steps, seed, method, guidance, keep_mean, batch_size
            See :meth:`HDTree.generate`.
        share_prefix
            Whether classes share the noisy part of their ways, which is walked once: fewer network calls. Cells of one
            class are as independent as ever; the i-th cells of all classes come from the same noise and are paired.

        Returns
        -------
        AnnData, see :meth:`HDTree.generate`, with ``.obs[labels_key]``. With ``share_prefix`` also ``.obs["prefix"]``,
        the number that paired cells share, and in ``.uns["branched"]`` ``"network_calls"`` and
        ``"network_calls_unshared"``: calls of the network for each of the ``n_cells``, and what they would be without.

        Raises
        ------
        RuntimeError
            Before training.
        ValueError
            If node, label or batch do not exist, a class is named twice, or a number makes no sense.
        """
        if not pd.api.types.is_list_like(label) and not share_prefix:
            return super().generate(  # type: ignore[misc]
                n_cells, node, label, batch, library, n_steps, seed, method=method, guidance=guidance,
                keep_mean=keep_mean, batch_size=batch_size,
            )  # fmt: skip
        self._require_generator("generate")  # type: ignore[attr-defined]
        n_cells, n_steps, batch_size = whole_numbers(n_cells=n_cells, n_steps=n_steps, batch_size=batch_size)
        method = self._checked_method(method)  # type: ignore[attr-defined]
        if label is None:
            inside = self._classes.below()[:, self._told(node, None)[0]]
            label = [name for name in self._classes.classes if inside[self._classes.number_of(name)]]
        given = [label] if isinstance(label, str | int | float | np.generic) else list(label)
        numbers = [self._told(node, name)[0] for name in given]
        names = [self._label_named(name) for name in given]  # type: ignore[attr-defined]
        if not names or len(set(names)) < len(names):
            msg = f"label: each class once wanted, got {given}."
            raise ValueError(msg)
        guidance = self._checked_guidance(guidance)  # type: ignore[attr-defined]
        return self._generate_classes(
            n_cells, names, numbers, share_prefix=share_prefix, batch=batch, library=library, n_steps=n_steps,
            seed=seed, method=method, guidance=guidance, keep_mean=keep_mean, batch_size=batch_size,
        )  # fmt: skip

    def _generate_classes(
        self,
        n_cells: int,
        names: list[str],
        numbers: list[int],
        *,
        share_prefix: bool,
        batch: str | float | None,
        library: float | ArrayLike | None,
        n_steps: int,
        seed: int | None,
        method: Method,
        guidance: float,
        keep_mean: bool,
        batch_size: int,
    ) -> AnnData:
        device = self.module.device  # type: ignore[attr-defined]
        in_batch = None if batch is None else self._number_of_batch(batch)  # type: ignore[attr-defined]
        node = torch.tensor(numbers, device=device).repeat_interleave(n_cells)
        where = Where(node, torch.zeros_like(node))
        options: dict[str, Any] = {"n_steps": n_steps, "method": method, "guidance": guidance}
        more: dict[str, Any] = {}
        with seeded(seed):
            if share_prefix:
                parts = [
                    self._ways_down(numbers, len(rows), options)
                    for rows in torch.arange(n_cells).split(max(1, batch_size // len(numbers)))
                ]
                # classes first, then the cells of each
                whitened = torch.cat([points for points, _ in parts], 1).flatten(0, 1)
                alone = len(self.module.diffusion.way(None, None, n_steps)) - 1  # type: ignore[attr-defined]
                twice = 1 if guidance == 1.0 else 2
                more = {"network_calls": parts[0][1] * twice, "network_calls_unshared": alone * len(numbers) * twice}
            else:
                whitened = self._sampled(where, n_steps, method, guidance, batch_size)  # type: ignore[attr-defined]
            around = self._drawn_surroundings(whitened, where, in_batch, library)  # type: ignore[attr-defined]
            out = self._assembled(whitened, around, None, keep_mean, batch_size)  # type: ignore[attr-defined]
        self._set_label(out, np.repeat(names, n_cells).tolist())  # type: ignore[attr-defined]
        if share_prefix:
            out.obs["prefix"] = np.tile(np.arange(n_cells), len(names))
        return self._signed_new(  # type: ignore[attr-defined]
            out, function="generate", label=names, batch=batch, seed=seed, share_prefix=share_prefix, **options, **more
        )

    def _ways_down(self, numbers: list[int], n: int, options: dict[str, Any]) -> tuple[torch.Tensor, int]:
        """Whitened points of classes, (n_classes, n, d), and the network calls of each row's whole family.

        Every node on the way to a class is walked once, from the branch point above it down to its own.
        """
        diffusion, tree = self.module.diffusion, self._classes  # type: ignore[attr-defined]
        wanted, calls = tree.below()[numbers].any(0), 0
        start = torch.randn(n, diffusion.centre.shape[0], device=diffusion.centre.device)
        at: dict[int, tuple[torch.Tensor, float | None]] = {-1: (start, None)}
        for node in np.flatnonzero(wanted).tolist():
            parent = tree.parents[node]
            x, level = at[parent]
            if np.isfinite(tree.opens[node]) and level is not None and tree.opens[node] > level:
                x, level = at[-1]  # it parts before its parent does
            stop = None if tree.labels[node] else float(min(tree.levels[node], diffusion.schedule.highest))
            if stop is not None and level is not None and stop >= level:
                at[node] = (x, level)  # a node that parts where its parent does
                continue
            where = Where.of((node, 0), n, start.device)
            if stop is None or level is not None or stop < diffusion.schedule.highest:
                calls += len(diffusion.way(level, stop, options["n_steps"])) - 1
                x = diffusion.flow(x, where, start=level, stop=stop, **options)
            at[node] = (x, stop)
        return torch.stack([at[number][0] for number in numbers]), calls
