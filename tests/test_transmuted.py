"""What a transmutation changed and kept: tables and plot, on cells whose transmutation is known."""

from __future__ import annotations

import warnings

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.quiver import Quiver
from scipy import sparse
from scipy.stats import wilcoxon

import hdtree_sc as ht

MARKERS = {"A": range(10), "B": range(10, 20)}
"""Genes that are high in one type."""
PROGRAMME = range(20, 60)
"""Genes that rise with the covariate ``dose``, in both types."""
DONOR = {"d0": range(60, 70), "d1": range(70, 80), "d2": range(80, 90)}
"""Genes that are high in one donor, in both types."""
N_GENES = 150


def expected(kind, dose, donor):
    """Expected counts of cells of a type, (n, N_GENES)."""
    rate = np.full((len(dose), N_GENES), 8.0)
    rate *= np.exp(0.3 * np.sin(np.arange(N_GENES)))
    for name, genes in MARKERS.items():
        rate[np.ix_(kind == name, list(genes))] *= 6
    rate[:, list(PROGRAMME)] *= np.exp(1.5 * dose)[:, None]
    for name, genes in DONOR.items():
        rate[np.ix_(donor == name, list(genes))] *= 3
    return rate


def real_cells(n=150, seed=0):
    """Cells of types A, B and C."""
    rng = np.random.default_rng(seed)
    kind, dose = np.repeat(["A", "B", "C"], n), rng.random(3 * n)
    donor = rng.choice(list(DONOR), 3 * n)
    adata = ad.AnnData(sparse.csr_matrix(rng.poisson(expected(kind, dose, donor)).astype(np.float32)))
    adata.obs_names = [f"cell{i}" for i in range(3 * n)]
    adata.var_names = [f"gene{i}" for i in range(N_GENES)]
    adata.obs["type"], adata.obs["dose"] = pd.Categorical(kind), dose.astype(np.float32)
    adata.obs["donor"], adata.obs["treated"] = pd.Categorical(donor), dose > 0.5
    place = np.array([{"A": (0, 0), "B": (8, 0), "C": (4, 6)}[name] for name in kind])
    adata.obsm["X_hdtree_2d"] = (place + rng.normal(size=(3 * n, 2))).astype(np.float32)
    return adata


def transmuted(adata, target="B", *, mean=None, n_draws=1, seed=1):
    """The cells of type A as the model would return them: of another type, all else kept, or with the means given."""
    rng = np.random.default_rng(seed)
    cells = adata[adata.obs["type"] == "A"]
    about = cells.obs["dose"].to_numpy(), cells.obs["donor"].astype(str).to_numpy()
    before = expected(np.full(cells.n_obs, "A"), *about)
    after = expected(np.full(cells.n_obs, target), *about) if mean is None else mean
    row = np.repeat(np.arange(cells.n_obs), n_draws)
    draw = np.tile(np.arange(n_draws), cells.n_obs)
    source = np.asarray(cells.obs_names)[row]
    names = source if n_draws == 1 else [f"{name}-{i}" for name, i in zip(source, draw, strict=True)]
    out = ad.AnnData(
        sparse.csr_matrix(rng.poisson(after[row]).astype(np.float32)),
        obs=cells.obs.iloc[row].set_axis(names),
        var=adata.var.copy(),
        layers={"mean": after[row].astype(np.float32), "source_mean": before[row].astype(np.float32)},
        obsm={"X_hdtree_2d": np.asarray(cells.obsm["X_hdtree_2d"])[row] + [8, 0]},
        uns={"hdtree": {"labels_key": "type"}},
    )
    out.obs["source_cell"], out.obs["draw"] = source, draw
    out.obs["source_label"], out.obs["target_label"] = "A", target
    return out


def log_normalized(values):
    values = np.asarray(values.toarray() if sparse.issparse(values) else values, dtype=float)
    return np.log1p(values / values.sum(1, keepdims=True) * 1e4)


@pytest.fixture(scope="module")
def real():
    return real_cells()


@pytest.fixture(scope="module")
def kept(real):
    """Type A as type B, with dose and donor kept."""
    return transmuted(real)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


