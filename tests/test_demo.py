"""The demo: from the bundled cells to a page that needs nothing beside it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.metadata import version

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import hdtree_sc as ht
from hdtree_sc.demo import main
from hdtree_sc.demo._measures import agreement, spearman, ward_tree
from hdtree_sc.demo._report import _table


class Page(HTMLParser):
    """What a browser would see of a page: its tags, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        if not {"style", "pre"} & set(self.open[-1:]):
            self.words += data


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder that the demo has written to, after few epochs, and what it said."""
    import contextlib
    import io

    import scvi

    folder = tmp_path_factory.mktemp("demo") / "out"
    said = io.StringIO()
    seed = scvi.settings.seed
    with contextlib.redirect_stdout(said):
        status = main(["--out", str(folder), "--max-epochs", "3", "--no-progress"])
    scvi.settings.seed = seed
    assert status == 0
    return folder, said.getvalue()


@pytest.fixture(scope="module")
def page(demo):
    return Page((demo[0] / "report.html").read_text(encoding="utf-8"))


class TestFiles:
    def test_each_step_is_told_with_its_seconds_and_the_page_is_named_last(self, demo):
        folder, said = demo
        assert re.findall(r"^\[(\d)/7\] .+ \d+\.\d s", said, flags=re.MULTILINE) == [*"1234567"]
        assert said.rstrip().endswith(f"open {folder / 'report.html'}")

    def test_what_is_announced_is_there(self, demo):
        folder, said = demo
        announced = {line.strip() for line in said.split("written:")[1].splitlines() if line.startswith("  ")}
        assert announced == {str(path) for path in folder.iterdir()}
        assert len([path for path in announced if path.endswith(".png")]) >= 8

    def test_annotated_cells_can_be_read_back(self, demo):
        adata = ad.read_h5ad(demo[0] / "celegans.h5ad")
        assert adata.shape == (1444, 2000)
        assert np.isfinite(adata.obs["hdtree_pseudotime"]).all()
        assert len(ht.get.tree(adata).leaves) == adata.obs["hdtree_leaf"].cat.categories.size
        assert "Neuroblast_ASG_AWA -> ASG" in adata.uns["hdtree"]["paths"]

    def test_the_saved_model_gives_the_latents_of_the_saved_cells(self, demo):
        adata = ad.read_h5ad(demo[0] / "celegans.h5ad")
        model = ht.HDTree.load(demo[0] / "model", adata=adata)
        np.testing.assert_allclose(model.get_latent(), adata.obsm["X_hdtree"], atol=1e-5)


class TestReport:
    def test_nothing_is_fetched_and_nothing_runs(self, page):
        assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
        sources = [attrs[name] for _, attrs in page.tags for name in ("src", "href") if name in attrs]
        assert all(source.startswith("data:image/png;base64,") for source in sources)

    def test_no_address_of_another_host(self, demo):
        text = (demo[0] / "report.html").read_text(encoding="utf-8")
        assert "http" not in re.sub(r"base64,[^\"]*", "", text)

    def test_every_figure_is_inlined_with_words_for_those_who_cannot_see_it(self, demo, page):
        images = [attrs for tag, attrs in page.tags if tag == "img"]
        assert len(images) == len(list(demo[0].glob("*.png")))
        assert all(len(attrs["alt"]) > 10 for attrs in images)

    def test_every_tag_is_closed_and_every_placeholder_filled(self, demo, page):
        assert page.open == []
        assert not re.search(r"\$[a-z_]+", page.words)

    def test_it_says_what_was_measured_and_with_what(self, page):
        for word in ("Spearman's ρ", "Dendrogram purity", "NMI", "peak memory", "seed 0", "3 epochs", "GSE126954"):
            assert word in page.words
        for package in ("hdtree-sc", "torch", "scvi-tools", "scanpy"):
            assert f"{package}{version(package)}" in page.words  # neighbours in the table of versions

    def test_numbers_are_those_of_the_cells(self, demo, page):
        adata = ad.read_h5ad(demo[0] / "celegans.h5ad")
        rho = adata.obs["hdtree_pseudotime"].corr(adata.obs["time"], method="spearman")
        assert f"{rho:.3f}" in page.words
        leaf = adata.obs["hdtree_leaf"].astype(str)
        purity = ht.metrics.dendrogram_purity(ht.get.tree(adata), leaf, adata.obs["cell_type"])
        assert f"{purity:.3f}" in page.words

    def test_the_analysis_is_there_as_code(self, demo):
        text = (demo[0] / "report.html").read_text(encoding="utf-8")
        assert "def train_model(" in text
        assert "ht.tl.lineage_path(adata, SOURCE, TARGET" in text

    def test_values_are_escaped(self):
        table = _table(pd.DataFrame({"<b>": ["a & b"]}, index=["<i>"]), {}, "")
        assert "&lt;b&gt;" in table
        assert "a &amp; b" in table
        assert "<th>&lt;i&gt;</th>" in table


class TestMeasures:
    def test_ward_joins_what_is_near(self):
        tree = ward_tree(np.array([[0.0], [1.0], [10.0], [12.0]]))
        assert tree.lca("0", "1") != tree.root == tree.lca("1", "2")
        assert set(tree.cut(n_leaves=2).n_cells[1:]) == {2}

    def test_a_tree_of_the_types_agrees_with_them(self):
        tree = ward_tree(np.array([[0.0], [1.0], [10.0], [12.0]]))
        leaf = np.array(["0", "1", "2", "3"], dtype=object)
        good = agreement(tree, leaf, np.array(["a", "a", "b", "b"]))
        assert good["Dendrogram purity"] == good["NMI"] == good["Accuracy"] == 1
        assert agreement(tree, leaf, np.array(["a", "b", "a", "b"]))["NMI"] == pytest.approx(0)

    def test_rank_correlation_looks_at_ranks_only(self):
        assert spearman([1, 2, 3], [1, 10, 1000]) == 1
        assert np.isnan(spearman([1, 1, 1], [1, 2, 3]))


class TestCommandLine:
    @pytest.mark.parametrize("given", [["--max-epochs", "0"], ["--max-epochs", "many"]])
    def test_a_senseless_number_of_epochs_is_refused_before_the_work(self, given, capsys):
        with pytest.raises(SystemExit) as stop:
            main(given)
        assert stop.value.code == 2
        assert "--max-epochs" in capsys.readouterr().err

    def test_a_file_in_the_place_of_the_folder_is_left_alone(self, tmp_path, capsys):
        (tmp_path / "demo").write_text("mine")
        with pytest.raises(SystemExit):
            main(["--out", str(tmp_path / "demo")])
        assert "this is a file" in capsys.readouterr().err
        assert (tmp_path / "demo").read_text() == "mine"

    @pytest.mark.parametrize("swallowed", [True, False])
    def test_ctrl_c_ends_it_without_a_traceback(self, swallowed, tmp_path, monkeypatch, capsys):
        from hdtree_sc.demo import _analysis

        class Stopped:
            """As a model is whose training was ended by Ctrl-C."""

        def train_model(*_, **__):
            if swallowed:
                return Stopped()
            raise KeyboardInterrupt

        monkeypatch.setattr(_analysis, "train_model", train_model)
        assert main(["--out", str(tmp_path)]) == 130
        assert "run it again" in capsys.readouterr().err
        assert not (tmp_path / "report.html").exists()
