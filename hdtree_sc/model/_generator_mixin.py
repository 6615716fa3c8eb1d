"""How the second stage makes cells: places by name, ways along the noise, AnnData of what comes out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from hdtree_sc._errors import listing
from hdtree_sc._keys import SOURCE, UNKNOWN, Keys
from hdtree_sc.data import positions_of
from hdtree_sc.diffusion import METHODS, alpha_sigma
from hdtree_sc.model._arguments import finite_number, rows_of
from hdtree_sc.model._cell_maker import (
    Made,
    Surroundings,
    as_anndata,
    covariate_columns,
    make_cells,
    new_names,
)
from hdtree_sc.module import SPACES, Where

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anndata import AnnData
    from numpy.typing import ArrayLike, NDArray

    from hdtree_sc.diffusion import Method
    from hdtree_sc.model._arguments import Rows


@dataclass
class _RealCells:
    """Real cells as the generator sees them."""

    names: pd.Index
    obs: pd.DataFrame
    whitened: torch.Tensor
    where: Where
    around: Surroundings

    def __len__(self) -> int:
        return len(self.names)

    def of(self, rows: NDArray[np.intp]) -> _RealCells:
        picked = torch.from_numpy(rows).to(self.whitened.device)
        return _RealCells(
            self.names[rows], self.obs.iloc[rows], self.whitened[picked], self.where[picked], self.around[picked]
        )


def _sizes(library: float | ArrayLike, n_cells: int) -> NDArray[np.float32]:
    """Library sizes (1, 1) or (n_cells, 1) that were asked for."""
    try:
        size = np.asarray(library, dtype=np.float32).reshape(-1, 1)
    except (TypeError, ValueError):
        size = np.empty((0, 1), dtype=np.float32)
    if len(size) not in (1, n_cells) or not (np.isfinite(size) & (size > 0)).all():
        msg = f"library: one positive number, or one for each of {n_cells} cells wanted."
        raise ValueError(msg)
    return size


class GeneratorMixin:
    """What the verbs of :class:`GenerativeMixin` are made of."""

    _tree_key = "hdtree"
    _guidance = 1.0
    """Weight of what is asked for against nothing asked for, unless it is given."""
    _aligned_noise = -2.0
    """Noise level at which aligned cells turn to their target: seven parts of signal to one of noise."""

    # ---------------------------------------------------------------- what is asked for

    @property
    def _device(self) -> torch.device:
        return self.module.device  # type: ignore[attr-defined]

    def _require_generator(self, what: str) -> None:
        self._require_trained(what)  # type: ignore[attr-defined]
        if self.module.diffusion is None:  # type: ignore[attr-defined]
            msg = f"{what} needs the generator: call {type(self).__name__}.train_diffusion() first."
            raise RuntimeError(msg)

    @staticmethod
    def _checked_method(method: Method) -> Method:
        if method not in METHODS:
            msg = f"method: {method!r} is none of {', '.join(METHODS)}."
            raise ValueError(msg)
        return method

    def _checked_guidance(self, guidance: float | None) -> float:
        """Weight of what is asked for, the model's own by default."""
        return self._guidance if guidance is None else finite_number("guidance", guidance)

    def _destinations(self) -> str:
        labels, nodes = self._told_labels, self.get_tree().nodes  # type: ignore[attr-defined]
        return f"Labels: {listing(labels)}. Nodes: {listing(nodes)}."

    def _label_named(self, label: object) -> str | None:
        """Name of a label that is given in any type: 2, 2.0 and "2" are one. None: there is none of that name."""
        labels = self._told_labels  # type: ignore[attr-defined]
        number = int(positions_of([label], labels)[0])
        return None if number < 0 else labels[number]

    def _told(self, node: str | None, label: object | None) -> tuple[int, int]:
        """Positions of a node and of a label."""
        tree, labels = self.get_tree(), self._told_labels  # type: ignore[attr-defined]
        if node is not None and node not in tree:
            msg = f"node: the tree has no {node!r}. {self._destinations()}"
            raise ValueError(msg)
        name = None if label is None else self._label_named(label)
        if label is not None and name is None:
            more = "" if labels else " The model was set up without labels_key=."
            msg = f"label: the model knows no {label!r}. {self._destinations()}{more}"
            raise ValueError(msg)
        number = 0 if node is None else int(self._numbers[tree.index(node)])  # type: ignore[attr-defined]
        return number, 0 if name is None else labels.index(name) + 1

    def _place_named(self, name: object, argument: str) -> tuple[str, tuple[int, int]]:
        """Name and positions of what may be a label, or else a node."""
        label = self._label_named(name)
        if label is not None:
            return label, self._told(None, label)
        if isinstance(name, str) and name in self.get_tree():  # type: ignore[attr-defined]
            return name, self._told(name, None)
        msg = f"{argument}: {name!r} is neither a label nor a node of the model. {self._destinations()}"
        raise ValueError(msg)

    @torch.inference_mode()
    def _real_cells(self, adata: AnnData | None, indices: Rows) -> _RealCells:
        module = self.module  # type: ignore[attr-defined]
        space = SPACES[module.space]

        def read(tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
            where = self._whereabouts(tensors, self._encode(tensors))  # type: ignore[attr-defined]
            whitened = module.diffusion.whiten(space.points(module, tensors))
            return whitened, where.node, where.label, module._library(tensors), module.covariates(tensors)

        batches = self._batches(adata, indices, None, None)  # type: ignore[attr-defined]
        parts = [torch.from_numpy(part).to(self._device) for part in self._over(batches, read)]  # type: ignore[attr-defined]
        given = self._source_adata(adata)  # type: ignore[attr-defined]
        obs = given.obs.iloc[rows_of(indices, given.obs_names)]
        return _RealCells(
            obs.index, obs, parts[0], Where(parts[1], parts[2]), Surroundings(parts[3], parts[4], parts[1])
        )

    def _sources(self, cells: _RealCells, source: object | None) -> _RealCells:
        """The cells of a label or a node."""
        if source is None:
            return cells
        _, (node, label) = self._place_named(source, "source")
        if label:
            chosen = cells.where.label == label
        else:
            chosen = self.module.diffusion.below(node)[cells.where.node]  # type: ignore[attr-defined]
        rows = chosen.nonzero().squeeze(1).cpu().numpy()
        if not len(rows):
            msg = f"source: adata has no cell of {source!r}."
            raise ValueError(msg)
        return cells.of(rows)

    # ---------------------------------------------------------------- how it is made

    def _in_parts(
        self, function: Callable[[torch.Tensor], torch.Tensor], n_cells: int, batch_size: int
    ) -> torch.Tensor:
        """A function of rows, for some of them at a time."""
        return torch.cat([function(rows) for rows in torch.arange(n_cells, device=self._device).split(batch_size)])

    def _flow(self, x: torch.Tensor, *told: Where, **options: Any) -> torch.Tensor:
        return self.module.diffusion.flow(x, *told, **options)  # type: ignore[attr-defined]

    def _sampled(
        self,
        where: Where,
        n_steps: int,
        method: Method,
        guidance: float,
        batch_size: int,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Whitened points from noise alone, which is fresh unless it is given."""
        width = self.module.diffusion.centre.shape[0]  # type: ignore[attr-defined]

        def sample(rows: torch.Tensor) -> torch.Tensor:
            start = torch.randn(len(rows), width, device=self._device) if noise is None else noise[rows]
            return self._flow(start, where[rows], n_steps=n_steps, method=method, guidance=guidance)

        return self._in_parts(sample, len(where.node), batch_size)

    def _carried(
        self,
        cells: _RealCells,
        origin: Where,
        onto: Where,
        levels: torch.Tensor,
        mode: str,
        n_steps: int,
        guidance: float,
        batch_size: int,
        align: bool = False,  # noqa: FBT001, FBT002
    ) -> torch.Tensor:
        """Whitened points of cells that went up to some noise and down to the target, moved by the means if aligned."""
        diffusion = self.module.diffusion  # type: ignore[attr-defined]
        lowest = diffusion.schedule.lowest
        out = cells.whitened.clone()
        # few branch points, however many cells
        for level in torch.unique(levels[torch.isfinite(levels)]).tolist():
            for rows in (levels == level).nonzero().squeeze(1).split(batch_size):
                x, jump = cells.whitened[rows], 0.0
                if align:
                    signal = float(alpha_sigma(torch.tensor(level, dtype=torch.float64))[0])
                    jump = signal * (diffusion.mean_of(onto[rows]) - diffusion.mean_of(origin[rows]))
                if mode == "ode":
                    x = jump + self._flow(x, origin[rows], start=lowest, stop=level, n_steps=n_steps)
                    # the way back ends where the way up began: without noise there would be nothing to invert
                    x = self._flow(x, onto[rows], start=level, stop=lowest, n_steps=n_steps, guidance=guidance)
                else:
                    x = jump + diffusion.noised(x, level)
                    x = self._flow(x, onto[rows], start=level, n_steps=n_steps, method="ancestral", guidance=guidance)
                out[rows] = x
        return out

    def _donor_leaves(self, where: Where, latent: torch.Tensor) -> torch.Tensor:
        """Number of the leaf whose cells each latent is decoded like: the one in which it lies."""
        return self._leaf_numbers(latent)  # type: ignore[attr-defined]

    def _drawn_surroundings(
        self, whitened: torch.Tensor, where: Where, batch: int | None, library: float | ArrayLike | None
    ) -> Surroundings:
        """Library sizes and covariates of real cells of leaves."""
        module = self.module  # type: ignore[attr-defined]
        points = module.diffusion.colour(whitened)
        if module.space == "latent":
            latent = points
        else:
            unknown = module.donors.covariates.mean(0).expand(len(points), -1)
            latent = SPACES[module.space].latent(module, points, unknown)
        leaf = self._donor_leaves(where, latent)
        rows = module.donors.draw(leaf, batch)
        around = Surroundings(module.donors.library[rows], module.donors.covariates[rows], leaf)
        if library is not None:
            size = torch.from_numpy(_sizes(library, len(points))).to(self._device)
            around = replace(around, library=size.expand(len(points), 1).contiguous())
        return around if batch is None else around.in_batch(batch, module.covariates.n_batch)

    def _assembled(
        self,
        whitened: torch.Tensor,
        around: Surroundings,
        names: Sequence[str] | pd.Index | None,
        keep_mean: bool,  # noqa: FBT001
        batch_size: int,
    ) -> AnnData:
        """AnnData of points, with leaves and the columns of what they were decoded with."""
        made = make_cells(self.module, whitened, around, keep_mean=keep_mean, batch_size=batch_size)  # type: ignore[attr-defined]
        return self._described(made, around, names)

    def _described(self, made: Made, around: Surroundings, names: Sequence[str] | pd.Index | None) -> AnnData:
        """AnnData of cells that were made, see :meth:`_assembled`."""
        out = as_anndata(made, names, self.get_var_names(), key=self._tree_key)  # type: ignore[attr-defined]
        # where the model reads them, in a copy: what is done to X must not reach them
        for held, key in ((out.layers, "layer"), (out.obsm, "obsm_key")):
            if self._setup(key) is not None:  # type: ignore[attr-defined]
                held[self._setup(key)] = made.values.copy()  # type: ignore[attr-defined]
        tree = self.get_tree()  # type: ignore[attr-defined]
        leaf = self._leaf_positions(torch.from_numpy(made.latent).to(self._device)).cpu().numpy()  # type: ignore[attr-defined]
        out.obs[Keys(self._tree_key).leaf] = pd.Categorical(
            np.array(tree.nodes, dtype=object)[leaf], categories=list(tree.leaves)
        )
        columns = covariate_columns(self.registry, self.module, around)  # type: ignore[attr-defined]
        for name, values in columns.items():
            out.obs[name] = values.to_numpy()
        return out

    def _describe_transmuted(
        self,
        out: AnnData,
        cells: _RealCells,
        draw: NDArray[np.intp],
        target: str,
        there: tuple[int, int],
        levels: NDArray[np.float32],
    ) -> None:
        own, by_label = self._places_named(cells.where, there)
        self._take_origin(out, cells.obs, with_label=False)
        if by_label:
            self._set_label(out, [target] * out.n_obs)
        out.obs["source_label"] = pd.Categorical(own)
        out.obs["target_label"] = pd.Categorical([target] * out.n_obs)
        out.obs["target_probability"] = self._probability_of(out, there)
        out.obs["source_cell"] = np.asarray(cells.names)
        out.obs["draw"] = draw
        out.obs["branch_noise"] = np.tile(levels, int(draw.max()) + 1)
        diffusion = self.module.diffusion  # type: ignore[attr-defined]
        out.obsm[f"{Keys(self._tree_key).latent}_source"] = self._latents(
            diffusion.colour(cells.whitened), cells.around
        )

    def _set_label(self, out: AnnData, names: Sequence[str]) -> None:
        """Write labels as the column of the training cells holds them."""
        out.obs[self._setup("labels_key")] = pd.Categorical(self._as_labels(names))  # type: ignore[attr-defined]

    def _take_origin(self, out: AnnData, obs: pd.DataFrame, *, with_label: bool) -> None:
        """Columns of the cells from which others were made.

        What the model was set up with says where a cell is from, and is kept. All else may describe the expression that
        the cell had (a clustering, a pseudotime, a quality): it is kept as that of the source.
        """
        setup = [self._setup(name) for name in ("batch_key", "time_key", "size_factor_key")]  # type: ignore[attr-defined]
        for name in ("categorical_covariate_keys", "continuous_covariate_keys"):
            setup += self._setup(name) or []  # type: ignore[attr-defined]
        if with_label:
            setup.append(self._setup("labels_key"))  # type: ignore[attr-defined]
        kept = obs.loc[:, [not str(name).startswith("_scvi_") for name in obs.columns]]
        kept = kept.rename(
            columns=lambda name: name if name in setup or str(name).startswith(SOURCE) else f"{SOURCE}{name}"
        )
        kept = kept.loc[:, ~kept.columns.duplicated()].drop(columns=out.obs.columns, errors="ignore")
        out.obs = pd.concat([kept.set_axis(out.obs_names), out.obs], axis=1)

    def _places_named(self, where: Where, there: tuple[int, int]) -> tuple[NDArray[Any], bool]:
        """Names of cells' places, labels if the target is one, and whether it is."""
        if there[1] > 0:
            return np.asarray([UNKNOWN, *self._told_labels])[where.label.cpu().numpy()], True  # type: ignore[attr-defined]
        return np.asarray(self.get_tree().nodes)[where.node.cpu().numpy()], False  # type: ignore[attr-defined]

    def _latents(self, points: torch.Tensor, around: Surroundings) -> NDArray[np.float32]:
        module = self.module  # type: ignore[attr-defined]
        return module.shown(SPACES[module.space].latent(module, points, around.covariates)).float().cpu().numpy()

    def _probability_of(self, cells: AnnData, place: tuple[int, int]) -> NDArray[np.float32]:
        """Probability of a node or a label once cells are encoded again from their values."""
        nodes = self.get_node_probabilities(cells).to_numpy()  # type: ignore[attr-defined]
        node, label = place
        if not label:
            return nodes[:, node]
        tree = self.get_tree()  # type: ignore[attr-defined]
        shares = self.module.donors.label_shares(len(tree), len(self._told_labels)).cpu().numpy()  # type: ignore[attr-defined]
        return (nodes[:, tree.is_leaf_mask] @ shares[tree.is_leaf_mask, label - 1]).astype(np.float32)

    def _signed_new(self, out: AnnData, **arguments: Any) -> AnnData:
        """Name new cells, which were collected at no time, and say in ``uns`` how they came to be."""
        if self._setup("time_key") is not None:  # type: ignore[attr-defined]
            out.obs[self._setup("time_key")] = np.nan  # type: ignore[attr-defined]
        out.obs_names = new_names(out, self._tree_key, arguments)
        return self._signed(out, **arguments)

    def _signed(self, out: AnnData, **arguments: Any) -> AnnData:
        """Say in ``uns`` how cells came to be."""
        given = {name: value for name, value in arguments.items() if value is not None}
        given["labels_key"] = self._setup("labels_key") or ""  # type: ignore[attr-defined]
        out.uns[self._tree_key] = given | {"model": type(self).__name__, "space": self.module.space}  # type: ignore[attr-defined]
        return out