class TestGenes:
    def test_a_known_shift_is_recovered_and_nothing_else(self, real):
        rng = np.random.default_rng(0)
        cells = transmuted(real, target="A")
        # noise without direction on the scale of the logarithm, and a shift of ten genes by 0.5
        before = log_normalized(cells.layers["source_mean"])
        after = before + rng.normal(scale=0.3, size=before.shape)
        after[:, :10] += 0.5
        cells.layers["source_mean"], cells.layers["mean"] = before, after
        table = ht.tl.rank_transmuted_genes(cells, log_normalize=False)
        assert set(table.index[:10]) == set(cells.var_names[:10])
        assert (table["fdr"].iloc[:10] < 1e-10).all()
        assert (table["fdr"].iloc[10:] < 0.05).mean() < 0.05
        np.testing.assert_allclose(table["log_fold_change"].iloc[:10], 0.5, atol=0.1)
        np.testing.assert_allclose(table["effect"].iloc[:10], 0.5 / 0.3, rtol=0.25)

    def test_columns_are_what_they_are_said_to_be(self, real, kept):
        table = ht.tl.rank_transmuted_genes(kept).loc[kept.var_names]
        x, y = log_normalized(kept.layers["source_mean"]), log_normalized(kept.layers["mean"])
        np.testing.assert_allclose(table["mean_before"], x.mean(0))
        np.testing.assert_allclose(table["mean_after"], y.mean(0))
        np.testing.assert_allclose(table["log_fold_change"], (y - x).mean(0))
        np.testing.assert_allclose(table["effect"], (y - x).mean(0) / (y - x).std(0, ddof=1), rtol=1e-6)
        np.testing.assert_allclose(table["p"], [wilcoxon(y[:, j], x[:, j]).pvalue for j in range(kept.n_vars)])
        assert (table["fdr"] >= table["p"]).all()
        assert table.attrs == {"n_cells": 150}

    def test_what_rose_most_stands_first_and_what_fell_most_last(self, kept):
        table = ht.tl.rank_transmuted_genes(kept)
        assert set(table.index[:10]) == {f"gene{i}" for i in MARKERS["B"]}
        assert set(table.index[-10:]) == {f"gene{i}" for i in MARKERS["A"]}
        assert table["effect"].is_monotonic_decreasing

    def test_no_change_is_no_effect(self, real):
        cells = transmuted(real, target="A")
        table = ht.tl.rank_transmuted_genes(cells, real, groupby="type")
        assert (table[["log_fold_change", "effect", "observed_log_fold_change"]] == 0).all(axis=None)
        assert (table[["p", "fdr"]] == 1).all(axis=None)
        assert np.isnan(table.attrs["correlation"])

    def test_blocks_of_genes_make_no_difference(self, real, kept, monkeypatch):
        whole = ht.tl.rank_transmuted_genes(kept, real)
        monkeypatch.setattr("hdtree_sc.get._transmuted.BLOCK", 7 * kept.n_obs)
        pd.testing.assert_frame_equal(ht.tl.rank_transmuted_genes(kept, real), whole)

    def test_draws_are_averaged_and_are_no_replicates(self, real, kept):
        many = transmuted(real, n_draws=3)
        many = many[np.random.default_rng(0).permutation(many.n_obs)].copy()
        once, often = (ht.tl.rank_transmuted_genes(cells).loc[kept.var_names] for cells in (kept, many))
        assert often.attrs["n_cells"] == 150
        np.testing.assert_allclose(once["p"], often["p"], rtol=1e-3)
        np.testing.assert_allclose(once["effect"], often["effect"], rtol=1e-3)

    def test_changes_that_are_not_in_the_data_stand_out(self, real):
        after = np.array(transmuted(real).layers["mean"], dtype=float)
        after[:, 140:] *= 6
        cells = transmuted(real, mean=after)
        table = ht.tl.rank_transmuted_genes(cells, real)
        honest = ht.tl.rank_transmuted_genes(transmuted(real), real)
        assert honest.attrs["correlation"] > 0.98
        assert table.attrs["correlation"] < 0.9
        invented = table.loc[[f"gene{i}" for i in range(140, 150)]]
        assert (invented["log_fold_change"] > 1).all()
        assert (invented["observed_log_fold_change"].abs() < 0.2).all()
        x, y = (log_normalized(real[real.obs["type"] == name].X) for name in "AB")
        np.testing.assert_allclose(table.loc[real.var_names, "observed_log_fold_change"], y.mean(0) - x.mean(0))

    def test_genes_are_matched_by_name_and_library_is_that_of_the_model_s_genes(self, real, kept):
        wider = ad.concat([real[:, ::-1], real[:, :5].copy()], axis=1, merge="first", index_unique="_")
        wider.var_names = [name.removesuffix("_0") for name in wider.var_names]
        pd.testing.assert_frame_equal(ht.tl.rank_transmuted_genes(kept, wider), ht.tl.rank_transmuted_genes(kept, real))

    def test_nothing_is_rescaled_to_the_target(self, real, kept):
        shifted = kept.copy()
        for name in ("mean", "source_mean"):
            shifted.layers[name] = log_normalized(kept.layers[name])
        other = shifted.copy()
        other.layers["mean"] = other.layers["mean"] + 2.5
        one, two = (ht.tl.rank_transmuted_genes(c, log_normalize=False).loc[kept.var_names] for c in (shifted, other))
        np.testing.assert_allclose(two["mean_after"], one["mean_after"] + 2.5)
        np.testing.assert_allclose(two["log_fold_change"], one["log_fold_change"] + 2.5)

    def test_errors_say_what_to_do(self, real, kept):
        with pytest.raises(KeyError, match=r"layers has no 'gone'. It has: 'mean', 'source_mean'"):
            ht.tl.rank_transmuted_genes(kept, layer="gone")
        with pytest.raises(ValueError, match="at least 2"):
            ht.tl.rank_transmuted_genes(kept[:1])
        with pytest.raises(ValueError, match="lack, or have more than once, 'gene100'"):
            ht.tl.rank_transmuted_genes(kept, real[:, :100])
        negative = kept.copy()
        negative.layers["mean"] = negative.layers["mean"] - 100
        with pytest.raises(ValueError, match="log_normalize=False"):
            ht.tl.rank_transmuted_genes(negative)
        nameless = kept.copy()
        del nameless.uns["hdtree"]
        with pytest.raises(ValueError, match="groupby: .* 'labels_key'"):
            ht.tl.rank_transmuted_genes(nameless, real)
        several = kept.copy()
        several.obs["target_label"] = np.where(np.arange(several.n_obs) % 2, "B", "C")
        with pytest.raises(ValueError, match="several targets, 'C', 'B'"):
            ht.tl.rank_transmuted_genes(several, real)
        with pytest.raises(ValueError, match="It holds: 'A', 'C'"):
            ht.tl.rank_transmuted_genes(kept, real[real.obs["type"] != "B"])


class TestRetained:
    def test_what_is_kept_is_found_up_to_the_ceiling(self, real, kept):
        table = ht.tl.retained_signal(real, kept, ["dose", "donor", "treated"])
        assert list(table.index) == ["dose", "donor", "treated", "neighbours", "expression"]
        assert list(table.columns) == ["measure", "retained", "ceiling", "before", "chance", "n", "note"]
        assert list(table["measure"][:3]) == ["Spearman", "balanced accuracy", "balanced accuracy"]
        np.testing.assert_allclose(table["chance"][:3], [0, 1 / 3, 1 / 2])
        assert (table["ceiling"][:3] > [0.9, 0.95, 0.8]).all()
        assert (table["retained"][:3] > table["ceiling"][:3] - 0.06).all()
        assert (table["before"][:3] > table["ceiling"][:3] - 0.06).all()
        assert table.loc["expression", "retained"] > 0.8
        assert (table["n"] == 150).all()
        assert (table["note"] == "").all()

    def test_cells_that_were_left_as_they_are_score_exactly_the_ceiling(self, real):
        cells = transmuted(real, target="A")
        cells.X = real[real.obs["type"] == "A"].X.copy()
        table = ht.tl.retained_signal(real, cells, ["dose", "donor"])
        np.testing.assert_allclose(table["retained"], table["ceiling"])
        np.testing.assert_allclose(table["before"][:2], table["ceiling"][:2])
        assert table.loc["neighbours", "chance"] == pytest.approx(15 / 149)

    def test_shuffled_cells_score_near_chance(self, real, kept):
        shuffled = kept.copy()
        other = kept[np.random.default_rng(0).permutation(kept.n_obs)]
        shuffled.X, shuffled.layers["mean"] = other.X.copy(), other.layers["mean"].copy()
        table = ht.tl.retained_signal(real, shuffled, ["dose", "donor"])
        np.testing.assert_allclose(table["retained"], table["chance"], atol=0.15)
        assert (table["ceiling"][:2] > 0.9).all()

    def test_cells_that_all_became_the_same_keep_nothing(self, real, kept):
        same = np.tile(np.asarray(kept.layers["mean"]).mean(0), (kept.n_obs, 1))
        cells = transmuted(real, mean=same)
        cells.X = sparse.csr_matrix(np.round(same))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = ht.tl.retained_signal(real, cells, ["dose", "donor"])
        assert table.loc["dose", "retained"] == 0
        assert table.loc["donor", "retained"] == pytest.approx(1 / 3)
        assert table.loc["expression", "retained"] == 0
        assert table.loc["neighbours", "retained"] < 0.3

    def test_a_change_by_the_same_amount_in_all_cells_keeps_the_differences(self, real, kept):
        cells = kept.copy()
        before = log_normalized(cells.layers["source_mean"])
        cells.layers["source_mean"], cells.layers["mean"] = before, before + 3
        table = ht.tl.retained_signal(real, cells, [], log_normalize=False)
        np.testing.assert_allclose(table["retained"], 1, atol=1e-3)

    def test_each_draw_is_scored_by_itself(self, real, kept):
        many = transmuted(real, n_draws=3)
        one = ht.tl.retained_signal(real, many[many.obs["draw"] == 1].copy(), ["dose"])
        table = ht.tl.retained_signal(real, many, ["dose"])
        assert table.loc["dose", "n"] == 150
        assert table.loc["dose", "retained"] == pytest.approx(one.loc["dose", "retained"], abs=0.03)

    def test_what_can_not_be_scored_says_why(self, real, kept):
        adata = real.copy()
        is_b = (adata.obs["type"] == "B").to_numpy()
        adata.obs["constant"] = np.where(is_b, 1.0, adata.obs["dose"])
        adata.obs["empty"] = np.nan
        adata.obs["few"] = np.where(is_b & (np.arange(adata.n_obs) % 15 > 0), np.nan, adata.obs["dose"])
        adata.obs["own"] = np.where(is_b, adata.obs["donor"].astype(str), "elsewhere")
        adata.obs["fixed"] = np.where(is_b, adata.obs["dose"], 0.5)
        adata.obs["name"] = adata.obs_names
        names = ["constant", "empty", "few", "own", "fixed", "name", "type"]
        table = ht.tl.retained_signal(adata, kept, names)
        assert table.loc[names, "retained"].isna().all()
        assert table.loc[names, "note"].to_dict() == {
            "constant": "does not vary in the target cells",
            "empty": "does not vary in the target cells",
            "few": "fewer than 20 target cells have a value",
            "own": "fewer than 2 classes with 5 source and 5 target cells",
            "fixed": "does not vary in the transmuted cells",
            "name": "fewer than 2 classes with 5 source and 5 target cells",
            "type": "does not vary in the target cells",
        }
        assert table.loc["fixed", "ceiling"] > 0.9

    def test_missing_values_are_left_out(self, real, kept):
        adata = real.copy()
        hole = np.arange(adata.n_obs) % 3 == 0
        adata.obs["dose"] = adata.obs["dose"].where(~hole)
        adata.obs["donor"] = adata.obs["donor"].where(~hole)
        table = ht.tl.retained_signal(adata, kept, ["dose", "donor"])
        assert (table["n"][:2] == 100).all()
        assert (table["retained"][:2] > 0.85).all()

    def test_one_name_is_enough_and_the_seed_decides(self, real, kept):
        tables = [ht.tl.retained_signal(real, kept, "donor", seed=seed) for seed in (0, 0)]
        pd.testing.assert_frame_equal(*tables)

    def test_the_cells_are_left_as_they_are(self, real, kept):
        adata, cells = real.copy(), kept.copy()
        ht.tl.retained_signal(adata, cells, ["dose"])
        ht.tl.rank_transmuted_genes(cells, adata)
        assert list(adata.obs) == list(real.obs)
        assert (adata.X != real.X).nnz == (cells.X != kept.X).nnz == 0
        np.testing.assert_array_equal(cells.layers["mean"], kept.layers["mean"])

    def test_errors_name_the_argument(self, real, kept):
        with pytest.raises(KeyError, match="covariates: .* no column 'dosis'"):
            ht.tl.retained_signal(real, kept, ["dosis"])
        with pytest.raises(ValueError, match="n_neighbors: 0 given"):
            ht.tl.retained_signal(real, kept, "dose", n_neighbors=0)
        with pytest.raises(ValueError, match="lacks source cells of transmuted, 'cell0'"):
            ht.tl.retained_signal(real[1:], kept, "dose")
        bare = kept.copy()
        del bare.obs["target_label"]
        with pytest.raises(KeyError, match="transmuted.obs has no 'target_label'"):
            ht.tl.retained_signal(real, bare, "dose")


def means(panel):
    """Heights of the lines at the means of source, after and target."""
    return [float(line.get_ydata()[0]) for line in panel.lines]


def legend_texts(ax):
    (legend,) = [artist for artist in ax.get_children() if artist.__class__.__name__ == "Legend"]
    return [text.get_text() for text in legend.get_texts()]


class TestPlot:
    def test_a_map_and_the_genes_that_separate_real_cells_best(self, real, kept):
        axes = ht.pl.transmutation(real.copy(), kept, show=False)
        genes = [panel.get_title() for panel in axes[1:]]
        assert len(axes) == 5
        assert set(genes[:2]) <= {f"gene{i}" for i in MARKERS["B"]}
        assert set(genes[2:]) <= {f"gene{i}" for i in MARKERS["A"]}
        assert legend_texts(axes[0]) == ["source: A", "after: transmuted", "target: B", "other cells"]

    def test_distributions_are_those_of_the_values(self, real, kept):
        axes = ht.pl.transmutation(real.copy(), kept, genes=["gene12", "gene3"], show=False)
        x, y = log_normalized(real.X), log_normalized(kept.X)
        for panel, gene in zip(axes[1:], (12, 3), strict=True):
            wanted = [x[real.obs["type"] == "A", gene], y[:, gene], x[real.obs["type"] == "B", gene]]
            assert means(panel) == pytest.approx([values.mean() for values in wanted])
            dots = [held.get_offsets()[:, 1] for held in panel.collections if held.get_rasterized()]
            assert all(np.isin(np.round(a, 8), np.round(b, 8)).all() for a, b in zip(dots, wanted, strict=True))
        assert axes[1].get_ylim() == axes[2].get_ylim()

    def test_nothing_is_rescaled_to_the_target(self, real, kept):
        adata, cells = real.copy(), kept.copy()
        adata.X, cells.X = log_normalized(real.X), log_normalized(kept.X)
        shifted = cells.copy()
        shifted.X = cells.X + 2.5
        one, two = (
            ht.pl.transmutation(adata, held, genes="gene12", log_normalize=False, show=False)[1]
            for held in (cells, shifted)
        )
        assert np.subtract(means(two), means(one)) == pytest.approx([0, 2.5, 0])

    def test_the_choice_of_genes_does_not_look_at_transmuted_cells(self, real, kept):
        odd = kept.copy()
        odd.X = sparse.csr_matrix(np.random.default_rng(0).permutation(kept.X.toarray().T).T)
        one, two = (ht.pl.transmutation(real.copy(), cells, show=False) for cells in (kept, odd))
        assert [a.get_title() for a in one] == [a.get_title() for a in two]

    def test_arrows_lead_from_before_to_after(self, real):
        cells = transmuted(real, n_draws=2)
        ax = ht.pl.transmutation(real.copy(), cells, genes=[], show=False)
        (arrows,) = [held for held in ax.collections if isinstance(held, Quiver)]
        assert len(arrows.U) <= 40
        np.testing.assert_allclose(
            np.column_stack([arrows.U, arrows.V]), np.tile([8, 0], (len(arrows.U), 1)), atol=1e-5
        )
        at = np.asarray(real.obsm["X_hdtree_2d"])[real.obs["type"] == "A"]
        away = np.abs(np.asarray(arrows.get_offsets())[:, None] - at).max(-1).min(1)
        assert away.max() < 1e-5

    def test_given_axes_take_the_map_alone(self, real, kept):
        _, ax = plt.subplots(layout="constrained")
        assert ht.pl.transmutation(real.copy(), kept, ax=ax) is ax
        with pytest.raises(ValueError, match="ax is one Axes"):
            ht.pl.transmutation(real.copy(), kept, genes=["gene1"], ax=ax)

    def test_several_source_types_keep_their_colours(self, real, kept):
        adata, cells = real.copy(), kept.copy()
        cells.obs["source_label"] = np.where(np.arange(cells.n_obs) % 2, "A", "C")
        axes = ht.pl.transmutation(adata, cells, n_genes=2, palette=["red", "green", "blue"], show=False)
        assert legend_texts(axes[0])[:2] == ["source: C", "source: A"]
        assert axes[0].get_title() == "2 types → B"
        assert list(adata.uns["type_colors"]) == ["#ff0000", "#008000", "#0000ff"]

    @pytest.mark.parametrize("n_genes", [3, 9])
    @pytest.mark.parametrize("style", ["default", "dark_background"])
    def test_no_text_covers_another(self, real, kept, n_genes, style):
        long = {name: f"{name}, a population of cells with a very long name" for name in "ABC"}
        adata, cells = real.copy(), kept.copy()
        adata.obs["type"] = adata.obs["type"].cat.rename_categories(long)
        for column in ("source_label", "target_label"):
            cells.obs[column] = cells.obs[column].map(long)
        adata.var_names = cells.var_names = [f"ENSG-a-gene-with-a-long-name-{i}" for i in range(N_GENES)]
        with plt.style.context(style):
            axes = ht.pl.transmutation(adata, cells, n_genes=n_genes, show=False)
            axes[0].get_figure(root=True).draw_without_rendering()
            texts = [panel.title for panel in axes]
            texts += [text for panel in axes[1:] for text in panel.get_xticklabels() if text.get_visible()]
            (legend,) = [held for held in axes[0].get_children() if held.__class__.__name__ == "Legend"]
            texts += legend.get_texts()
            boxes = [text.get_window_extent() for text in texts if text.get_text()]
        assert sum(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]) == 0
        figure = axes[0].get_figure(root=True).bbox
        assert all(box.x0 >= -1 and box.x1 <= figure.width + 1 for box in boxes)

    def test_errors_say_what_there_is(self, real, kept):
        with pytest.raises(KeyError, match="genes: transmuted.var_names lacks 'geneX'"):
            ht.pl.transmutation(real, kept, genes=["geneX"], show=False)
        adata = real.copy()
        adata.obsm["X_umap"] = adata.obsm["X_hdtree_2d"]
        with pytest.raises(KeyError, match="basis: transmuted.obsm has no 'X_umap'"):
            ht.pl.transmutation(adata, kept, basis="umap", show=False)
        with pytest.raises(ValueError, match="groupby: no cell has 'B'"):
            ht.pl.transmutation(real[real.obs["type"] != "B"].copy(), kept, show=False)
        with pytest.raises(KeyError, match="layers has no 'gone'"):
            ht.pl.transmutation(real, kept, layer="gone", show=False)
        with pytest.raises(ValueError, match="n_genes: -1"):
            ht.pl.transmutation(real, kept, n_genes=-1, show=False)
        assert len(plt.get_fignums()) == 0


def test_real_worm_cells_go_through(worm):
    """ADL neurons as AWC neurons of the same time: time stays, the batch does not."""
    adata = worm.copy()
    counts, time = adata.X.toarray(), adata.obs["time"].to_numpy()
    s, t = (np.flatnonzero(adata.obs["cell_type"] == name) for name in ("ADL", "AWC"))
    match = t[np.abs(time[s][:, None] - time[t]).argmin(1)]

    def smooth(of, among):
        near = np.argsort(np.abs(time[of][:, None] - time[among]), axis=1)[:, :15]
        mean = (counts / counts.sum(1, keepdims=True))[among][near].mean(1)
        return mean * counts[s].sum(1, keepdims=True)

    cells = ad.AnnData(adata.X[match], obs=adata.obs.iloc[s].copy(), var=adata.var.copy())
    cells.layers["source_mean"], cells.layers["mean"] = smooth(s, s), smooth(match, t)
    cells.obs["source_label"], cells.obs["target_label"] = "ADL", "AWC"
    genes = ht.tl.rank_transmuted_genes(cells, adata, groupby="cell_type")
    assert genes.attrs["correlation"] > 0.7
    table = ht.tl.retained_signal(adata, cells, ["time", "batch", "lineage"], groupby="cell_type")
    assert table.loc["time", "retained"] > 0.8
    assert table.loc["batch", "retained"] < 0.6 * table.loc["batch", "ceiling"]
